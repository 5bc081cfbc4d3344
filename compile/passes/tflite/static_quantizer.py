"""Static quantization with ai-edge-quantizer, from the exact extremes of every tensor."""

from collections.abc import Sequence
from typing import Any

from ai_edge_quantizer import qtyping, recipe

from hedgerow.compile.pass_models import CompiledModel, PassModel
from hedgerow.compile.passes.tflite.aeq import measured_statistics, quantized_stage
from hedgerow.compile.passes.tflite.squares import find_squares

__all__ = ["FLOAT_BORDER", "StaticQuantizer"]

_OPERATORS = qtyping.TFLOperationName
FLOAT_BORDER = (
    _OPERATORS.SOFTMAX, _OPERATORS.SELECT, _OPERATORS.SELECT_V2, _OPERATORS.INPUT, _OPERATORS.OUTPUT,
)  # fmt: skip
"""What stays float: softmax too, because an int8 probability has 256 steps: the confidence that the fleet watches gets
coarse. So does a choice: it computes nothing, and one of a mask would share its steps with the scores."""


class StaticQuantizer:
    """Quantizes one file as often as wanted; its ranges are measured once.

    Args:
        stage: A TFLite file.
        source: Gives the calibration data.
        activations: ``int8`` or ``int16``; weights are int8 always.
    """

    def __init__(self, stage: CompiledModel, source: PassModel, activations: str = "int8") -> None:
        self._stage, self._source = stage, source
        self._rules = recipe.static_wi8_ai8 if activations == "int8" else recipe.static_wi8_ai16
        # In 16 bits there is room for what is far from normal; in 8 there is hardly any.
        self._room = 8.0 if activations == "int16" else 2.0
        self._squares = find_squares(stage, source.schema)
        self._statistics: Any = None

    def quantized(
        self, floats: Sequence[Any] = (), left_out: Sequence[str] = (), *, keeps_squares: bool = False
    ) -> CompiledModel:
        """Return the file with int8 weights, one scale for each output channel, and integer activations.

        Args:
            floats: Kinds of operators that stay float.
            left_out: Regular expressions of output tensors whose operators stay float.
            keeps_squares: Whether a mean squared difference stays float.
        """
        patterns = [*left_out, *(self._squares.patterns if keeps_squares else ())]

        def prepare(tool: Any) -> Any:
            tool.load_quantization_recipe(self._rules())
            if self._statistics is None:
                self._statistics = measured_statistics(tool, self._stage, self._source.calibration)
                self._squares.widen(self._statistics, self._room)
            for operator in floats:
                tool.update_quantization_recipe(regex=".*", operation_name=operator, algorithm_key="no_quantize")
            for pattern in patterns:
                tool.update_quantization_recipe(
                    regex=pattern, operation_name=_OPERATORS.ALL_SUPPORTED, algorithm_key="no_quantize"
                )
            return self._statistics

        return quantized_stage(self._stage, prepare)
