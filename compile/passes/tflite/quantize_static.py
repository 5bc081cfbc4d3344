"""Static int8 quantization of a TFLite file with ai-edge-quantizer, from the exact extremes of every tensor."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ai_edge_quantizer import qtyping, recipe

from hedgerow.compile.passes.settings import NoSettings, read_settings
from hedgerow.compile.passes.tflite.aeq import measured_statistics, open_quantizer, tool_errors
from hedgerow.compile.runners.tflite import signature_tensors
from hedgerow.compile.stage import Settings, Source, Stage

__all__ = ["FLOAT_BORDER", "StaticQuantizer", "quantize_tflite_full", "quantize_tflite_static"]

_OPERATORS = qtyping.TFLOperationName
FLOAT_BORDER = (_OPERATORS.SOFTMAX, _OPERATORS.INPUT, _OPERATORS.OUTPUT)
"""What stays float: softmax too, because an int8 probability has 256 steps: the confidence that the fleet watches gets
coarse."""


class StaticQuantizer:
    """Quantizes one file as often as wanted; its ranges are measured once."""

    def __init__(self, step: str, source: Source, stage: Stage | None) -> None:
        if stage is None or stage.format != "tflite":
            raise ValueError("expected a TFLite file to quantize")
        self._step, self._source, self._stage = step, source, stage
        self._statistics: Any = None

    def quantized(self, floats: Sequence[Any] = (), left_out: Sequence[str] = ()) -> Stage:
        """Return the file with int8 weights, one scale for each output channel, and int8 activations.

        Args:
            floats: Kinds of operators that stay float.
            left_out: Regular expressions of output tensors whose operators stay float.

        Raises:
            PassError: The quantizer fails.
        """
        with tempfile.TemporaryDirectory() as folder, tool_errors(self._step):
            after = Path(folder) / "int8.tflite"
            tool = open_quantizer(self._stage.content, folder)
            tool.load_quantization_recipe(recipe.static_wi8_ai8())
            if self._statistics is None:
                self._statistics = measured_statistics(tool, self._stage, self._source.calibration)
            for operator in floats:
                tool.update_quantization_recipe(regex=".*", operation_name=operator, algorithm_key="no_quantize")
            for pattern in left_out:
                tool.update_quantization_recipe(
                    regex=pattern, operation_name=_OPERATORS.ALL_SUPPORTED, algorithm_key="no_quantize"
                )
            tool.quantize(self._statistics).export_model(str(after))
            content = after.read_bytes()
        inputs, outputs = signature_tensors(content, self._source.task.schema)
        return Stage(format="tflite", content=content, inputs=inputs, outputs=outputs)


def quantize_tflite_static(source: Source, stage: Stage | None, settings: Settings) -> Stage:
    """Quantize weights (per channel) and activations; inputs, outputs and softmax stay float.

    Raises:
        PassError: The quantizer fails.
        PassSettingsError: Settings are given; it has none.
        ValueError: No TFLite stage is given.
    """
    read_settings("quantize-tflite-static", NoSettings, settings)
    return StaticQuantizer("quantize-tflite-static", source, stage).quantized(FLOAT_BORDER)


def quantize_tflite_full(source: Source, stage: Stage | None, settings: Settings) -> Stage:
    """Quantize everything, inputs, outputs and softmax too: what microcontrollers, NPUs and the EdgeTPU run.

    An operator that has no int8 form stays float between quantize and dequantize, which the gate of a target without
    floats refuses by name.

    Raises:
        PassError: The quantizer fails.
        PassSettingsError: Settings are given; it has none.
        ValueError: No TFLite stage is given.
    """
    read_settings("quantize-tflite-full", NoSettings, settings)
    return StaticQuantizer("quantize-tflite-full", source, stage).quantized()
