"""Small files as other people's converters write them, and samples for them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["FEATURES", "classes_of", "linear_onnx", "samples", "state_onnx", "write_samples"]

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
