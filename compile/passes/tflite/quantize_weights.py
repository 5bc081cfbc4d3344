"""Quantization of a TFLite file's weights alone with ai-edge-quantizer: dynamic, or unpacked to float before use."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hedgerow.compile.passes.settings import one_of, read_settings
from hedgerow.compile.passes.tflite.aeq import open_quantizer, tool_errors
from hedgerow.compile.runners.tflite import signature_tensors
from hedgerow.compile.stage import Settings, Source, Stage

__all__ = ["WeightSettings", "quantize_tflite_dynamic", "quantize_tflite_weights"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightSettings:
    """Settings of both passes.

    Attributes:
        bits: 8, or 4, which ai-edge-quantizer has no kernels of for depthwise convolutions: those stay float then.
    """

    bits: int = one_of(4, 8)


def quantize_tflite_dynamic(source: Source, stage: Stage | None, settings: Settings) -> Stage:
    """Store weights as integers, one scale for each output channel; activations are rounded at run time.

    Never blockwise and never with Hadamard rotation: ai-edge-quantizer 0.10 leaves convolutions float then, or makes
    the file larger than float, without an error.

    Raises:
        PassError: The quantizer fails.
        PassSettingsError: The settings make no sense.
        ValueError: No TFLite stage is given.
    """
    from ai_edge_quantizer import recipe

    return _quantized(
        "quantize-tflite-dynamic",
        source,
        stage,
        settings,
        {4: recipe.dynamic_wi4_afp32, 8: recipe.dynamic_wi8_afp32},
    )


def quantize_tflite_weights(source: Source, stage: Stage | None, settings: Settings) -> Stage:
    """Store weights as integers, one scale for each output channel, and multiply in float.

    Raises:
        PassError: The quantizer fails.
        PassSettingsError: The settings make no sense.
        ValueError: No TFLite stage is given.
    """
    from ai_edge_quantizer import recipe

    return _quantized(
        "quantize-tflite-weights",
        source,
        stage,
        settings,
        {4: recipe.weight_only_wi4_afp32, 8: recipe.weight_only_wi8_afp32},
    )


def _quantized(step: str, source: Source, stage: Stage | None, settings: Settings, rules: Mapping[int, Any]) -> Stage:
    if stage is None or stage.format != "tflite":
        raise ValueError("expected a TFLite file to quantize")
    chosen = read_settings(step, WeightSettings, settings)
    with tempfile.TemporaryDirectory() as folder, tool_errors(step):
        after = Path(folder) / "weights.tflite"
        tool = open_quantizer(stage.content, folder)
        tool.load_quantization_recipe(rules[chosen.bits]())
        tool.quantize().export_model(str(after))
        content = after.read_bytes()
    inputs, outputs = signature_tensors(content, source.task.schema)
    return Stage(format="tflite", content=content, inputs=inputs, outputs=outputs)
