"""Quantization of a TFLite file's weights alone with ai-edge-quantizer: dynamic, or unpacked to float before use."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from hedgerow.compile.pass_models import CompiledModel, PassModel
from hedgerow.compile.passes.kinds import FilePass
from hedgerow.compile.passes.settings import one_of

__all__ = ["QuantizeTfliteDynamic", "QuantizeTfliteWeights"]


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizeTfliteDynamic(FilePass):
    """Stores weights as integers, one scale for each output channel; activations are rounded at run time.

    Never blockwise and never with Hadamard rotation: ai-edge-quantizer 0.10 leaves convolutions float then, or makes
    the file larger than float, without an error.

    Attributes:
        bits: 8, or 4, which ai-edge-quantizer has no kernels of for depthwise convolutions: those stay float then.
    """

    name: ClassVar[str] = "quantize-tflite-dynamic"
    takes: ClassVar[str] = "tflite"
    gives: ClassVar[str] = "tflite"
    bits: int = one_of(4, 8)

    @property
    def weight_bits(self) -> int:
        """As many as are set."""
        return self.bits

    def apply(self, stage: CompiledModel, source: PassModel) -> CompiledModel:
        """Return the file with integer weights."""
        from ai_edge_quantizer import recipe

        rules = {4: recipe.dynamic_wi4_afp32, 8: recipe.dynamic_wi8_afp32}
        del source
        return _quantized(stage, rules, self.bits)


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizeTfliteWeights(FilePass):
    """Stores weights as integers, one scale for each output channel, and multiplies in float.

    Attributes:
        bits: As in :class:`QuantizeTfliteDynamic`.
    """

    name: ClassVar[str] = "quantize-tflite-weights"
    takes: ClassVar[str] = "tflite"
    gives: ClassVar[str] = "tflite"
    bits: int = one_of(4, 8)

    @property
    def weight_bits(self) -> int:
        """As many as are set."""
        return self.bits

    def apply(self, stage: CompiledModel, source: PassModel) -> CompiledModel:
        """Return the file with integer weights."""
        from ai_edge_quantizer import recipe

        rules = {4: recipe.weight_only_wi4_afp32, 8: recipe.weight_only_wi8_afp32}
        del source
        return _quantized(stage, rules, self.bits)


def _quantized(stage: CompiledModel, rules: Mapping[int, Any], bits: int) -> CompiledModel:
    from hedgerow.compile.passes.tflite.aeq import quantized_stage

    return quantized_stage(stage, lambda tool: tool.load_quantization_recipe(rules[bits]()))
