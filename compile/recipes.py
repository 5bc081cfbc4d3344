"""Hedgerow's own recipes, and how one is found by name. Data only: what a pass needs is imported when it is applied."""

from collections.abc import Mapping
from dataclasses import asdict, replace

from hedgerow.compile.passes.coreml.export import ExportCoreml
from hedgerow.compile.passes.coreml.palettize import PalettizeCoreml
from hedgerow.compile.passes.coreml.quantize_weights import QuantizeCoremlWeights
from hedgerow.compile.passes.inc.quantize_autotune import QuantizeIncAutotune
from hedgerow.compile.passes.inc.quantize_static import QuantizeIncStatic
from hedgerow.compile.passes.inc.weight_rounding import WeightRoundingInc
from hedgerow.compile.passes.kinds import ExportPass, FilePass, ModelPass
from hedgerow.compile.passes.model.distill_logits import DistillLogits
from hedgerow.compile.passes.model.fine_tune import FineTune
from hedgerow.compile.passes.model.prune_channels import PruneChannels
from hedgerow.compile.passes.model.smooth_activations import SmoothActivations
from hedgerow.compile.passes.model.train_quantized import TrainQuantized
from hedgerow.compile.passes.onnx.convert_fp16 import ConvertOnnxFp16
from hedgerow.compile.passes.onnx.fold import FoldOnnx
from hedgerow.compile.passes.onnx.quantize_dynamic import QuantizeOnnxDynamic
from hedgerow.compile.passes.onnx.quantize_mixed import QuantizeOnnxMixed
from hedgerow.compile.passes.onnx.quantize_static import QuantizeOnnxStatic
from hedgerow.compile.passes.onnx.quantize_weights import QuantizeOnnxWeights
from hedgerow.compile.passes.tflite.convert_fp16 import ConvertTfliteFp16
from hedgerow.compile.passes.tflite.quantize_mixed import QuantizeTfliteMixed
from hedgerow.compile.passes.tflite.quantize_pt2e import QuantizePt2eStatic
from hedgerow.compile.passes.tflite.quantize_static import QuantizeTfliteFull, QuantizeTfliteStatic
from hedgerow.compile.passes.tflite.quantize_weights import QuantizeTfliteDynamic, QuantizeTfliteWeights
from hedgerow.compile.recipe import Promise, Recipe, finishing, plain_export
from hedgerow.errors import PluginError
from hedgerow.plugins import load_user_plugin

__all__ = ["RECIPES", "RECIPES_GROUP", "find_recipe"]

RECIPES_GROUP = "hedgerow.recipes"
"""Entry points of installed packages that bring recipes: the name of one -> a :class:`Recipe`."""

_INT8 = Promise()
# The weights are int8, and what they cost is left: as much as in files that keep activations in float.
_INT16 = Promise(minimum_snr_db=20.0)
_FLOAT = Promise(minimum_quantized_share=0.0, minimum_snr_db=60.0, minimum_agreement=0.99, smaller_than_float=False)
_HALF = Promise(minimum_quantized_share=0.0, minimum_snr_db=30.0, minimum_agreement=0.98)
# 16 levels a weight: the outputs differ visibly, and the accuracy budget decides.
_INT4 = Promise(minimum_snr_db=8.0, minimum_agreement=0.85)
# Another model than the one it is compared with: only the accuracy budget says whether it is as good.
_CHANGED = Promise(minimum_snr_db=3.0, minimum_agreement=0.75)
# Layers that int8 hurts stay wider on purpose.
_MIXED = Promise(minimum_quantized_share=0.2)


def _recipe(
    name: str, kind: str, promise: Promise, *steps: ExportPass | FilePass, model: tuple[ModelPass, ...] = ()
) -> Recipe:
    """Return a recipe for a format that exports plainly, unless *steps* begin with a pass that makes a file itself."""
    exports_itself = bool(steps) and isinstance(steps[0], ExportPass)
    return Recipe(
        name=name,
        passes=(*(() if exports_itself else (plain_export(kind),)), *steps, *finishing(kind)),
        model_passes=model,
        **asdict(promise),
    )


# A third of the channels is half of a convolution's multiplications: both sides of its weight shrink.
_PRUNED = (PruneChannels(share=0.3, round_to=4), FineTune(epochs=5, learning_rate=0.002, batch_size=32))
_QAT = (TrainQuantized(epochs=2, learning_rate=0.0005, batch_size=32),)
_DISTILLED = (DistillLogits(epochs=20, learning_rate=0.003, batch_size=32, temperature=2.0, teacher_share=0.7),)
_S8S8 = QuantizeOnnxStatic(activations="int8")
_TFLITE_INT8, _TFLITE_FULL = QuantizeTfliteStatic(), QuantizeTfliteFull()

_ALL = (
    # Baselines and fallbacks.
    _recipe("onnx-float", "onnx", _FLOAT),
    _recipe("onnx-fp16", "onnx", _HALF, ConvertOnnxFp16()),
    _recipe("onnx-int8-dynamic", "onnx", _INT8, QuantizeOnnxDynamic(per_channel=True)),
    # Arm: signed activations and weights have the fast kernels and cannot saturate.
    _recipe("onnx-int8-s8s8", "onnx", _INT8, QuantizeOnnxStatic(activations="int8", per_channel=False)),
    _recipe("onnx-int8-s8s8-per-channel", "onnx", _INT8, _S8S8),
    # x86 without VNNI multiplies u8 x s8 into saturating 16 bits; 7-bit weights cannot overflow them.
    _recipe("onnx-int8-u8s8-reduced", "onnx", _INT8, QuantizeOnnxStatic(activations="uint8", reduce_range=True)),
    # A few far-off activations cost the others their resolution: cut them off.
    _recipe("onnx-int8-entropy", "onnx", _INT8, QuantizeOnnxStatic(activations="int8", calibration="entropy")),
    _recipe("onnx-int8-percentile", "onnx", _INT8, QuantizeOnnxStatic(activations="int8", calibration="percentile")),
    # TensorRT takes zero points of 0 and float biases only.
    _recipe(
        "onnx-int8-symmetric",
        "onnx",
        replace(_INT8, minimum_quantized_share=0.8),
        QuantizeOnnxStatic(activations="int8", symmetric=True),
    ),
    _recipe("onnx-int8-mixed", "onnx", _MIXED, QuantizeOnnxMixed(activations="int8", minimum_snr_db=30.0)),
    _recipe("onnx-int4-weights", "onnx", _INT4, QuantizeOnnxWeights(bits=4, block=32)),
    # Intel neural-compressor leaves float weights behind Q/DQ pairs: folding is what makes the file small.
    _recipe("onnx-int8-inc", "onnx", _INT8, QuantizeIncStatic(), FoldOnnx()),
    _recipe(
        "onnx-int8-inc-smoothquant",
        "onnx",
        _INT8,
        QuantizeIncStatic(),
        FoldOnnx(),
        model=(SmoothActivations(alpha=0.5),),
    ),
    _recipe("onnx-int8-inc-autotune", "onnx", _INT8, QuantizeIncAutotune(), FoldOnnx()),
    _recipe(
        "onnx-int4-inc-rtn",
        "onnx",
        _INT4,
        QuantizeOnnxWeights(bits=4, block=32),
        model=(WeightRoundingInc(bits=4, block=32),),
    ),
    _recipe("tflite-float", "tflite", _FLOAT),
    _recipe("tflite-fp16", "tflite", _HALF, ConvertTfliteFp16()),
    _recipe("tflite-int8-dynamic", "tflite", _INT8, QuantizeTfliteDynamic(bits=8)),
    _recipe("tflite-int8", "tflite", _INT8, _TFLITE_INT8),
    _recipe("tflite-int8-pt2e", "tflite", _INT8, QuantizePt2eStatic(per_channel=False)),
    # Microcontrollers, NPUs and EdgeTPU: no float tensor anywhere, so softmax is int8 too and probabilities are coarse.
    _recipe("tflite-int8-full", "tflite", _INT8, _TFLITE_FULL),
    # Twice the memory for activations that int8 is too coarse for, such as of layers that are fed back.
    _recipe("tflite-int16", "tflite", _INT16, QuantizeTfliteStatic(activations="int16")),
    _recipe("tflite-int16-full", "tflite", _INT16, QuantizeTfliteFull(activations="int16")),
    _recipe("tflite-int8-weights", "tflite", _INT8, QuantizeTfliteWeights(bits=8)),
    _recipe("tflite-int8-mixed", "tflite", _MIXED, QuantizeTfliteMixed(minimum_snr_db=30.0)),
    # Core ML's float is float16 already: this is the baseline.
    _recipe("coreml-fp16", "mlpackage", replace(_HALF, smaller_than_float=False)),
    _recipe("coreml-int8-weights", "mlpackage", _INT8, QuantizeCoremlWeights(bits=8, minimum_elements=64)),
    # Blocks of int4 came with iOS 18.
    _recipe(
        "coreml-int4-weights",
        "mlpackage",
        _INT4,
        ExportCoreml(minimum_version="iOS18"),
        QuantizeCoremlWeights(bits=4, block=32, minimum_elements=64),
    ),
    _recipe("coreml-palette4", "mlpackage", _INT4, PalettizeCoreml(bits=4, minimum_elements=64)),
    # Another model first.
    _recipe("onnx-pruned-int8", "onnx", _CHANGED, _S8S8, model=_PRUNED),
    _recipe("tflite-pruned-int8", "tflite", _CHANGED, _TFLITE_INT8, model=_PRUNED),
    _recipe("tflite-pruned-int8-full", "tflite", _CHANGED, _TFLITE_FULL, model=_PRUNED),
    _recipe("onnx-qat-int8", "onnx", _CHANGED, _S8S8, model=_QAT),
    _recipe("tflite-qat-int8", "tflite", _CHANGED, _TFLITE_INT8, model=_QAT),
    _recipe("tflite-qat-int8-full", "tflite", _CHANGED, _TFLITE_FULL, model=_QAT),
    _recipe("onnx-distilled-int8", "onnx", _CHANGED, _S8S8, model=_DISTILLED),
    _recipe("tflite-distilled-int8", "tflite", _CHANGED, _TFLITE_INT8, model=_DISTILLED),
    _recipe("tflite-distilled-int8-full", "tflite", _CHANGED, _TFLITE_FULL, model=_DISTILLED),
)

RECIPES: Mapping[str, Recipe] = {recipe.name: recipe for recipe in _ALL}
"""Name -> Hedgerow's own recipe."""


def find_recipe(name: str) -> Recipe:
    """Return a recipe, which is then called as it was asked for.

    Args:
        name: Of a built-in recipe or of an entry point, or ``module:ATTRIBUTE`` or ``file.py:ATTRIBUTE``.

    Raises:
        UnknownNameError: There is none.
        PluginError: It cannot be imported, or is no :class:`Recipe`.
    """
    found = RECIPES.get(name) or load_user_plugin("recipe", name, group=RECIPES_GROUP, known=RECIPES)
    if not isinstance(found, Recipe):
        raise PluginError("recipe", name, f"expected a Recipe, found {type(found).__name__}")
    return found if found.name == name else replace(found, name=name)
