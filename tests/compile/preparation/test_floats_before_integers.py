"""Where floats run, unlike raw features stay float up to the model: files run directly, on samples of our own."""

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import onnx  # noqa: E402
import onnxruntime as ort  # noqa: E402

from hedgerow.compile.making import Steps, make  # noqa: E402
from hedgerow.compile.recipes import RECIPES  # noqa: E402
from hedgerow.progress import silent  # noqa: E402
from hedgerow.task_module import predict  # noqa: E402
from tests.compile.only import only  # noqa: E402

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
    # coremltools 9 leaves temporary files to the collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

ONNX_INT8 = [name for name in RECIPES if name.startswith("onnx-int8") or name == "onnx-qat-int8"]
TFLITE_INT8 = [name for name in RECIPES if name.startswith("tflite-int8")]


def made(foundation, recipe):
    return make(foundation, RECIPES[recipe], Steps("test", 9, silent))


def right_share(probabilities, labels) -> float:
    return float((np.asarray(probabilities).argmax(1) == labels).mean())


def run_onnx(stage, inputs):
    session = ort.InferenceSession(stage.content, providers=["CPUExecutionProvider"])
    return session.run(None, {"features": inputs["features"]})[0]


def run_tflite(stage, inputs):
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(model_content=stage.content, num_threads=1).get_signature_runner()
    scale, zero_point = runner.get_output_details()["output_0"]["quantization"]
    rows = [runner(args_0=row[None])["output_0"][0] for row in inputs["features"]]
    return (np.array(rows).astype(np.float64) - zero_point) * (scale or 1.0)


def within_a_point(foundation, found, fresh) -> bool:
    wanted = right_share(
        only(predict(foundation.source.task, foundation.source.model, fresh.inputs)), fresh.target_values
    )
    assert 0.75 <= wanted <= 0.95, f"the float model's own accuracy is {wanted}"
    return abs(wanted - right_share(found, fresh.target_values)) <= 0.01


@pytest.mark.parametrize("recipe", ONNX_INT8)
def test_each_onnx_recipe_keeps_the_accuracy_in_onnx_runtime(recipe, scaled_bench, fresh):
    stage = made(scaled_bench, recipe).stage
    assert within_a_point(scaled_bench, run_onnx(stage, fresh.inputs), fresh)


@pytest.mark.parametrize("recipe", TFLITE_INT8)
def test_each_tflite_recipe_keeps_the_accuracy_in_litert(recipe, scaled_bench, fresh):
    stage = made(scaled_bench, recipe).stage
    assert within_a_point(scaled_bench, run_tflite(stage, fresh.inputs), fresh)


@pytest.mark.parametrize(("recipe", "run"), [("onnx-int8-s8s8", run_onnx), ("tflite-int8", run_tflite)])
def test_a_division_by_the_deviation_stays_float_too(recipe, run, bench, fresh):
    assert within_a_point(bench, run(made(bench, recipe).stage, fresh.inputs), fresh)


def test_one_scale_for_all_of_them_is_what_these_tests_would_find(scaled_bench, fresh):
    whole = replace(scaled_bench, halves=None, stages={}, made={})
    found = right_share(run_tflite(made(whole, "tflite-int8").stage, fresh.inputs), fresh.target_values)
    assert found < 0.5


@pytest.mark.parametrize("recipe", ["coreml-int8-weights", "coreml-int4-weights", "coreml-palette4", "coreml-fp16"])
def test_core_ml_prepares_in_float32_and_keeps_the_accuracy(recipe, bench_model, fresh):
    from hedgerow.compile.coreml_evaluation.evaluate import predict_coreml
    from hedgerow.examples.zoo import raw_sensors
    from tests.compile.preparation.conftest import make_foundation

    # Pressures in pascal: float16 ends at 65,504, and has steps of 64 before it.
    far = torch.zeros(43)
    far[7] = 101_325.0
    task = replace(raw_sensors.task, preprocess=lambda features: raw_sensors.normalised(features - far))
    foundation = make_foundation(task, bench_model)
    inputs = {"features": fresh.inputs["features"] + far.numpy()}
    stage = made(foundation, recipe).stage
    found = only(predict_coreml(stage.content, inputs))
    wanted = right_share(only(predict(task, bench_model, inputs)), fresh.target_values)
    assert isinstance(found, np.ndarray), found
    assert abs(wanted - right_share(found, fresh.target_values)) <= (0.05 if "4" in recipe else 0.01)


def test_the_first_integer_of_an_onnx_file_is_the_models_own_input(scaled_bench):
    graph = onnx.load_model_from_string(made(scaled_bench, "onnx-int8-s8s8").stage.content).graph
    # Weights come out of their own integers.
    kinds = [node.op_type for node in graph.node if node.op_type != "DequantizeLinear"]
    assert kinds[: kinds.index("QuantizeLinear")] == ["Mul", "Sub", "Clip"]


def test_the_share_of_int8_weights_counts_the_models_own_alone(scaled_bench):
    torch.manual_seed(0)
    bank = torch.rand(43, 400)
    task = replace(
        scaled_bench.source.task,
        preprocess=lambda features: scaled_bench.source.task.preprocess(features) + 0 * (features @ bank).sum(1, True),
    )
    from tests.compile.preparation.conftest import make_foundation

    found = made(make_foundation(task, scaled_bench.source.model), "onnx-int8-s8s8").facts
    # 43 x 48 + 48 x 24 + 24 x 5 weights in int8 against 17,200 floats of the bank.
    assert found.quantized_weights >= 3336
    assert found.quantized_share > 0.9


def test_int4_weights_leave_a_matrix_of_the_preparation_float(scaled_bench):
    torch.manual_seed(0)
    bank = torch.rand(43, 43)
    before = scaled_bench.source.task.preprocess
    task = replace(scaled_bench.source.task, preprocess=lambda features: before(features) @ bank)
    from tests.compile.preparation.conftest import make_foundation

    content = made(make_foundation(task, scaled_bench.source.model), "onnx-int4-weights").stage.content
    floats = [
        onnx.numpy_helper.to_array(tensor)
        for tensor in onnx.load_model_from_string(content).graph.initializer
        if tensor.data_type == onnx.TensorProto.FLOAT and tuple(tensor.dims) == (43, 43)
    ]
    assert len(floats) == 1
    assert np.array_equal(floats[0], bank.numpy())
