"""Static quantization of a TFLite file with ai-edge-quantizer, from the exact extremes of every tensor."""

from dataclasses import dataclass
from typing import ClassVar

from hedgerow.compile.pass_models import CompiledModel, PassModel
from hedgerow.compile.passes.kinds import FilePass
from hedgerow.compile.passes.settings import one_of

__all__ = ["QuantizeTfliteFull", "QuantizeTfliteStatic"]


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizeTfliteStatic(FilePass):
    """Quantizes weights (per channel) and activations; inputs, outputs and softmax stay float.

    Attributes:
        activations: ``int8``, or ``int16``: 256 times finer and symmetric around zero, at twice the memory. Weights are
            int8 always.
    """

    name: ClassVar[str] = "quantize-tflite-static"
    takes: ClassVar[str] = "tflite"
    gives: ClassVar[str] = "tflite"
    activations: str = one_of("int8", "int16", default="int8")

    @property
    def weight_bits(self) -> int:
        """Integers of one byte."""
        return 8

    def apply(self, stage: CompiledModel, source: PassModel) -> CompiledModel:
        """Return the file in integers between its borders."""
        from hedgerow.compile.passes.tflite.static_quantizer import FLOAT_BORDER, StaticQuantizer

        return StaticQuantizer(stage, source, self.activations).quantized(FLOAT_BORDER, keeps_squares=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizeTfliteFull(FilePass):
    """Quantizes everything, inputs, outputs and softmax too: what microcontrollers, NPUs and the EdgeTPU run.

    An operator that has no integer form stays float between quantize and dequantize, which the gate of a target without
    floats refuses by name.

    Attributes:
        activations: As in :class:`QuantizeTfliteStatic`.
    """

    name: ClassVar[str] = "quantize-tflite-full"
    takes: ClassVar[str] = "tflite"
    gives: ClassVar[str] = "tflite"
    activations: str = one_of("int8", "int16", default="int8")

    @property
    def weight_bits(self) -> int:
        """Integers of one byte."""
        return 8

    def apply(self, stage: CompiledModel, source: PassModel) -> CompiledModel:
        """Return the file in integers."""
        from hedgerow.compile.passes.tflite.static_quantizer import StaticQuantizer

        return StaticQuantizer(stage, source, self.activations).quantized()
