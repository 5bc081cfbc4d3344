"""Every pass, by the one border that all share: whatever is wrong ends as an error that names the pass."""

import dataclasses
from importlib import import_module
from unittest import mock

import pytest

from hedgerow.compile.errors import PassError, PassSettingsError
from hedgerow.compile.pass_models import CompiledModel
from hedgerow.compile.passes.builtin import PASSES
from hedgerow.compile.passes.kinds import FilePass, ModelPass
from hedgerow.compile.passes.runner import run_file_pass, run_model_pass
from hedgerow.hardware.target import FORMATS

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
    # coremltools leaves temporary files to the collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

TRAINS = {"epochs": 1, "learning_rate": 0.01}
NEEDED = {
    "distill-features": TRAINS,
    "distill-logits": TRAINS,
    "export-coreml": {"minimum_version": "iOS17"},
    "fine-tune": TRAINS,
    "prune-channels": {"share": 0.5},
    "prune-weights": {"share": 0.5},
    "quantize-onnx-mixed": {"activations": "int8"},
    "quantize-onnx-static": {"activations": "int8"},
    "quantize-onnx-weights": {"bits": 4},
    "quantize-pt2e-static": {"per_channel": False},
    "quantize-tflite-dynamic": {"bits": 8},
    "quantize-tflite-weights": {"bits": 8},
    "round-weights-inc": {"bits": 4},
    "train-quantized": TRAINS,
}
"""Settings without a default."""

AEQ = "ai_edge_quantizer.quantizer:Quantizer.quantize"
STATIC = "hedgerow.compile.passes.onnx.static_quantizer:quantize_static"
CALLED = {
    "convert-onnx-fp16": "onnxruntime.transformers.float16:convert_float_to_float16",
    "convert-tflite-fp16": AEQ,
    "distill-features": "torch.optim:Adam",
    "distill-logits": "torch.optim:Adam",
    "export-coreml": "coremltools:convert",
    "export-onnx": "torch.onnx:export",
    "export-tflite": "litert_torch:convert",
    "fine-tune": "torch.optim:Adam",
    "fold-onnx": "onnxruntime:InferenceSession",
    "palettize-coreml": "coremltools.optimize.coreml:palettize_weights",
    "prune-channels": "torch_pruning.pruner:BasePruner",
    "prune-two-four": "torch:argsort",
    "prune-weights": "torch:argsort",
    "quantize-coreml-weights": "coremltools.optimize.coreml:linear_quantize_weights",
    "quantize-inc-autotune": "neural_compressor.torch.export:export",
    "quantize-inc-static": "neural_compressor.torch.export:export",
    "quantize-onnx-dynamic": "onnxruntime.quantization:quantize_dynamic",
    "quantize-onnx-mixed": STATIC,
    "quantize-onnx-static": STATIC,
    "quantize-onnx-weights": "onnx.numpy_helper:from_array",
    "quantize-pt2e-static": "torchao.quantization.pt2e.quantize_pt2e:prepare_pt2e",
    "quantize-tflite-dynamic": AEQ,
    "quantize-tflite-full": AEQ,
    "quantize-tflite-mixed": AEQ,
    "quantize-tflite-static": AEQ,
    "quantize-tflite-weights": AEQ,
    "round-weights-inc": "neural_compressor.torch.algorithms.weight_only.utility:quant_tensor",
    "smooth-activations": "torch:where",
    "train-quantized": "torch.export:export",
    "trim-onnx": "onnx:load_model_from_string",
    "trim-tflite": "flatbuffers:Builder",
}
"""A function of the library that does the work of each pass."""

RAISED = (
    Exception("no"),
    KeyError("graph"),
    RuntimeError("one\ntwo"),
    ValueError(""),
    TypeError("none"),
    SystemExit(3),
)
BYTES = {
    "empty": b"",
    "garbage": bytes(range(1, 255)) * 8,
    "text": b"no model at all",
    "a zip of nothing": b"PK\x05\x06" + bytes(18),
    "a header alone": b"\x1c\x00\x00\x00TFL3" + bytes(8),
}
FILE_PASSES = sorted(name for name, kind in PASSES.items() if issubclass(kind, FilePass))


def made(name):
    return PASSES[name](**NEEDED.get(name, {}))


def run(step, source, stages):
    if isinstance(step, ModelPass):
        return run_model_pass(step, source)
    return run_file_pass(step, source, stages.get(step.takes))


def wrong_settings():
    """Yield a pass, one of its settings, and a value that it must refuse: beyond each end, or of another kind."""
    for name, kind in sorted(PASSES.items()):
        for entry in dataclasses.fields(kind):
            if "range" in entry.metadata:
                low, high = entry.metadata["range"]
                step = 1 if entry.type is int else 1e-6
                yield from ((name, entry.name, value) for value in (low - step, high + step, float("nan"), "many"))
            elif "choices" in entry.metadata:
                yield from ((name, entry.name, value) for value in ("nonsense", None, 3))
            else:
                yield name, entry.name, 3


@pytest.fixture(scope="module")
def stages(onnx_stage, tflite_stage, coreml_stage):
    return {stage.format: stage for stage in (onnx_stage, tflite_stage, coreml_stage)}


def test_every_pass_has_its_cases():
    assert set(CALLED) == set(PASSES)
    needed = {
        name: {entry.name for entry in dataclasses.fields(kind) if entry.default is dataclasses.MISSING}
        for name, kind in PASSES.items()
    }
    assert {name: set(settings) for name, settings in NEEDED.items()} == {n: s for n, s in needed.items() if s}


@pytest.mark.parametrize("name", sorted(PASSES))
def test_an_unknown_setting_is_refused(name):
    with pytest.raises(PassSettingsError) as caught:
        PASSES[name](**NEEDED.get(name, {}), surprise=1)
    assert (caught.value.step, caught.value.setting) == (name, "surprise")


@pytest.mark.parametrize("name", sorted(NEEDED))
def test_a_missing_setting_is_refused(name):
    for setting in NEEDED[name]:
        with pytest.raises(PassSettingsError) as caught:
            PASSES[name](**{key: value for key, value in NEEDED[name].items() if key != setting})
        assert (caught.value.step, caught.value.setting, caught.value.found) == (name, setting, "none")


@pytest.mark.parametrize(("name", "setting", "value"), list(wrong_settings()))
def test_a_setting_out_of_its_range_is_refused(name, setting, value):
    with pytest.raises(PassSettingsError) as caught:
        PASSES[name](**{**NEEDED.get(name, {}), setting: value})
    assert (caught.value.step, caught.value.setting) == (name, setting)


@pytest.mark.parametrize("name", FILE_PASSES)
def test_another_format_or_none_is_refused(name):
    step = made(name)
    for kind in sorted({*FORMATS, "gguf"} - {step.takes}):
        stage = CompiledModel(format=kind, content=b"", inputs=(), outputs=())
        with pytest.raises(PassError, match=f"it takes {step.takes} files, and was given a {kind}$") as caught:
            run_file_pass(step, None, stage)
        assert caught.value.step == name
    with pytest.raises(PassError, match=f"it takes {step.takes} files, and was given a model$"):
        run_file_pass(step, None, None)


@pytest.mark.heavy
@pytest.mark.parametrize("what", sorted(BYTES))
@pytest.mark.parametrize("name", FILE_PASSES)
def test_bytes_that_are_no_such_file_are_refused(name, what, source, stages):
    step = made(name)
    with pytest.raises(PassError) as caught:
        run_file_pass(step, source, dataclasses.replace(stages[step.takes], content=BYTES[what]))
    assert caught.value.step == name


@pytest.mark.heavy
@pytest.mark.parametrize("name", FILE_PASSES)
def test_a_file_that_was_cut_off_is_refused(name, source, stages):
    step = made(name)
    whole = stages[step.takes]
    for length in (len(whole.content) // 3, len(whole.content) // 2, len(whole.content) - 100):
        with pytest.raises(PassError) as caught:
            run_file_pass(step, source, dataclasses.replace(whole, content=whole.content[:length]))
        assert caught.value.step == name


@pytest.mark.heavy
@pytest.mark.parametrize("name", sorted(PASSES))
def test_what_a_library_raises_becomes_the_error_of_the_pass(name, source, stages):
    module, _, path = CALLED[name].partition(":")
    pytest.importorskip(module.partition(".")[0])
    *owners, attribute = path.split(".")
    owner = import_module(module)
    for part in owners:
        owner = getattr(owner, part)
    step = made(name)
    for raised in RAISED:
        with mock.patch.object(owner, attribute, side_effect=raised), pytest.raises(PassError) as caught:
            run(step, source, stages)
        assert caught.value.step == name
        assert type(raised).__name__ in caught.value.cause
        assert "\n" not in str(caught.value)
