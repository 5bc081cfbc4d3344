"""Files of torch's plain recurrent layers, run by their runtimes on series that no quantizer saw, against torch."""

import io
from collections import Counter

import numpy as np
import pytest

torch = pytest.importorskip("torch")
for _needed in ("onnxruntime", "litert_torch", "coremltools"):
    pytest.importorskip(_needed)

import onnx  # noqa: E402

from hedgerow.compile.inspection.model import read_facts  # noqa: E402
from hedgerow.compile.passes.runner import run_file_pass, run_model_pass  # noqa: E402
from hedgerow.compile.recipes import RECIPES  # noqa: E402
from tests.compile.passes.traced.recurrent_nets import CHANNELS, NETS, STEPS, make_source, series  # noqa: E402
from tests.compile.passes.traced.runtimes import RUN, in_tflite_micro  # noqa: E402

pytestmark = [
    pytest.mark.heavy,
    # torch tells that oneDNN has no projections.
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

FRESH = series(64, seed=5)
OPERATORS = {"lstm": "LSTM", "gru": "GRU", "rnn": "RNN", "rnn, relu": "RNN", "lstm, projection": "LSTM"}


def compiled(recipe, source):
    for step in RECIPES[recipe].model_passes:
        source = run_model_pass(step, source)
    stage = None
    for step in RECIPES[recipe].passes:
        stage = run_file_pass(step, source, stage)
    return stage


def floats(source):
    with torch.no_grad():
        return torch.softmax(source.model(torch.from_numpy(FRESH)), -1).numpy()


def snr_db(wanted, found):
    return 10 * np.log10((wanted**2).sum() / ((wanted - found) ** 2).sum())


@pytest.mark.parametrize("name", NETS)
def test_an_onnx_file_gives_torchs_floats(name):
    source = make_source(name)
    stage = compiled("onnx-float", source)
    np.testing.assert_allclose(RUN["onnx"](stage.content, FRESH), floats(source), atol=2e-6)


@pytest.mark.parametrize(("name", "operator"), OPERATORS.items())
def test_onnx_has_one_operator_a_layer_and_nothing_for_the_batch(name, operator):
    source = make_source(name)
    model = onnx.load_model(io.BytesIO(compiled("onnx-float", source).content))
    found = Counter(node.op_type for node in model.graph.node)
    assert found[operator] == source.model.layer.num_layers
    assert not {"Shape", "Expand", "Slice"} & set(found)


@pytest.mark.parametrize(
    "name",
    ["rnn, relu", "lstm, two ways, two layers", "gru, two ways, batch second", "gru, learned start",
     "lstm, projection, learned start"],
)  # fmt: skip
def test_a_tflite_file_gives_torchs_floats(name):
    source = make_source(name)
    stage = compiled("tflite-float", source)
    np.testing.assert_allclose(RUN["tflite"](stage.content, FRESH), floats(source), atol=2e-6)


@pytest.mark.parametrize(
    "name",
    ["lstm, two ways, two layers", "lstm, no biases, batch second", "lstm, learned start", "lstm, projection",
     "lstm, states", "gru", "rnn, relu"],
)  # fmt: skip
def test_a_core_ml_program_evaluates_to_torchs_halves(name):
    source = make_source(name)
    stage = compiled("coreml-fp16", source)
    np.testing.assert_allclose(RUN["mlpackage"](stage.content, FRESH), floats(source), atol=3e-3)
    facts = read_facts("mlpackage", stage.content, None)
    assert ("lstm" in facts.operators) == name.startswith("lstm")


@pytest.mark.parametrize(
    "recipe",
    ["onnx-int8-s8s8", "onnx-int8-s8s8-per-channel", "onnx-int8-u8s8-reduced", "onnx-int8-symmetric",
     "onnx-int8-entropy", "onnx-int8-percentile", "onnx-int8-mixed", "onnx-int8-dynamic", "onnx-int8-inc"],
)  # fmt: skip
@pytest.mark.parametrize("name", ["lstm, projection", "gru, two ways, batch second", "rnn"])
def test_every_int8_recipe_of_onnx_stores_the_layers_weights_in_a_byte_each(name, recipe):
    source = make_source(name)
    stage = compiled(recipe, source)
    assert snr_db(floats(source), RUN["onnx"](stage.content, FRESH)) > 30
    model = onnx.load_model(io.BytesIO(stage.content))
    wide = sum(np.prod(t.dims) for t in model.graph.initializer if t.data_type == 1 and len(t.dims) > 2)
    narrow = sum(np.prod(t.dims) for t in model.graph.initializer if t.data_type in {2, 3} and len(t.dims) > 1)
    weights = sum(value.numel() for key, value in source.model.layer.named_parameters() if "weight" in key)
    assert wide == 0
    assert narrow >= 0.9 * weights


@pytest.mark.parametrize("recipe", ["onnx-fp16", "onnx-int4-weights"])
@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_other_widths_of_weights_hold_recurrent_layers(name, recipe):
    source = make_source(name)
    stage = compiled(recipe, source)
    assert snr_db(floats(source), RUN["onnx"](stage.content, FRESH)) > 20
    assert len(stage.content) < 0.7 * len(compiled("onnx-float", source).content)


@pytest.mark.parametrize(
    ("name", "recipe"),
    [("lstm", "tflite-int8"), ("lstm, two ways, two layers", "tflite-int8"), ("gru", "tflite-int8-pt2e"),
     ("rnn", "tflite-int8-mixed"), ("gru, no biases", "tflite-int8-dynamic"), ("lstm", "coreml-int8-weights"),
     ("gru", "coreml-int8-weights")],
)  # fmt: skip
def test_other_formats_hold_recurrent_layers_in_int8(name, recipe):
    source = make_source(name)
    stage = compiled(recipe, source)
    assert snr_db(floats(source), RUN[stage.format](stage.content, FRESH)) > 30


@pytest.mark.parametrize("name", ["lstm", "gru", "lstm, two ways, two layers"])
def test_tensorflow_lite_micro_runs_an_integer_recurrent_layer(name):
    pytest.importorskip("tflite_micro")
    source = make_source(name)
    stage = compiled("tflite-int8-full", source)
    assert snr_db(floats(source), in_tflite_micro(stage.content, FRESH)) > 30
    assert read_facts("tflite", stage.content, None).float_tensors == 0


def test_an_lstm_of_onnx_runtimes_own_is_counted_as_the_standards():
    source = make_source("lstm")
    plain, own = (compiled(recipe, source).content for recipe in ("onnx-int8-symmetric", "onnx-int8-s8s8"))
    shapes = {"x": (1, STEPS, CHANNELS)}
    one, other = (read_facts("onnx", content, shapes) for content in (plain, own))
    assert "LSTM" in one.operators
    assert "com.microsoft.DynamicQuantizeLSTM" in other.operators
    assert one.parameters == other.parameters == sum(value.numel() for value in source.model.parameters())
    assert sum(call.macs for call in one.graph) == sum(call.macs for call in other.graph)
    assert sum(call.macs for call in other.graph) == STEPS * 4 * 16 * (CHANNELS + 16) + 16 * 4
    assert other.open_sizes == ()
