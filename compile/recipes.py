"""Recipes: which passes make an artifact, and what the result promises. Data only; passes are imported on use."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from hedgerow.compile.stage import Settings
from hedgerow.errors import UnknownNameError
from hedgerow.plugins import Plugin

__all__ = ["PASSES", "RECIPES", "PassCall", "Recipe", "find_recipe"]

PASSES: Mapping[str, Plugin] = {
    "export-onnx": Plugin("hedgerow.compile.passes.export_onnx:export_onnx", "compile"),
    "quantize-onnx-static": Plugin("hedgerow.compile.passes.quantize_onnx:quantize_onnx_static", "compile"),
    "quantize-inc-static": Plugin("hedgerow.compile.passes.quantize_inc:quantize_inc_static", "compile"),
    "fold-onnx": Plugin("hedgerow.compile.passes.fold_onnx:fold_onnx", "compile"),
    "export-tflite": Plugin("hedgerow.compile.passes.export_tflite:export_tflite", "compile"),
    "quantize-tflite-static": Plugin("hedgerow.compile.passes.quantize_tflite:quantize_tflite_static", "compile"),
    "quantize-pt2e-static": Plugin("hedgerow.compile.passes.quantize_pt2e:quantize_pt2e_static", "compile"),
    "export-coreml": Plugin("hedgerow.compile.passes.export_coreml:export_coreml", "compile"),
    "quantize-coreml-weights": Plugin("hedgerow.compile.passes.quantize_coreml:quantize_coreml_weights", "compile"),
}


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
        passes: Steps, in order.
        float_passes: Steps that make the float artifact that the result is compared with.
        minimum_quantized_share: Share of the weights, by count, that must be stored in at most 8 bits.
        minimum_snr_db: Signal (float output) to noise (difference from it) on held-out data, in decibel.
        minimum_agreement: Share of held-out samples on which float and artifact predict the same class.
    """

    format: str
    toolchain: str
    passes: tuple[PassCall, ...]
    float_passes: tuple[PassCall, ...]
    minimum_quantized_share: float = 0.9
    minimum_snr_db: float = 15.0
    minimum_agreement: float = 0.95


_EXPORT_ONNX = PassCall("export-onnx")
_EXPORT_TFLITE = PassCall("export-tflite")
_EXPORT_COREML = PassCall("export-coreml", {"minimum_version": "iOS17"})

RECIPES: Mapping[str, Recipe] = {
    # Arm: signed activations and weights have the fast kernels and cannot saturate.
    "onnx-int8-s8s8": Recipe(
        format="onnx",
        toolchain="onnx",
        passes=(_EXPORT_ONNX, PassCall("quantize-onnx-static", {"activations": "int8", "reduce_range": False})),
        float_passes=(_EXPORT_ONNX,),
    ),
    # x86 without VNNI multiplies u8 x s8 into saturating 16 bits; 7-bit weights cannot overflow them.
    "onnx-int8-u8s8-reduced": Recipe(
        format="onnx",
        toolchain="onnx",
        passes=(_EXPORT_ONNX, PassCall("quantize-onnx-static", {"activations": "uint8", "reduce_range": True})),
        float_passes=(_EXPORT_ONNX,),
    ),
    # Intel neural-compressor leaves float weights behind Q/DQ pairs: folding is what makes the file small.
    "onnx-int8-inc": Recipe(
        format="onnx",
        toolchain="onnx",
        passes=(PassCall("quantize-inc-static"), PassCall("fold-onnx")),
        float_passes=(_EXPORT_ONNX,),
    ),
    "tflite-int8": Recipe(
        format="tflite",
        toolchain="tflite",
        passes=(_EXPORT_TFLITE, PassCall("quantize-tflite-static")),
        float_passes=(_EXPORT_TFLITE,),
    ),
    "tflite-int8-pt2e": Recipe(
        format="tflite",
        toolchain="tflite",
        passes=(PassCall("quantize-pt2e-static", {"per_channel": False}),),
        float_passes=(_EXPORT_TFLITE,),
    ),
    "coreml-int8-weights": Recipe(
        format="mlpackage",
        toolchain="coreml",
        passes=(_EXPORT_COREML, PassCall("quantize-coreml-weights", {"minimum_elements": 64})),
        float_passes=(_EXPORT_COREML,),
    ),
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
