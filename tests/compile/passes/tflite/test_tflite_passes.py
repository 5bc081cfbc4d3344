"""What the TFLite passes write, read from the file: fp16, dynamic, weight-only, static, full-integer and mixed."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("litert_torch")

from hedgerow.compile.errors import PassSettingsError  # noqa: E402 - needs torch
from hedgerow.compile.inspection.tflite.facts import read_tflite  # noqa: E402
from hedgerow.compile.passes.runner import run_file_pass  # noqa: E402
from hedgerow.compile.passes.tflite.convert_fp16 import ConvertTfliteFp16  # noqa: E402
from hedgerow.compile.passes.tflite.quantize_mixed import QuantizeTfliteMixed  # noqa: E402
from hedgerow.compile.passes.tflite.quantize_static import QuantizeTfliteFull, QuantizeTfliteStatic  # noqa: E402
from hedgerow.compile.passes.tflite.quantize_weights import (  # noqa: E402
    QuantizeTfliteDynamic,
    QuantizeTfliteWeights,
)
from hedgerow.compile.runners.tflite import predict_tflite  # noqa: E402
from hedgerow.compile.scoring import signal_to_noise_db  # noqa: E402
from tests.compile.only import only  # noqa: E402

pytestmark = [
    pytest.mark.heavy,
    # The converter and its dependencies call deprecated parts of each other.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

CALLS = {
    "fp16": (ConvertTfliteFp16, {}, 0.6, 50),
    "dynamic": (QuantizeTfliteDynamic, {"bits": 8}, 0.45, 25),
    "dynamic int4": (QuantizeTfliteDynamic, {"bits": 4}, 0.4, 8),
    "weights": (QuantizeTfliteWeights, {"bits": 8}, 0.45, 30),
    "static": (QuantizeTfliteStatic, {}, 0.5, 25),
    "full": (QuantizeTfliteFull, {}, 0.5, 25),
}


def snr_db(float_stage, stage, data):
    return signal_to_noise_db(only(predict_tflite(float_stage, data.inputs)), only(predict_tflite(stage, data.inputs)))


@pytest.mark.parametrize("name", sorted(CALLS))
def test_the_file_is_smaller_works_and_is_the_same_every_time(name, source, tflite_stage, held_out):
    step, settings, share, minimum_db = CALLS[name]
    stage = run_file_pass(step(**settings), source, tflite_stage)
    assert len(stage.content) < share * len(tflite_stage.content)
    assert snr_db(tflite_stage, stage, held_out) > minimum_db
    assert run_file_pass(step(**settings), source, tflite_stage).content == stage.content


def test_fp16_stores_weights_as_float16(source, tflite_stage):
    facts = read_tflite(run_file_pass(ConvertTfliteFp16(), source, tflite_stage).content)
    assert "float16" in facts.number_types
    assert facts.quantized_share == 0


def test_int4_is_really_stored(source, tflite_stage):
    facts = read_tflite(run_file_pass(QuantizeTfliteDynamic(bits=4), source, tflite_stage).content)
    assert "int4" in facts.number_types
    assert facts.quantized_share > 0.95


def test_full_integer_has_no_float_inside_or_at_its_border(source, tflite_stage):
    stage = run_file_pass(QuantizeTfliteFull(), source, tflite_stage)
    assert read_tflite(stage.content).number_types == {"int8", "int32"}
    (given,), (found,) = stage.inputs, stage.outputs
    assert (given.dtype, found.dtype) == ("int8", "int8")
    assert given.scale == pytest.approx(16 / 255, rel=0.01)
    # Softmax in int8 has one grid: 256 steps from 0 to 1.
    assert (found.scale, found.zero_point) == (1 / 256, -128)


def test_plain_static_keeps_softmax_and_border_in_float(source, tflite_stage):
    stage = run_file_pass(QuantizeTfliteStatic(), source, tflite_stage)
    assert (stage.inputs[0].dtype, stage.outputs[0].dtype) == ("float32", "float32")
    assert read_tflite(stage.content).quantized_share > 0.99


def test_mixed_precision_keeps_the_worst_layers_wide_until_the_budget_holds(source, tflite_stage):
    seen = source.calibration.take(np.arange(64))
    int8 = run_file_pass(QuantizeTfliteStatic(), source, tflite_stage)
    found = snr_db(tflite_stage, int8, seen)
    budget = found + 3
    mixed = run_file_pass(QuantizeTfliteMixed(minimum_snr_db=budget), source, tflite_stage)
    assert snr_db(tflite_stage, mixed, seen) >= budget
    shares = [read_tflite(stage.content).quantized_share for stage in (mixed, int8)]
    assert 0 < shares[0] < shares[1]
    assert run_file_pass(QuantizeTfliteMixed(minimum_snr_db=found - 5), source, tflite_stage).content == int8.content


@pytest.mark.parametrize(
    ("step", "wrong"),
    [
        (QuantizeTfliteDynamic, {"bits": 2}),
        (QuantizeTfliteWeights, {}),
        (QuantizeTfliteStatic, {"per_channel": True}),
        (QuantizeTfliteFull, {"bits": 8}),
        (ConvertTfliteFp16, {"bits": 16}),
        (QuantizeTfliteMixed, {"minimum_snr_db": 1000.0}),
    ],
)
def test_settings_are_checked(step, wrong):
    with pytest.raises(PassSettingsError):
        step(**wrong)
