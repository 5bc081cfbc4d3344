"""Weight-only quantization of a Core ML mlprogram with coremltools.optimize. It buys size, not speed."""

from dataclasses import dataclass

import coremltools.optimize.coreml as cto

from hedgerow.compile.errors import UnsuitableError
from hedgerow.compile.passes.coreml.compress import compress
from hedgerow.compile.passes.settings import between, one_of, read_settings
from hedgerow.compile.stage import Settings, Source, Stage

__all__ = ["WeightSettings", "quantize_coreml_weights"]

_STEP = "quantize-coreml-weights"


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightSettings:
    """Settings of :func:`quantize_coreml_weights`.

    Attributes:
        bits: 8, with one scale for each output channel; or 4, with one for each *block* of inputs, which needs iOS 18.
        block: Inputs that share a scale, for 4 bits.
        minimum_elements: Smaller weights stay float; a scale for each of them would eat what they save.
    """

    bits: int = one_of(4, 8, default=8)
    block: int = one_of(8, 16, 32, 64, default=32)
    minimum_elements: int = between(0, 2**31, default=64)


def quantize_coreml_weights(source: Source, stage: Stage | None, settings: Settings) -> Stage:
    """Store weights as int8 or int4, symmetric around zero.

    Raises:
        UnsuitableError: Every weight of the model is too small for it.
        PassError: coremltools fails.
        PassSettingsError: The settings make no sense.
        ValueError: No Core ML stage is given.
    """
    chosen = read_settings(_STEP, WeightSettings, settings)
    largest = max((parameter.numel() for parameter in source.model.parameters()), default=0)
    if largest < chosen.minimum_elements:
        expected = f"a weight of at least {chosen.minimum_elements} numbers"
        raise UnsuitableError(
            _STEP, expected, f"{largest} in the largest", "choose a float recipe for so small a model"
        )
    if chosen.bits == 8:
        rule = cto.OpLinearQuantizerConfig(
            mode="linear_symmetric", dtype="int8", weight_threshold=chosen.minimum_elements
        )
    else:
        rule = cto.OpLinearQuantizerConfig(
            mode="linear_symmetric",
            dtype="int4",
            granularity="per_block",
            block_size=chosen.block,
            weight_threshold=chosen.minimum_elements,
        )
    return compress(_STEP, stage, cto.linear_quantize_weights, cto.OptimizationConfig(global_config=rule))
