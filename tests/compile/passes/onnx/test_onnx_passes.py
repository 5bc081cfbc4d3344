"""What the ONNX passes write, read from the file: fp16, dynamic, static, mixed, weight-only and neural-compressor."""

import dataclasses

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")

from hedgerow.compile.errors import PassError, PassSettingsError  # noqa: E402 - needs torch
from hedgerow.compile.passes.inc.quantize_autotune import QuantizeIncAutotune  # noqa: E402
from hedgerow.compile.passes.onnx.convert_fp16 import ConvertOnnxFp16  # noqa: E402
from hedgerow.compile.passes.onnx.export import ExportOnnx  # noqa: E402
from hedgerow.compile.passes.onnx.fold import FoldOnnx  # noqa: E402
from hedgerow.compile.passes.onnx.quantize_dynamic import QuantizeOnnxDynamic  # noqa: E402
from hedgerow.compile.passes.onnx.quantize_mixed import QuantizeOnnxMixed  # noqa: E402
from hedgerow.compile.passes.onnx.quantize_static import QuantizeOnnxStatic  # noqa: E402
from hedgerow.compile.passes.onnx.quantize_weights import QuantizeOnnxWeights  # noqa: E402
from hedgerow.compile.passes.runner import run_file_pass  # noqa: E402
from hedgerow.compile.runners.onnx import predict_onnx  # noqa: E402
from hedgerow.compile.scoring import signal_to_noise_db  # noqa: E402
from tests.compile.only import only  # noqa: E402
from tests.compile.passes.networks import Loop  # noqa: E402

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

TYPES = onnx.TensorProto


def initializers(stage):
    return {t.name: t for t in onnx.load_model_from_string(stage.content).graph.initializer}


def numbers_of(stage, kind):
    return sum(int(np.prod(tensor.dims)) for tensor in initializers(stage).values() if tensor.data_type == kind)


def snr_db(float_stage, stage, data):
    return signal_to_noise_db(only(predict_onnx(float_stage, data.inputs)), only(predict_onnx(stage, data.inputs)))


CALLS = {
    "fp16": (ConvertOnnxFp16, {}, 0.55, 50),
    "dynamic": (QuantizeOnnxDynamic, {"per_channel": True}, 0.45, 25),
    "static": (QuantizeOnnxStatic, {"activations": "int8"}, 0.5, 25),
    "static unsigned, reduced": (QuantizeOnnxStatic, {"activations": "uint8", "reduce_range": True}, 0.5, 20),
    "static, per tensor": (QuantizeOnnxStatic, {"activations": "int8", "per_channel": False}, 0.45, 20),
    "static, percentile": (QuantizeOnnxStatic, {"activations": "int8", "calibration": "percentile"}, 0.5, 20),
    "static, entropy": (QuantizeOnnxStatic, {"activations": "int8", "calibration": "entropy"}, 0.5, 10),
    "static, symmetric": (QuantizeOnnxStatic, {"activations": "int8", "symmetric": True}, 0.5, 20),
    "int4 weights": (QuantizeOnnxWeights, {"bits": 4, "block": 32}, 0.35, 12),
    "int8 weights": (QuantizeOnnxWeights, {"bits": 8, "block": 64}, 0.5, 35),
}


@pytest.mark.parametrize("name", sorted(CALLS))
def test_the_file_is_smaller_works_and_is_the_same_every_time(name, source, onnx_stage, held_out):
    step, settings, share, minimum_db = CALLS[name]
    stage = run_file_pass(step(**settings), source, onnx_stage)
    assert len(stage.content) < share * len(onnx_stage.content)
    assert snr_db(onnx_stage, stage, held_out) > minimum_db
    assert run_file_pass(step(**settings), source, onnx_stage).content == stage.content


@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("name", ["static", "static unsigned, reduced", "static, per tensor", "static, symmetric"])
def test_a_transposed_convolution_has_int8_weights_and_works(name, groups, source, held_out):
    class Up(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.down = torch.nn.Conv2d(1, 16, 3, stride=2, padding=1)
            self.up = torch.nn.ConvTranspose2d(16, 16, 4, stride=2, padding=1, groups=groups)
            self.head = torch.nn.Linear(16, 10)

        def forward(self, image):
            return self.head(torch.relu(self.up(torch.relu(self.down(image)))).mean((2, 3)))

    torch.manual_seed(0)
    up = dataclasses.replace(source, model=Up().eval())
    exported = run_file_pass(ExportOnnx(), up, None)
    step, settings, _share, minimum_db = CALLS[name]
    stage = run_file_pass(step(**settings), up, exported)
    assert snr_db(exported, stage, held_out) > minimum_db
    weights = sum(value.numel() for key, value in up.model.named_parameters() if "weight" in key)
    # One scale for each of the weight's second axis does not fit the biases of groups: those stay float.
    kept = 0 if groups == 1 or name == "static, per tensor" else up.model.up.weight.numel()
    assert numbers_of(stage, TYPES.INT8) >= weights - kept


def test_fp16_keeps_float32_at_its_border(source, onnx_stage):
    stage = run_file_pass(ConvertOnnxFp16(), source, onnx_stage)
    graph = onnx.load_model_from_string(stage.content).graph
    assert {value.type.tensor_type.elem_type for value in (*graph.input, *graph.output)} == {TYPES.FLOAT}
    assert numbers_of(stage, TYPES.FLOAT16) > 20_000
    assert numbers_of(stage, TYPES.FLOAT) < 50


def test_int4_is_really_stored_in_half_a_byte(source, onnx_stage):
    stage = run_file_pass(QuantizeOnnxWeights(bits=4, block=32), source, onnx_stage)
    stored = [tensor for tensor in initializers(stage).values() if tensor.data_type == TYPES.INT4]
    assert sum(int(np.prod(tensor.dims)) for tensor in stored) > 20_000
    for tensor in stored:
        assert len(tensor.raw_data) == (int(np.prod(tensor.dims)) + 1) // 2
        assert np.abs(onnx.numpy_helper.to_array(tensor).astype(int)).max() == 7


def test_reduced_range_uses_seven_bits_of_a_weight(source, onnx_stage):
    def largest(reduce_range):
        stage = run_file_pass(QuantizeOnnxStatic(activations="uint8", reduce_range=reduce_range), source, onnx_stage)
        weights = [t for t in initializers(stage).values() if t.data_type == TYPES.INT8 and len(t.dims) > 1]
        return max(np.abs(onnx.numpy_helper.to_array(t).astype(int)).max() for t in weights)

    assert (largest(reduce_range=True), largest(reduce_range=False)) == (64, 127)


def test_symmetric_has_no_zero_points_and_no_integer_biases(source, onnx_stage):
    """TensorRT refuses both."""
    stage = run_file_pass(QuantizeOnnxStatic(activations="int8", symmetric=True), source, onnx_stage)
    points = [t for name, t in initializers(stage).items() if name.endswith("zero_point")]
    assert points
    assert all((onnx.numpy_helper.to_array(tensor) == 0).all() for tensor in points)
    assert numbers_of(stage, TYPES.INT32) == 0


def test_per_channel_has_a_scale_for_each_output_channel(source, onnx_stage):
    def scales(per_channel):
        stage = run_file_pass(QuantizeOnnxStatic(activations="int8", per_channel=per_channel), source, onnx_stage)
        return max(int(np.prod(t.dims)) for name, t in initializers(stage).items() if name.endswith("_scale"))

    assert (scales(per_channel=True), scales(per_channel=False)) == (32, 1)


def test_calibrations_differ(source, onnx_stage):
    """ONNX Runtime by itself has as many bins as steps for entropy, and so returns the extremes."""
    files = {
        run_file_pass(QuantizeOnnxStatic(activations="int8", calibration=calibration), source, onnx_stage).content
        for calibration in ("minmax", "entropy", "percentile")
    }
    assert len(files) == 3


def int8_layers(stage):
    """Names of weights that are stored as integers."""
    return {name for name, t in initializers(stage).items() if t.data_type == TYPES.INT8 and len(t.dims) > 1}


def test_a_layer_in_a_loop_survives_dynamic_quantization(source, held_out):
    """ONNX Runtime transposes a weight that two Gemm share twice, and says nothing when it is square."""
    torch.manual_seed(0)
    looped = dataclasses.replace(source, model=Loop().eval())
    stage = run_file_pass(ExportOnnx(), looped, None)
    assert snr_db(stage, run_file_pass(QuantizeOnnxDynamic(), looped, stage), held_out) > 35


def test_mixed_precision_keeps_the_worst_layers_wide_until_the_budget_holds(source, onnx_stage, held_out):
    int8 = run_file_pass(QuantizeOnnxStatic(activations="int8"), source, onnx_stage)
    found = snr_db(onnx_stage, int8, source.calibration)
    budget = found + 3
    mixed = run_file_pass(QuantizeOnnxMixed(activations="int8", minimum_snr_db=budget), source, onnx_stage)
    assert snr_db(onnx_stage, mixed, source.calibration) >= budget
    assert 0 < len(int8_layers(mixed)) < len(int8_layers(int8))
    easy = run_file_pass(QuantizeOnnxMixed(activations="int8", minimum_snr_db=found - 5), source, onnx_stage)
    assert easy.content == int8.content


def test_autotune_finds_settings_that_reach_the_goal_and_folds_small(source, onnx_stage, held_out):
    pytest.importorskip("neural_compressor")
    raw = run_file_pass(QuantizeIncAutotune(minimum_snr_db=25.0), source, None)
    folded = run_file_pass(FoldOnnx(), source, raw)
    assert len(raw.content) > 0.9 * len(onnx_stage.content)
    assert len(folded.content) < 0.45 * len(onnx_stage.content)
    assert snr_db(onnx_stage, folded, source.calibration) >= 25


@pytest.mark.parametrize(
    ("step", "wrong"),
    [
        (QuantizeOnnxStatic, {"activations": "int8", "calibration": "distribution"}),
        (QuantizeOnnxStatic, {"activations": "int9"}),
        (QuantizeOnnxWeights, {"bits": 3}),
        (QuantizeOnnxWeights, {"bits": 4, "block": 7}),
        (QuantizeOnnxDynamic, {"bits": 8}),
        (ConvertOnnxFp16, {"bits": 16}),
        (QuantizeOnnxMixed, {"activations": "int8", "minimum_snr_db": -1.0}),
    ],
)
def test_settings_are_checked(step, wrong):
    with pytest.raises(PassSettingsError):
        step(**wrong)


def test_weights_that_are_too_small_to_gain_are_told(source, onnx_stage):
    with pytest.raises(PassError, match="no weight of 1000000 numbers or more"):
        run_file_pass(QuantizeOnnxWeights(bits=4, minimum_elements=1_000_000), source, onnx_stage)
