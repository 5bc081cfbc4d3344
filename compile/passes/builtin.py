"""The passes by name: Hedgerow's own, those of installed packages, and those in a file of the user's."""

import sys
from collections.abc import Mapping
from inspect import isabstract

from hedgerow.compile.passes.coreml.export import ExportCoreml
from hedgerow.compile.passes.coreml.palettize import PalettizeCoreml
from hedgerow.compile.passes.coreml.quantize_weights import QuantizeCoremlWeights
from hedgerow.compile.passes.inc.quantize_autotune import QuantizeIncAutotune
from hedgerow.compile.passes.inc.quantize_static import QuantizeIncStatic
from hedgerow.compile.passes.inc.weight_rounding import WeightRoundingInc
from hedgerow.compile.passes.kinds import Pass
from hedgerow.compile.passes.model.distill_features import DistillFeatures
from hedgerow.compile.passes.model.distill_logits import DistillLogits
from hedgerow.compile.passes.model.fine_tune import FineTune
from hedgerow.compile.passes.model.prune_channels import PruneChannels
from hedgerow.compile.passes.model.prune_two_four import PruneTwoFour
from hedgerow.compile.passes.model.prune_weights import PruneWeights
from hedgerow.compile.passes.model.smooth_activations import SmoothActivations
from hedgerow.compile.passes.model.train_quantized import TrainQuantized
from hedgerow.compile.passes.onnx.convert_fp16 import ConvertOnnxFp16
from hedgerow.compile.passes.onnx.export import ExportOnnx
from hedgerow.compile.passes.onnx.fold import FoldOnnx
from hedgerow.compile.passes.onnx.quantize_dynamic import QuantizeOnnxDynamic
from hedgerow.compile.passes.onnx.quantize_mixed import QuantizeOnnxMixed
from hedgerow.compile.passes.onnx.quantize_static import QuantizeOnnxStatic
from hedgerow.compile.passes.onnx.quantize_weights import QuantizeOnnxWeights
from hedgerow.compile.passes.onnx.trim import TrimOnnx
from hedgerow.compile.passes.tflite.convert_fp16 import ConvertTfliteFp16
from hedgerow.compile.passes.tflite.export import ExportTflite
from hedgerow.compile.passes.tflite.quantize_mixed import QuantizeTfliteMixed
from hedgerow.compile.passes.tflite.quantize_pt2e import QuantizePt2eStatic
from hedgerow.compile.passes.tflite.quantize_static import QuantizeTfliteFull, QuantizeTfliteStatic
from hedgerow.compile.passes.tflite.quantize_weights import QuantizeTfliteDynamic, QuantizeTfliteWeights
from hedgerow.compile.passes.tflite.trim import TrimTflite
from hedgerow.errors import PluginError
from hedgerow.plugins import load_user_plugin
from hedgerow.user_files import USER_MODULE

__all__ = ["PASSES", "PASSES_GROUP", "find_pass", "pass_reference"]

PASSES_GROUP = "hedgerow.passes"
"""Entry points of installed packages that bring passes: the name of one -> its class."""

PASSES: Mapping[str, type[Pass]] = {
    kind.name: kind
    for kind in (
        *(DistillFeatures, DistillLogits, FineTune, PruneChannels, PruneTwoFour, PruneWeights, WeightRoundingInc),
        *(SmoothActivations, TrainQuantized),
        *(ExportOnnx, ConvertOnnxFp16, FoldOnnx, QuantizeOnnxDynamic, QuantizeOnnxMixed, QuantizeOnnxStatic),
        *(QuantizeOnnxWeights, TrimOnnx, QuantizeIncAutotune, QuantizeIncStatic),
        *(ExportTflite, ConvertTfliteFp16, QuantizeTfliteDynamic, QuantizeTfliteFull, QuantizeTfliteMixed),
        *(QuantizeTfliteStatic, QuantizeTfliteWeights, QuantizePt2eStatic, TrimTflite),
        *(ExportCoreml, PalettizeCoreml, QuantizeCoremlWeights),
    )
}
"""Name -> Hedgerow's own pass."""


def find_pass(name: str) -> type[Pass]:
    """Return the class of a pass.

    Args:
        name: Of a built-in pass or of an entry point, or ``module:Class`` or ``file.py:Class``.

    Raises:
        UnknownNameError: There is none.
        PluginError: It cannot be imported, or is no pass.
    """
    found = PASSES.get(name) or load_user_plugin("pass", name, group=PASSES_GROUP, known=PASSES)
    if not (isinstance(found, type) and issubclass(found, Pass)):
        raise PluginError("pass", name, f"expected a class derived from Pass, found {type(found).__name__}")
    if isabstract(found) or getattr(found, "name", None) is None:
        mistake = f"expected a pass with a name and apply(), found {found.__name__}, which is abstract; name another"
        raise PluginError("pass", name, mistake)
    return found


def pass_reference(kind: type[Pass]) -> str:
    """Return what :func:`find_pass` finds a class by, in another process too.

    Raises:
        PluginError: The class is inside another class or a function, or not in a file.
    """
    if PASSES.get(kind.name) is kind:
        return kind.name
    module = sys.modules.get(kind.__module__)
    if getattr(module, kind.__qualname__, None) is not kind:
        raise PluginError(
            "pass", kind.name, f"expected the class {kind.__qualname__} at the top of its module {kind.__module__}"
        )
    place = getattr(module, "__file__", None) if kind.__module__.startswith(USER_MODULE) else kind.__module__
    return f"{place}:{kind.__qualname__}"
