"""Static int8 quantization of an ONNX file, in QDQ form, with onnxruntime.quantization."""

from dataclasses import dataclass, replace
from typing import ClassVar

from hedgerow.compile.pass_models import CompiledModel, PassModel
from hedgerow.compile.passes.kinds import FilePass
from hedgerow.compile.passes.settings import one_of, yes_or_no

__all__ = ["QuantizeOnnxStatic"]


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizeOnnxStatic(FilePass):
    """Quantizes activations per tensor, from their ranges in calibration, and weights, to int8 always.

    Attributes:
        activations: ``int8`` or ``uint8``.
        calibration: Ranges of activations: ``minmax`` are the extremes seen, ``entropy`` the cut that loses least
            information (Kullback-Leibler), ``percentile`` the middle 99.999 %.
        per_channel: Whether weights have one scale for each output channel, or one for each tensor.
        reduce_range: Whether weights use 7 bits, which x86 without VNNI needs.
        symmetric: Whether every zero point is 0 and biases stay float, which TensorRT demands.
    """

    name: ClassVar[str] = "quantize-onnx-static"
    takes: ClassVar[str] = "onnx"
    gives: ClassVar[str] = "onnx"
    activations: str = one_of("int8", "uint8")
    calibration: str = one_of("minmax", "entropy", "percentile", default="minmax")
    per_channel: bool = yes_or_no(default=True)
    reduce_range: bool = yes_or_no(default=False)
    symmetric: bool = yes_or_no(default=False)

    @property
    def weight_bits(self) -> int:
        """Integers of one byte."""
        return 8

    def apply(self, stage: CompiledModel, source: PassModel) -> CompiledModel:
        """Return the file in int8."""
        from hedgerow.compile.passes.onnx.static_quantizer import static_bytes

        return replace(stage, content=static_bytes(source, stage, self))
