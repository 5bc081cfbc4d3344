"""Static int8 quantization with Intel neural-compressor (PT2E), exported to ONNX.

neural-compressor 3.x quantizes torch programs only, and its weights stay float behind quantize/dequantize pairs. The
pass :class:`hedgerow.compile.passes.onnx.fold.FoldOnnx` after this one is what makes the file small.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from hedgerow.compile.pass_models import CompiledModel, FloatModel
from hedgerow.compile.passes.kinds import ExportPass

if TYPE_CHECKING:
    from hedgerow.compile.passes.inc.served import Calibrate

__all__ = ["QuantizeIncStatic"]


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizeIncStatic(ExportPass):
    """Quantizes the served model with neural-compressor's static PT2E path and exports it."""

    name: ClassVar[str] = "quantize-inc-static"
    gives: ClassVar[str] = "onnx"

    @property
    def weight_bits(self) -> int:
        """Integers of one byte, once they are folded."""
        return 8

    def apply(self, source: FloatModel) -> CompiledModel:
        """Return the model as ONNX with quantize nodes."""
        from neural_compressor.torch.quantization import StaticQuantConfig, convert, prepare

        from hedgerow.compile.passes.inc.served import served_stage

        def quantize(program: Any, calibrate: "Calibrate") -> Any:
            prepared = prepare(program, StaticQuantConfig())
            calibrate(prepared)
            return convert(prepared)

        return served_stage(source, quantize)
