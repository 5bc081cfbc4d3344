"""Traps of converters and quantizers: the real tool makes the file, and the gate refuses it.

None of these tools says a word: the file is there, it loads and it runs.
"""

import contextlib
import io
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from hedgerow.compile.golden import choose_samples, replay_tolerance  # noqa: E402 - needs torch
from hedgerow.compile.inspection.model import read_facts  # noqa: E402
from hedgerow.compile.pass_models import CompiledModel, FloatModel  # noqa: E402
from hedgerow.compile.passes.coreml.export import ExportCoreml  # noqa: E402
from hedgerow.compile.passes.onnx.export import ExportOnnx  # noqa: E402
from hedgerow.compile.passes.onnx.exporter import onnx_bytes  # noqa: E402
from hedgerow.compile.passes.runner import run_file_pass  # noqa: E402
from hedgerow.compile.passes.tflite.export import ExportTflite  # noqa: E402
from hedgerow.compile.passes.tflite.exporter import tflite_bytes  # noqa: E402
from hedgerow.compile.recipes import find_recipe  # noqa: E402
from hedgerow.compile.runners.onnx import predict_onnx  # noqa: E402
from hedgerow.compile.runners.tflite import predict_tflite  # noqa: E402
from hedgerow.compile.verify import Measured, Verdict, judge_artifact, judge_file  # noqa: E402
from hedgerow.errors import HedgerowError, TaskError  # noqa: E402
from hedgerow.hardware.lookup import load_target  # noqa: E402
from hedgerow.task import Dataset, Task, TaskData  # noqa: E402
from hedgerow.task_module import predict  # noqa: E402
from tests.compile.nets import make_source, resnet8  # noqa: E402
from tests.compile.only import only  # noqa: E402

pytestmark = [
    pytest.mark.heavy,
    # Converters and their dependencies call deprecated parts of each other.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
    # coremltools 9 leaves temporary files to the collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

PREDICT = {"onnx": predict_onnx, "tflite": predict_tflite}
TARGETS = {"onnx": ("raspberry-pi-4", "onnx-int8-s8s8"), "tflite": ("android-arm64", "tflite-int8")}


@pytest.fixture(scope="module")
def source() -> FloatModel:
    return make_source(resnet8)


@pytest.fixture(scope="module")
def floating(source) -> dict[str, CompiledModel]:
    return {"onnx": run_file_pass(ExportOnnx(), source, None), "tflite": run_file_pass(ExportTflite(), source, None)}


def judge(source: FloatModel, floating: CompiledModel, content: bytes, floats: np.ndarray | None = None) -> Verdict:
    """Judge a file as the pipeline does, as an artifact of the target's int8 recipe."""
    stage = replace(floating, content=content)
    target, recipe = TARGETS[stage.format]
    held_out = source.calibration
    floats = only(predict(source.task, source.model, held_out.inputs)) if floats is None else floats
    found = only(PREDICT[stage.format](stage, held_out.inputs))
    samples = choose_samples(held_out)
    replay = only(PREDICT[stage.format](stage, samples.inputs)) - only(PREDICT[stage.format](stage, samples.inputs))
    measured = Measured(
        size_bytes=len(content),
        float_bytes=len(floating.content),
        facts=read_facts(stage.format, content),
        outputs=source.task.answers,
        wanted={"probabilities": held_out.target_values},
        float_answers={"probabilities": floats},
        answers={"probabilities": found},
        replay_difference=float(np.abs(replay).max()),
        replay_tolerance=replay_tolerance(float(np.abs(found - floats).max())),
    )
    return judge_artifact(load_target(target), find_recipe(recipe), measured, max_drop=0.015)


def failed(verdict: Verdict) -> set[str]:
    return {name for name, state in verdict.checks.items() if state == "failed"}


def quantized_by_onnxruntime(source: FloatModel, content: bytes, method: str) -> bytes:
    from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, quantize_static

    class Reader(CalibrationDataReader):
        batches = iter([dict(source.calibration.inputs)])

        def get_next(self):
            return next(self.batches, None)

    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        before.write_bytes(content)
        quantize_static(before, after, Reader(), calibrate_method=getattr(CalibrationMethod, method))
        return after.read_bytes()


def test_onnxruntimes_own_defaults_pass(source, floating):
    """The gate refuses what is broken, not what is quantized."""
    content = quantized_by_onnxruntime(source, floating["onnx"].content, "MinMax")
    assert failed(judge(source, floating["onnx"], content)) == set()


def test_calibration_by_distribution_destroys_the_model(source, floating):
    content = quantized_by_onnxruntime(source, floating["onnx"].content, "Distribution")
    assert {"accuracy", "parity"} <= failed(judge(source, floating["onnx"], content))


def test_neural_compressor_without_folding_makes_a_file_larger_than_float(source, floating):
    from hedgerow.compile.passes.inc.quantize_static import QuantizeIncStatic
    from hedgerow.compile.passes.onnx.fold import FoldOnnx

    unfolded = run_file_pass(QuantizeIncStatic(), source, None)
    assert {"size", "quantized"} <= failed(judge(source, floating["onnx"], unfolded.content))
    assert failed(judge(source, floating["onnx"], run_file_pass(FoldOnnx(), source, unfolded).content)) == set()


@pytest.mark.parametrize(
    ("recipe", "refused_by"),
    [
        # Blockwise covers fully connected layers alone: of a convolutional network nothing is quantized.
        ("dynamic_wi8b32_afp32", {"quantized"}),
        ("dynamic_wi8b64_afp32", {"quantized"}),
        ("dynamic_wi4b32_afp32", {"quantized"}),
        ("dynamic_wi4b64_afp32", {"quantized"}),
        # The rotation matrices weigh more than the bits that they save.
        ("dynamic_wi8c_hr_afp32", {"size"}),
        ("dynamic_wi4c_hr_afp32", {"size"}),
    ],
)
def test_ai_edge_quantizers_recipe_that_gains_nothing(recipe, refused_by, source, floating, tmp_path):
    from ai_edge_quantizer import quantizer
    from ai_edge_quantizer import recipe as recipes

    before, after = tmp_path / "float.tflite", tmp_path / "quantized.tflite"
    before.write_bytes(floating["tflite"].content)
    tool = quantizer.Quantizer(str(before))
    tool.load_quantization_recipe(getattr(recipes, recipe)())
    with contextlib.redirect_stdout(io.StringIO()):
        tool.quantize().export_model(str(after))
    assert refused_by <= failed(judge(source, floating["tflite"], after.read_bytes()))


def test_pt2e_leaves_a_float_island_that_an_integer_target_cannot_compute(source):
    from hedgerow.compile.passes.tflite.quantize_pt2e import QuantizePt2eStatic

    stage = run_file_pass(QuantizePt2eStatic(per_channel=False), source, None)
    facts = read_facts("tflite", stage.content)
    for target in ("cortex-m7", "coral-edgetpu"):
        _asked, failures = judge_file(load_target(target), "tflite", len(stage.content), facts)
        assert "all integer" in [failure.check for failure in failures]


class Growing(torch.nn.Module):
    """Takes a path of any length."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x).mean(1)


def test_an_open_dimension_is_refused_where_shapes_must_be_fixed():
    fixed_shapes = replace(load_target("jetson-orin-nano"), static_shapes=True)
    steps, batch = torch.export.Dim("steps", min=2, max=64), torch.export.Dim("batch")
    for open_ones, refused in (({0: batch}, False), ({0: batch, 1: steps}, True)):
        content = onnx_bytes(
            Growing(), (torch.zeros(2, 16, 6),), input_names=["x"], output_names=["y"], dynamic_shapes=(open_ones,)
        )
        _asked, failures = judge_file(fixed_shapes, "onnx", len(content), read_facts("onnx", content))
        assert ("static shapes" in [failure.check for failure in failures]) is refused


def test_an_open_dimension_of_a_tflite_file_is_refused_by_a_microcontroller():
    """As TensorFlow's converter writes it; litert-torch 0.10 fails on open dimensions."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    content = tflite_bytes(Growing().eval(), (torch.zeros(1, 16, 6),))
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    for open_axis in (0, 1):
        signature = [1, 16, 6]
        signature[open_axis] = -1
        taken = model.subgraphs[0].inputs[0]
        model.subgraphs[0].tensors[taken].shapeSignature = np.array(signature, np.int32)
        builder = flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
        changed = bytes(builder.Output())
        _asked, failures = judge_file(load_target("cortex-m7"), "tflite", len(changed), read_facts("tflite", changed))
        # A batch that is open is 1 on a device.
        assert ("static shapes" in [failure.check for failure in failures]) is (open_axis == 1)


@pytest.mark.parametrize("export", [ExportOnnx(), ExportTflite(), ExportCoreml(minimum_version="iOS17")])
def test_weights_that_are_no_numbers_are_refused(export):
    broken = make_source(resnet8)
    with torch.no_grad():
        broken.model[-1].weight[0, 0] = float("nan")
    stage = run_file_pass(export, broken, None)
    target = {"onnx": "raspberry-pi-4", "tflite": "android-arm64", "mlpackage": "iphone-15"}[stage.format]
    facts = read_facts(stage.format, stage.content)
    _asked, failures = judge_file(load_target(target), stage.format, len(stage.content), facts)
    assert [failure.check for failure in failures] == ["weights"]


def with_calibration(values: np.ndarray) -> Dataset:
    return Dataset({"x": values}, np.zeros(len(values), np.int64))


@pytest.mark.parametrize(
    ("values", "mistake"),
    [
        (np.zeros((0, 3, 32, 32), np.float32), "calibration: it holds no samples"),
        (np.zeros((4, 3, 16, 16), np.float32), "calibration: x is float32\\[3, 16, 16\\] a sample"),
        (np.full((4, 3, 32, 32), np.nan, np.float32), "calibration: x holds NaN or infinity"),
    ],
)
def test_calibration_data_that_is_empty_or_of_another_shape_is_refused_before_any_tool_sees_it(values, mistake, source):
    data = TaskData(source.calibration, source.calibration, with_calibration(values))
    task = Task(name="random", inputs=source.task.inputs, outputs=source.task.answers, model=resnet8, data=lambda: data)
    with pytest.raises(TaskError, match=mistake):
        task.load_data()


def test_a_tool_that_takes_empty_calibration_data_in_silence_is_stopped_by_the_gate(source, floating):
    """neural-compressor quantizes without ranges when there is nothing to observe."""
    from hedgerow.compile.passes.inc.quantize_static import QuantizeIncStatic
    from hedgerow.compile.passes.onnx.fold import FoldOnnx

    nothing = replace(source, calibration=with_calibration(np.zeros((0, 3, 32, 32), np.float32)))
    try:
        stage = run_file_pass(FoldOnnx(), nothing, run_file_pass(QuantizeIncStatic(), nothing, None))
    except HedgerowError:
        return
    assert {"accuracy", "parity"} & failed(judge(source, floating["onnx"], stage.content))
