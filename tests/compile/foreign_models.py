"""Small files as other people's converters write them, and samples for them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

__all__ = [
    "FEATURES",
    "branching_onnx",
    "classes_of",
    "forest_onnx",
    "linear_onnx",
    "linear_tflite",
    "quantized_onnx",
    "recurrent_onnx",
    "samples",
    "signed_tflite",
    "state_onnx",
    "write_samples",
]

FEATURES = 128
_WEIGHT = np.random.default_rng(0).normal(size=(FEATURES, 3)).astype(np.float32)


def classes_of(values: np.ndarray) -> np.ndarray:
    """Return the class that the linear model gives each row, worked out without it."""
    return (values.astype(np.float64) @ _WEIGHT.astype(np.float64)).argmax(axis=1)


def samples(count: int = 80, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Return inputs for the linear model, and the classes that it gives them."""
    values = np.random.default_rng(seed).normal(size=(count, FEATURES)).astype(np.float32)
    return values, classes_of(values)


def write_samples(path: Path, **arrays: np.ndarray) -> Path:
    """Write a file for --data."""
    np.savez(path, **arrays)
    return path


def _model(nodes: Sequence[Any], inputs: Sequence[Any], outputs: Sequence[Any], constants: Mapping[str, Any]) -> bytes:
    from onnx import helper, numpy_helper

    graph = helper.make_graph(
        nodes, "graph", inputs, outputs, [numpy_helper.from_array(value, name) for name, value in constants.items()]
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return made.SerializeToString()


def linear_onnx(
    taken: Sequence[int | str] = ("batch", FEATURES), given: Sequence[int | str] | None = ("batch", 3)
) -> bytes:
    """Return softmax(x @ weight), where every dimension of x but the last is passed on."""
    from onnx import TensorProto, helper

    return _model(
        [helper.make_node("MatMul", ["x", "w"], ["m"]), helper.make_node("Softmax", ["m"], ["y"])],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, taken)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, given)],
        {"w": _WEIGHT},
    )


def state_onnx() -> bytes:
    """Return a counter: stateN = state + x, with its batch second, and two scores: the sum is above 0, or below."""
    from onnx import TensorProto, helper

    float_ = TensorProto.FLOAT
    return _model(
        [
            helper.make_node("Add", ["state", "x"], ["stateN"]),
            helper.make_node("ReduceSum", ["stateN", "axes"], ["sum"], keepdims=0),
            helper.make_node("MatMul", ["sum", "signs"], ["scores"]),
            helper.make_node("Softmax", ["scores"], ["output"]),
        ],
        [
            helper.make_tensor_value_info("x", float_, ("batch", 4)),
            helper.make_tensor_value_info("state", float_, (2, "batch", 4)),
        ],
        [
            helper.make_tensor_value_info("output", float_, ("batch", 2)),
            helper.make_tensor_value_info("stateN", float_, (2, "batch", 4)),
        ],
        {"axes": np.array([0], np.int64), "signs": np.repeat([[1.0, -1.0]], 4, axis=0).astype(np.float32)},
    )


def branching_onnx() -> bytes:
    """Return the linear model with its product in both branches of an ``If``, whose condition is the data's sum."""
    from onnx import TensorProto, helper

    def branch(name: str) -> Any:
        made = helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, 3))
        return helper.make_graph([helper.make_node("MatMul", ["x", "w"], [name])], name, [], [made])

    return _model(
        [
            helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0),
            helper.make_node("Greater", ["sum", "zero"], ["above"]),
            helper.make_node("If", ["above"], ["m"], then_branch=branch("a"), else_branch=branch("b")),
            helper.make_node("Softmax", ["m"], ["y"]),
        ],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, FEATURES))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 3))],
        {"w": _WEIGHT, "zero": np.array(0, np.float32)},
    )


def quantized_onnx() -> bytes:
    """Return the linear model with its weights and its inputs in int8, between QuantizeLinear and DequantizeLinear."""
    from onnx import TensorProto, helper

    step = float(np.abs(_WEIGHT).max() / 127)
    return _model(
        [
            helper.make_node("QuantizeLinear", ["x", "s", "z"], ["x8"]),
            helper.make_node("DequantizeLinear", ["x8", "s", "z"], ["xd"]),
            helper.make_node("DequantizeLinear", ["w8", "ws", "z"], ["w"]),
            helper.make_node("MatMul", ["xd", "w"], ["m"]),
            helper.make_node("Softmax", ["m"], ["y"]),
        ],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("batch", FEATURES))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ("batch", 3))],
        {
            "s": np.array(4 / 127, np.float32),
            "z": np.array(0, np.int8),
            "ws": np.array(step, np.float32),
            "w8": np.rint(_WEIGHT / step).astype(np.int8),
        },
    )


def recurrent_onnx() -> bytes:
    """Return an LSTM, 4 wide, over the features as 16 steps of 8, and three scores of its last state."""
    from onnx import TensorProto, helper

    rng = np.random.default_rng(3)
    return _model(
        [
            helper.make_node("Reshape", ["x", "sizes"], ["steps"]),
            helper.make_node("LSTM", ["steps", "wi", "wr"], ["", "h", ""], hidden_size=4),
            helper.make_node("Squeeze", ["h", "first"], ["last"]),
            helper.make_node("MatMul", ["last", "w"], ["m"]),
            helper.make_node("Softmax", ["m"], ["y"]),
        ],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, FEATURES))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 3))],
        {
            "sizes": np.array([16, 1, 8], np.int64),
            "first": np.array([0], np.int64),
            "wi": rng.normal(size=(1, 16, 8)).astype(np.float32),
            "wr": rng.normal(size=(1, 16, 4)).astype(np.float32),
            "w": rng.normal(size=(4, 3)).astype(np.float32),
        },
    )


def forest_onnx() -> bytes:
    """Return one tree over the first two features, as skl2onnx writes it: classes 0, 1 and 2 at its leaves."""
    from onnx import TensorProto, helper

    node = helper.make_node(
        "TreeEnsembleClassifier",
        ["x"],
        ["label", "probabilities"],
        domain="ai.onnx.ml",
        nodes_treeids=[0] * 5,
        nodes_nodeids=list(range(5)),
        nodes_featureids=[0, 0, 1, 0, 0],
        nodes_modes=["BRANCH_LEQ", "LEAF", "BRANCH_LEQ", "LEAF", "LEAF"],
        nodes_values=[0.0] * 5,
        nodes_truenodeids=[1, 0, 3, 0, 0],
        nodes_falsenodeids=[2, 0, 4, 0, 0],
        nodes_missing_value_tracks_true=[0] * 5,
        class_treeids=[0] * 3,
        class_nodeids=[1, 3, 4],
        class_ids=[0, 1, 2],
        class_weights=[1.0] * 3,
        classlabels_int64s=[0, 1, 2],
        post_transform="NONE",
    )
    graph = helper.make_graph(
        [node],
        "forest",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("batch", FEATURES))],
        [
            helper.make_tensor_value_info("label", TensorProto.INT64, ("batch",)),
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ("batch", 3)),
        ],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()


def linear_tflite(*, border: str = "FLOAT32", signature: Sequence[int] | None = None, with_text: bool = False) -> bytes:
    """Return softmax(x @ weight) without a signature, as converters of TensorFlow 1 wrote it.

    Args:
        border: ``INT16`` for 16-bit activations with 8-bit weights.
        signature: What the file says of open sizes; None: nothing.
        with_text: Give a second output of strings.
    """
    from tools.operator_tables.tflite_model import TfliteModel

    model = TfliteModel()
    graph = model.graph()
    if border == "FLOAT32":
        taken, scales = graph.tensor("FLOAT32", (1, FEATURES)), (None, None)
        weight = graph.tensor("FLOAT32", (3, FEATURES), data=np.ascontiguousarray(_WEIGHT.T))
        bias = graph.tensor("FLOAT32", (3,), data=np.zeros(3, np.float32))
    else:
        scales = (8 / 32768, 64 / 32768)
        step = float(np.abs(_WEIGHT).max() / 127)
        taken = graph.tensor("INT16", (1, FEATURES), scale=scales[0])
        weight = graph.tensor(
            "INT8", (3, FEATURES), data=np.ascontiguousarray(np.rint(_WEIGHT.T / step).astype(np.int8)), scale=step
        )
        bias = graph.tensor("INT64", (3,), data=np.zeros(3, np.int64), scale=step * scales[0])
    given = graph.tensor(border, (1, 3), scale=scales[1])
    graph.operator(
        "FULLY_CONNECTED",
        [taken, weight, bias],
        [given],
        version=1 if border == "FLOAT32" else 7,
        options="FullyConnectedOptions",
    )
    last = given
    if border == "FLOAT32":
        last = graph.tensor("FLOAT32", (1, 3))
        graph.operator("SOFTMAX", [given], [last], options="SoftmaxOptions", fields={"beta": 1.0})
    if signature is not None:
        for place in range(len(graph.record.tensors)):
            if place in {taken, given, last}:
                graph.record.tensors[place].shapeSignature = [*signature, 3 if place != taken else FEATURES]
    graph.record.inputs, graph.record.outputs = [taken], [last]
    if with_text:
        text = graph.tensor("STRING", (1,))
        graph.record.outputs = [last, text]
        graph.operator("CAST", [last], [text])
    return model.content()


def signed_tflite() -> bytes:
    """Return softmax(x @ weight) in int8 behind a signature from ``x`` to ``y``, as converters of today write it."""
    from ai_edge_litert import schema_py_generated as schema
    from tools.operator_tables.tflite_model import TfliteModel

    model = TfliteModel()
    graph = model.graph()
    step = float(np.abs(_WEIGHT).max() / 127)
    taken = graph.tensor("INT8", (1, FEATURES), scale=4 / 128)
    weight = graph.tensor("INT8", (3, FEATURES), data=np.rint(_WEIGHT.T / step).astype(np.int8), scale=step)
    bias = graph.tensor("INT32", (3,), data=np.zeros(3, np.int32), scale=step * 4 / 128)
    scores = graph.tensor("INT8", (1, 3), scale=0.4)
    given = graph.tensor("INT8", (1, 3), scale=1 / 256, zero_point=-128)
    inputs = [taken, weight, bias]
    graph.operator("FULLY_CONNECTED", inputs, [scores], version=4, options="FullyConnectedOptions")
    graph.operator("SOFTMAX", [scores], [given], version=2, options="SoftmaxOptions", fields={"beta": 1.0})
    graph.record.inputs, graph.record.outputs = [taken], [given]
    parsed = schema.ModelT.InitFromPackedBuf(model.content(), 0)
    signature = schema.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = "serving_default", 0
    signature.inputs, signature.outputs = [_entry("x", taken)], [_entry("y", given)]
    parsed.signatureDefs = [signature]
    return _packed(parsed)


def _entry(name: str, place: int) -> Any:
    from ai_edge_litert import schema_py_generated as schema

    entry = schema.TensorMapT()
    entry.name, entry.tensorIndex = name, place
    return entry


def _packed(parsed: Any) -> bytes:
    import flatbuffers

    builder = flatbuffers.Builder(1024)
    builder.Finish(parsed.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def edgetpu_tflite(*, left_to_cpu: bool = False) -> bytes:
    """Return a file as ``edgetpu_compiler`` writes one: a single operator of its own."""
    from tools.operator_tables.tflite_model import TfliteModel

    model = TfliteModel()
    graph = model.graph()
    taken = graph.tensor("UINT8", (1, FEATURES), scale=0.1, zero_point=128)
    given = graph.tensor("UINT8", (1, FEATURES), scale=0.1, zero_point=128)
    graph.operator("edgetpu-custom-op", [taken], [given], fields={"1": "compiled"})
    last = given
    if left_to_cpu:
        last = graph.tensor("UINT8", (1, FEATURES), scale=1 / 256)
        graph.operator("SOFTMAX", [given], [last], options="SoftmaxOptions", fields={"beta": 1.0})
    graph.record.inputs, graph.record.outputs = [taken], [last]
    return model.content()
