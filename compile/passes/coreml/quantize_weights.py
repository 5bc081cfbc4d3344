"""Weight-only quantization of a Core ML mlprogram with coremltools.optimize. It buys size, not speed."""

from dataclasses import dataclass
from typing import ClassVar

from hedgerow.compile.errors import UnsuitableError
from hedgerow.compile.pass_models import CompiledModel, PassModel
from hedgerow.compile.passes.kinds import FilePass
from hedgerow.compile.passes.settings import between, one_of

__all__ = ["QuantizeCoremlWeights"]


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizeCoremlWeights(FilePass):
    """Stores weights as int8 or int4, symmetric around zero.

    Attributes:
        bits: 8, with one scale for each output channel; or 4, with one for each *block* of inputs, which needs iOS 18.
        block: Inputs that share a scale, for 4 bits.
        minimum_elements: Smaller weights stay float; a scale for each of them would eat what they save.
    """

    name: ClassVar[str] = "quantize-coreml-weights"
    takes: ClassVar[str] = "mlpackage"
    gives: ClassVar[str] = "mlpackage"
    bits: int = one_of(4, 8, default=8)
    block: int = one_of(8, 16, 32, 64, default=32)
    minimum_elements: int = between(0, 2**31, default=64)

    @property
    def weight_bits(self) -> int:
        """As many as are set."""
        return self.bits

    def apply(self, stage: CompiledModel, source: PassModel) -> CompiledModel:
        """Return the package with integer weights.

        Raises:
            UnsuitableError: Every weight of the model is too small for it.
        """
        import coremltools.optimize.coreml as cto

        from hedgerow.compile.passes.coreml.package import compressed

        largest = max((parameter.numel() for parameter in source.model.parameters()), default=0)
        if largest < self.minimum_elements:
            expected = f"a weight of at least {self.minimum_elements} numbers"
            advice = "choose a float recipe for so small a model"
            raise UnsuitableError(self.name, expected, f"{largest} in the largest", advice)
        if self.bits == 8:
            rule = cto.OpLinearQuantizerConfig(
                mode="linear_symmetric", dtype="int8", weight_threshold=self.minimum_elements
            )
        else:
            rule = cto.OpLinearQuantizerConfig(
                mode="linear_symmetric",
                dtype="int4",
                granularity="per_block",
                block_size=self.block,
                weight_threshold=self.minimum_elements,
            )
        return compressed(stage, cto.linear_quantize_weights, cto.OptimizationConfig(global_config=rule))
