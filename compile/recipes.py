"""Recipes: which passes make an artifact, and what the result promises. Data only; passes are imported on use."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from hedgerow.compile.stage import Settings
from hedgerow.errors import UnknownNameError
from hedgerow.plugins import Plugin

__all__ = ["MODEL_PASSES", "PASSES", "RECIPES", "PassCall", "Recipe", "find_recipe"]

_PASSES = "hedgerow.compile.passes"

MODEL_PASSES: Mapping[str, Plugin] = {
    "distill-features": Plugin(f"{_PASSES}.model.distill_features:distill_features", "compile"),
    "distill-logits": Plugin(f"{_PASSES}.model.distill_logits:distill_logits", "compile"),
    "fine-tune": Plugin(f"{_PASSES}.model.fine_tune:fine_tune", "compile"),
    "prune-channels": Plugin(f"{_PASSES}.model.prune_channels:prune_channels", "compile"),
    "prune-two-four": Plugin(f"{_PASSES}.model.prune_two_four:prune_two_four", "compile"),
    "prune-weights": Plugin(f"{_PASSES}.model.prune_weights:prune_weights", "compile"),
    "round-weights-inc": Plugin(f"{_PASSES}.inc.round_weights:round_weights_inc", "compile"),
    "smooth-activations": Plugin(f"{_PASSES}.model.smooth_activations:smooth_activations", "compile"),
    "train-quantized": Plugin(f"{_PASSES}.model.train_quantized:train_quantized", "compile"),
}
"""Passes from a torch model to a torch model; they run before a recipe's file passes."""

PASSES: Mapping[str, Plugin] = {
    "export-onnx": Plugin(f"{_PASSES}.onnx.export:export_onnx", "compile"),
    "convert-onnx-fp16": Plugin(f"{_PASSES}.onnx.convert_fp16:convert_onnx_fp16", "compile"),
    "quantize-onnx-dynamic": Plugin(f"{_PASSES}.onnx.quantize_dynamic:quantize_onnx_dynamic", "compile"),
    "quantize-onnx-static": Plugin(f"{_PASSES}.onnx.quantize_static:quantize_onnx_static", "compile"),
    "quantize-onnx-weights": Plugin(f"{_PASSES}.onnx.quantize_weights:quantize_onnx_weights", "compile"),
    "quantize-onnx-mixed": Plugin(f"{_PASSES}.onnx.quantize_mixed:quantize_onnx_mixed", "compile"),
    "quantize-inc-static": Plugin(f"{_PASSES}.inc.quantize_static:quantize_inc_static", "compile"),
    "quantize-inc-autotune": Plugin(f"{_PASSES}.inc.quantize_autotune:quantize_inc_autotune", "compile"),
    "fold-onnx": Plugin(f"{_PASSES}.onnx.fold:fold_onnx", "compile"),
    "trim-onnx": Plugin(f"{_PASSES}.onnx.trim:trim_onnx", "compile"),
    "trim-tflite": Plugin(f"{_PASSES}.tflite.trim:trim_tflite", "compile"),
    "export-tflite": Plugin(f"{_PASSES}.tflite.export:export_tflite", "compile"),
    "convert-tflite-fp16": Plugin(f"{_PASSES}.tflite.convert_fp16:convert_tflite_fp16", "compile"),
    "quantize-tflite-dynamic": Plugin(f"{_PASSES}.tflite.quantize_weights:quantize_tflite_dynamic", "compile"),
    "quantize-tflite-static": Plugin(f"{_PASSES}.tflite.quantize_static:quantize_tflite_static", "compile"),
    "quantize-tflite-full": Plugin(f"{_PASSES}.tflite.quantize_static:quantize_tflite_full", "compile"),
    "quantize-tflite-weights": Plugin(f"{_PASSES}.tflite.quantize_weights:quantize_tflite_weights", "compile"),
    "quantize-tflite-mixed": Plugin(f"{_PASSES}.tflite.quantize_mixed:quantize_tflite_mixed", "compile"),
    "quantize-pt2e-static": Plugin(f"{_PASSES}.tflite.quantize_pt2e:quantize_pt2e_static", "compile"),
    "export-coreml": Plugin(f"{_PASSES}.coreml.export:export_coreml", "compile"),
    "quantize-coreml-weights": Plugin(f"{_PASSES}.coreml.quantize_weights:quantize_coreml_weights", "compile"),
    "palettize-coreml": Plugin(f"{_PASSES}.coreml.palettize:palettize_coreml", "compile"),
}
"""Passes that make a file, or another file from one."""


@dataclass(frozen=True, slots=True)
class PassCall:
    """One pass with its settings."""

    name: str
    settings: Settings = field(default_factory=dict)

    def __str__(self) -> str:
        listed = ", ".join(f"{key}={value}" for key, value in sorted(self.settings.items()))
        return f"{self.name}({listed})" if listed else self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How an artifact is made and what is checked of it.

    Attributes:
        format: Format of the artifact.
        toolchain: Recipes of one toolchain share a process, because its imports are slow: ``onnx``, ``tflite``,
            ``coreml``.
        passes: Steps that make the file, in order.
        float_passes: Steps that make the float artifact that the result is compared with, from the untouched model.
        model_passes: Steps from model to model before *passes*; they need the task's training data.
        minimum_quantized_share: Share of the weights, by count, that must be stored in at most 8 bits; 0 for a recipe
            that keeps them as floats.
        minimum_snr_db: Signal (float output) to noise (difference from it) on held-out data, in decibel.
        minimum_agreement: Share of held-out samples on which float and artifact predict the same class.
        smaller_than_float: Whether the artifact must have fewer bytes than the float one; False for the plain float
            recipes alone, which are that one.
    """

    format: str
    toolchain: str
    passes: tuple[PassCall, ...]
    float_passes: tuple[PassCall, ...]
    model_passes: tuple[PassCall, ...] = ()
    minimum_quantized_share: float = 0.9
    minimum_snr_db: float = 15.0
    minimum_agreement: float = 0.95
    smaller_than_float: bool = True


_EXPORT_ONNX = PassCall("export-onnx")
_EXPORT_TFLITE = PassCall("export-tflite")
_EXPORT_COREML = PassCall("export-coreml", {"minimum_version": "iOS17"})
_FOLD = PassCall("fold-onnx")
_TRIM_ONNX, _TRIM_TFLITE = PassCall("trim-onnx"), PassCall("trim-tflite")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Promise:
    """What a kind of recipe promises; see :class:`Recipe`."""

    quantized_share: float = 0.9
    snr_db: float = 15.0
    agreement: float = 0.95
    smaller: bool = True


_INT8 = _Promise()
_FLOAT = _Promise(quantized_share=0.0, snr_db=60.0, agreement=0.99, smaller=False)
_HALF = _Promise(quantized_share=0.0, snr_db=30.0, agreement=0.98)
# 16 levels a weight: the outputs differ visibly, and the accuracy budget decides.
_INT4 = _Promise(snr_db=8.0, agreement=0.85)
# Another model than the one it is compared with: only the accuracy budget says whether it is as good.
_CHANGED = _Promise(snr_db=3.0, agreement=0.75)
# Layers that int8 hurts stay wider on purpose.
_MIXED = _Promise(quantized_share=0.2)


def _recipe(toolchain: str, promise: _Promise, *calls: PassCall, model: tuple[PassCall, ...] = ()) -> Recipe:
    """Return a recipe whose first file pass exports, unless *calls* begins with a pass that does so itself.

    The last one trims, in formats where that is worth something.
    """
    export = {"onnx": _EXPORT_ONNX, "tflite": _EXPORT_TFLITE, "coreml": _EXPORT_COREML}[toolchain]
    exports_itself = bool(calls) and calls[0].name.startswith(("export-", "quantize-inc-", "quantize-pt2e-"))
    trim = {"onnx": (_TRIM_ONNX,), "tflite": (_TRIM_TFLITE,), "coreml": ()}[toolchain]
    return Recipe(
        format="mlpackage" if toolchain == "coreml" else toolchain,
        toolchain=toolchain,
        passes=(*calls, *trim) if exports_itself else (export, *calls, *trim),
        float_passes=(export, *trim),
        model_passes=model,
        minimum_quantized_share=promise.quantized_share,
        minimum_snr_db=promise.snr_db,
        minimum_agreement=promise.agreement,
        smaller_than_float=promise.smaller,
    )


def _static(
    activations: str,
    calibration: str = "minmax",
    *,
    per_channel: bool = True,
    reduce_range: bool = False,
    symmetric: bool = False,
) -> PassCall:
    return PassCall(
        "quantize-onnx-static",
        {
            "activations": activations,
            "calibration": calibration,
            "per_channel": per_channel,
            "reduce_range": reduce_range,
            "symmetric": symmetric,
        },
    )


_FINE_TUNE = {"epochs": 5, "learning_rate": 0.002, "batch_size": 32}
# A third of the channels is half of a convolution's multiplications: both sides of its weight shrink.
_PRUNED = (PassCall("prune-channels", {"share": 0.3, "round_to": 4}), PassCall("fine-tune", _FINE_TUNE))
_QAT = (PassCall("train-quantized", {"epochs": 2, "learning_rate": 0.0005, "batch_size": 32}),)
_DISTILLED = (
    PassCall(
        "distill-logits",
        {"epochs": 20, "learning_rate": 0.003, "batch_size": 32, "temperature": 2.0, "teacher_share": 0.7},
    ),
)
_S8S8 = _static("int8")
_TFLITE_INT8, _TFLITE_FULL = PassCall("quantize-tflite-static"), PassCall("quantize-tflite-full")

RECIPES: Mapping[str, Recipe] = {
    # Baselines and fallbacks.
    "onnx-float": _recipe("onnx", _FLOAT),
    "onnx-fp16": _recipe("onnx", _HALF, PassCall("convert-onnx-fp16")),
    "onnx-int8-dynamic": _recipe("onnx", _INT8, PassCall("quantize-onnx-dynamic", {"per_channel": True})),
    # Arm: signed activations and weights have the fast kernels and cannot saturate.
    "onnx-int8-s8s8": _recipe("onnx", _INT8, _static("int8", per_channel=False)),
    "onnx-int8-s8s8-per-channel": _recipe("onnx", _INT8, _S8S8),
    # x86 without VNNI multiplies u8 x s8 into saturating 16 bits; 7-bit weights cannot overflow them.
    "onnx-int8-u8s8-reduced": _recipe("onnx", _INT8, _static("uint8", reduce_range=True)),
    # A few far-off activations cost the others their resolution: cut them off.
    "onnx-int8-entropy": _recipe("onnx", _INT8, _static("int8", "entropy")),
    "onnx-int8-percentile": _recipe("onnx", _INT8, _static("int8", "percentile")),
    # TensorRT takes zero points of 0 and float biases only.
    "onnx-int8-symmetric": _recipe("onnx", replace(_INT8, quantized_share=0.8), _static("int8", symmetric=True)),
    "onnx-int8-mixed": _recipe(
        "onnx", _MIXED, PassCall("quantize-onnx-mixed", {"activations": "int8", "minimum_snr_db": 30.0})
    ),
    "onnx-int4-weights": _recipe("onnx", _INT4, PassCall("quantize-onnx-weights", {"bits": 4, "block": 32})),
    # Intel neural-compressor leaves float weights behind Q/DQ pairs: folding is what makes the file small.
    "onnx-int8-inc": _recipe("onnx", _INT8, PassCall("quantize-inc-static"), _FOLD),
    "onnx-int8-inc-smoothquant": _recipe(
        "onnx",
        _INT8,
        PassCall("quantize-inc-static"),
        _FOLD,
        model=(PassCall("smooth-activations", {"alpha": 0.5}),),
    ),
    "onnx-int8-inc-autotune": _recipe("onnx", _INT8, PassCall("quantize-inc-autotune"), _FOLD),
    "onnx-int4-inc-rtn": _recipe(
        "onnx",
        _INT4,
        PassCall("quantize-onnx-weights", {"bits": 4, "block": 32}),
        model=(PassCall("round-weights-inc", {"bits": 4, "block": 32}),),
    ),
    "tflite-float": _recipe("tflite", _FLOAT),
    "tflite-fp16": _recipe("tflite", _HALF, PassCall("convert-tflite-fp16")),
    "tflite-int8-dynamic": _recipe("tflite", _INT8, PassCall("quantize-tflite-dynamic", {"bits": 8})),
    "tflite-int8": _recipe("tflite", _INT8, _TFLITE_INT8),
    "tflite-int8-pt2e": _recipe("tflite", _INT8, PassCall("quantize-pt2e-static", {"per_channel": False})),
    # Microcontrollers, NPUs and EdgeTPU: no float tensor anywhere, so softmax is int8 too and probabilities are coarse.
    "tflite-int8-full": _recipe("tflite", _INT8, _TFLITE_FULL),
    "tflite-int8-weights": _recipe("tflite", _INT8, PassCall("quantize-tflite-weights", {"bits": 8})),
    "tflite-int8-mixed": _recipe("tflite", _MIXED, PassCall("quantize-tflite-mixed", {"minimum_snr_db": 30.0})),
    # Core ML's float is float16 already: this is the baseline.
    "coreml-fp16": _recipe("coreml", replace(_HALF, smaller=False)),
    "coreml-int8-weights": _recipe(
        "coreml", _INT8, PassCall("quantize-coreml-weights", {"bits": 8, "minimum_elements": 64})
    ),
    # Blocks of int4 came with iOS 18.
    "coreml-int4-weights": _recipe(
        "coreml",
        _INT4,
        PassCall("export-coreml", {"minimum_version": "iOS18"}),
        PassCall("quantize-coreml-weights", {"bits": 4, "block": 32, "minimum_elements": 64}),
    ),
    "coreml-palette4": _recipe("coreml", _INT4, PassCall("palettize-coreml", {"bits": 4, "minimum_elements": 64})),
    # Another model first.
    "onnx-pruned-int8": _recipe("onnx", _CHANGED, _S8S8, model=_PRUNED),
    "tflite-pruned-int8": _recipe("tflite", _CHANGED, _TFLITE_INT8, model=_PRUNED),
    "tflite-pruned-int8-full": _recipe("tflite", _CHANGED, _TFLITE_FULL, model=_PRUNED),
    "onnx-qat-int8": _recipe("onnx", _CHANGED, _S8S8, model=_QAT),
    "tflite-qat-int8": _recipe("tflite", _CHANGED, _TFLITE_INT8, model=_QAT),
    "tflite-qat-int8-full": _recipe("tflite", _CHANGED, _TFLITE_FULL, model=_QAT),
    "onnx-distilled-int8": _recipe("onnx", _CHANGED, _S8S8, model=_DISTILLED),
    "tflite-distilled-int8": _recipe("tflite", _CHANGED, _TFLITE_INT8, model=_DISTILLED),
    "tflite-distilled-int8-full": _recipe("tflite", _CHANGED, _TFLITE_FULL, model=_DISTILLED),
}


def find_recipe(name: str) -> Recipe:
    """Return the recipe called *name*.

    Raises:
        UnknownNameError: There is none.
    """
    try:
        return RECIPES[name]
    except KeyError:
        raise UnknownNameError("recipe", name, RECIPES) from None
