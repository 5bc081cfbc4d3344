"""Trimming makes files smaller and changes no result."""

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")

from hedgerow.compile.pass_models import CompiledModel, FloatModel  # noqa: E402
from hedgerow.compile.passes.onnx.trim import TrimOnnx  # noqa: E402 - needs onnx
from hedgerow.compile.passes.runner import run_file_pass  # noqa: E402
from hedgerow.examples.zoo import ZOO  # noqa: E402
from hedgerow.manifest.content import Tensor  # noqa: E402
from hedgerow.task import load_task  # noqa: E402
from tests.compile.only import only  # noqa: E402

pytestmark = [
    pytest.mark.heavy,
    # Converters and their dependencies call deprecated parts of each other.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
FLOAT = onnx.TensorProto.FLOAT


def stage_of(nodes, constants) -> CompiledModel:
    helper = onnx.helper
    border = [helper.make_tensor_value_info(name, FLOAT, ["batch", 2]) for name in ("0", "probabilities")]
    graph = helper.make_graph(nodes, "main", border[:1], border[1:], initializer=constants)
    graph.value_info.append(helper.make_tensor_value_info("a.long.name.of.an.inner.tensor", FLOAT, ["batch", 2]))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    tensors = [Tensor(name, name, (-1, 2), "float32") for name in ("0", "probabilities")]
    return CompiledModel(
        format="onnx", content=model.SerializeToString(), inputs=tuple(tensors[:1]), outputs=tuple(tensors[1:])
    )


def any_source() -> FloatModel:
    task = load_task(ZOO["mlp"].task)
    return FloatModel(task=task, model=task.model().eval(), calibration=task.calibration(task.load_data()))


def constant(name: str, *values: float):
    return onnx.numpy_helper.from_array(np.array(values, np.float32), name)


@pytest.fixture
def stage() -> CompiledModel:
    node = onnx.helper.make_node
    return stage_of(
        [
            node("Mul", ["0", "first.weight"], ["a.long.name.of.an.inner.tensor"], name="node_of_mul"),
            node("Clip", ["a.long.name.of.an.inner.tensor", "", "top"], ["clipped"]),
            node("Add", ["clipped", "second.weight"], ["probabilities"]),
        ],
        [
            constant("first.weight", 2, 3),
            constant("second.weight", 2, 3),
            onnx.numpy_helper.from_array(np.float32(9), "top"),
        ],
    )


def run(stage: CompiledModel) -> np.ndarray:
    from hedgerow.compile.runners.onnx import predict_onnx

    return only(predict_onnx(stage, {"0": np.array([[1, 2], [3, 4]], np.float32)}))


def test_a_trimmed_onnx_file_is_smaller_and_computes_the_same(stage):
    trimmed = run_file_pass(TrimOnnx(), any_source(), stage)
    np.testing.assert_array_equal(run(trimmed), run(stage))
    assert len(trimmed.content) < len(stage.content)
    graph = onnx.ModelProto.FromString(trimmed.content).graph
    assert not graph.value_info
    assert [value.name for value in (*graph.input, *graph.output)] == ["0", "probabilities"]
    # Two equal weights are one; no inner name is a name of the border; an argument left out stays out.
    assert len(graph.initializer) == 2
    assert "0" not in {name for node in graph.node for name in node.output}
    assert graph.node[1].input[1] == ""
    onnx.checker.check_model(onnx.ModelProto.FromString(trimmed.content))


def test_trimming_an_onnx_file_again_changes_nothing(stage):
    once = run_file_pass(TrimOnnx(), any_source(), stage)
    assert run_file_pass(TrimOnnx(), any_source(), once) == once


def test_a_file_with_subgraphs_keeps_the_names_that_they_use():
    node, helper = onnx.helper.make_node, onnx.helper
    branch = helper.make_graph(
        [node("Mul", ["0", "outer"], ["result"])], "b", [], [helper.make_tensor_value_info("result", FLOAT, None)]
    )
    truth = onnx.numpy_helper.from_array(np.array(True), "truth")
    stage = stage_of(
        [node("If", ["truth"], ["probabilities"], then_branch=branch, else_branch=branch)],
        [truth, constant("outer", 2, 3)],
    )
    np.testing.assert_array_equal(run(run_file_pass(TrimOnnx(), any_source(), stage)), run(stage))


def test_a_trimmed_tflite_file_is_smaller_and_computes_the_same():
    import torch

    from hedgerow.compile.passes.tflite.export import ExportTflite
    from hedgerow.compile.passes.tflite.quantize_static import QuantizeTfliteStatic
    from hedgerow.compile.passes.tflite.trim import TrimTflite
    from hedgerow.compile.runners.tflite import predict_tflite

    task = load_task(ZOO["mlp"].task)
    torch.manual_seed(0)
    source = FloatModel(task=task, model=task.model().eval(), calibration=task.calibration(task.load_data()))
    stage = run_file_pass(QuantizeTfliteStatic(), source, run_file_pass(ExportTflite(), source, None))
    trimmed = run_file_pass(TrimTflite(), source, stage)
    inputs = {"pixels": source.calibration.inputs["pixels"][:20]}
    np.testing.assert_array_equal(only(predict_tflite(trimmed, inputs)), only(predict_tflite(stage, inputs)))
    assert len(trimmed.content) < 0.9 * len(stage.content)
    assert run_file_pass(TrimTflite(), source, trimmed).content == trimmed.content
    assert trimmed.content.index(weight_bytes(stage, 2560)) % 16 == 0


def weight_bytes(stage: CompiledModel, size: int) -> bytes:
    """Return the constant of *size* bytes in a TFLite file."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=stage.content)
    details = [d for d in interpreter.get_tensor_details() if d["dtype"] is np.int8 and np.prod(d["shape"]) == size]
    return interpreter.get_tensor(details[0]["index"]).tobytes()


def test_constants_behind_the_flatbuffer_of_a_larger_model_come_back_into_it():
    import torch
    from ai_edge_litert import schema_py_generated as schema

    from hedgerow.compile.inspection.model import read_facts
    from hedgerow.compile.passes.tflite.export import ExportTflite
    from hedgerow.compile.passes.tflite.quantize_static import QuantizeTfliteStatic
    from hedgerow.compile.passes.tflite.trim import TrimTflite
    from hedgerow.compile.runners.tflite import predict_tflite
    from hedgerow.compile.verify import judge_file
    from hedgerow.examples.zoo import ZOO
    from hedgerow.hardware.lookup import load_target
    from hedgerow.task import load_task

    def outside(stage: CompiledModel) -> int:
        buffers = schema.ModelT.InitFromPackedBuf(stage.content, 0).buffers
        return sum(buffer.offset > 1 for buffer in buffers)

    task = load_task(ZOO["autoencoder"].task)
    torch.manual_seed(0)
    data = task.load_data()
    source = FloatModel(task=task, model=task.model().eval(), calibration=data.calibration.take(range(8)))
    stage = run_file_pass(QuantizeTfliteStatic(), source, run_file_pass(ExportTflite(), source, None))
    trimmed = run_file_pass(TrimTflite(), source, stage)
    assert outside(stage) > 0
    assert outside(trimmed) == 0
    inputs = source.calibration.inputs
    np.testing.assert_array_equal(only(predict_tflite(trimmed, inputs)), only(predict_tflite(stage, inputs)))
    # The same weights are read from both places; a microcontroller finds them in one.
    before, after = read_facts("tflite", stage.content), read_facts("tflite", trimmed.content)
    assert before.outside_constants == outside(stage)
    assert after.outside_constants == 0
    assert before.parameters == after.parameters > 260_000
    assert (before.macs, before.quantized_weights) == (after.macs, after.quantized_weights)
    assert before.weights_bytes_by_bits == after.weights_bytes_by_bits
    for facts, refused in ((before, True), (after, False)):
        asked, failures = judge_file(load_target("cortex-m7"), "tflite", len(stage.content), facts)
        assert "inline constants" in asked
        assert ("inline constants" in [failure.check for failure in failures]) is refused
