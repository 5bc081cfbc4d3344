"""Files of masked models, run by their runtimes on rows that no quantizer saw: as good as the float model."""

import io

import numpy as np
import pytest

torch = pytest.importorskip("torch")
for _needed in ("onnxruntime", "litert_torch", "coremltools"):
    pytest.importorskip(_needed)

from hedgerow.compile.passes.runner import run_file_pass, run_model_pass  # noqa: E402
from hedgerow.compile.recipes import RECIPES  # noqa: E402
from tests.compile.passes.traced.masked import make_source, words  # noqa: E402
from tests.compile.passes.traced.runtimes import RUN, in_tflite_micro  # noqa: E402

pytestmark = pytest.mark.heavy

FRESH = words(300, seed=77)
ONNX = (
    "onnx-int8-s8s8", "onnx-int8-s8s8-per-channel", "onnx-int8-u8s8-reduced", "onnx-int8-symmetric",
    "onnx-int8-entropy", "onnx-int8-percentile", "onnx-int8-mixed", "onnx-int8-inc", "onnx-int8-dynamic",
)  # fmt: skip
TFLITE = (
    "tflite-int8", "tflite-int8-full", "tflite-int8-pt2e", "tflite-int8-mixed", "tflite-int8-dynamic",
    "tflite-int8-weights",
)  # fmt: skip
# One of each kind; test_masks holds every one.
SHOWN = (
    "filled, -inf", "added, -1e9", "biased and masked", "causal", "padding, whole numbers times",
    "layer, both, with weights",
)  # fmt: skip
FLOATS = ("onnx-float", "onnx-fp16", "tflite-float", "coreml-fp16")


@pytest.fixture(scope="module")
def source():
    """Make a trained network for a mask, once for all tests of this file."""
    made = {}

    def make(name):
        if name not in made:
            made[name] = make_source(name, steps=300)
        return made[name]

    return make


def compiled(recipe, source):
    for step in recipe.model_passes:
        source = run_model_pass(step, source)
    stage = None
    for step in recipe.passes:
        stage = run_file_pass(step, source, stage)
    return stage


def right(found):
    return float((found.argmax(1) == FRESH[:, 0]).mean())


def floats(source):
    with torch.no_grad():
        return torch.softmax(source.model(torch.from_numpy(FRESH)), -1).numpy()


@pytest.mark.parametrize("recipe", [*ONNX, *TFLITE, "coreml-int8-weights"])
@pytest.mark.parametrize("mask", ["encoder, padding"])
def test_every_way_to_int8_keeps_the_accuracy_of_a_masked_model(source, mask, recipe):
    model = source(mask)
    assert right(floats(model)) == 1.0
    stage = compiled(RECIPES[recipe], model)
    assert right(RUN[stage.format](stage.content, FRESH)) >= 0.99


@pytest.mark.parametrize("recipe", ["onnx-int8-s8s8", "tflite-int8-full"])
@pytest.mark.parametrize("mask", SHOWN)
def test_a_mask_keeps_the_accuracy_in_int8(source, mask, recipe):
    model = source(mask)
    assert right(floats(model)) == 1.0
    stage = compiled(RECIPES[recipe], model)
    assert right(RUN[stage.format](stage.content, FRESH)) >= 0.99


@pytest.mark.parametrize("recipe", FLOATS)
@pytest.mark.parametrize("mask", ["layer, both"])
def test_float_files_of_a_masked_model_give_the_floats_of_torch(source, mask, recipe):
    model = source(mask)
    stage = compiled(RECIPES[recipe], model)
    found = RUN[stage.format](stage.content, FRESH)
    assert np.abs(found - floats(model)).max() < (1e-2 if "16" in recipe else 2e-6)


@pytest.mark.parametrize("mask", ["causal", "added, -1e9"])
def test_tensorflow_lite_micro_keeps_the_accuracy_of_a_masked_model(source, mask):
    pytest.importorskip("tflite_micro")
    stage = compiled(RECIPES["tflite-int8-full"], source(mask))
    assert right(in_tflite_micro(stage.content, FRESH)) >= 0.99


def test_weights_of_a_masked_model_are_int8_in_neural_compressors_file(source):
    import onnx

    model = onnx.load_model(io.BytesIO(compiled(RECIPES["onnx-int8-inc"], source("causal")).content))
    stored = {tensor.data_type for tensor in model.graph.initializer if np.prod(tensor.dims) > 200}
    assert onnx.TensorProto.INT8 in stored
