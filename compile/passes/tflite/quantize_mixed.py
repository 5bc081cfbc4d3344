"""Static int8 quantization of a TFLite file in which the layers that int8 hurts most stay float."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from hedgerow.compile.pass_models import CompiledModel, PassModel
from hedgerow.compile.passes.kinds import FilePass
from hedgerow.compile.passes.sensitivity import widen, worst_first
from hedgerow.compile.passes.settings import between

__all__ = ["QuantizeTfliteMixed"]

# What rounds numbers of its own; PAD is what litert-torch writes before a convolution with a stride.
_LAYERS = (
    "ADD", "AVERAGE_POOL_2D", "BATCH_MATMUL", "CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "MEAN", "PAD",
)  # fmt: skip
_SAMPLES = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizeTfliteMixed(FilePass):
    """Measures the damage of each layer alone on calibration data, and keeps the fewest of the worst in float.

    Attributes:
        minimum_snr_db: Signal to noise of the output on calibration data that must be reached, in decibel.
    """

    name: ClassVar[str] = "quantize-tflite-mixed"
    takes: ClassVar[str] = "tflite"
    gives: ClassVar[str] = "tflite"
    minimum_snr_db: float = between(0.0, 100.0, default=30.0)

    @property
    def weight_bits(self) -> int:
        """Integers of one byte."""
        return 8

    def apply(self, stage: CompiledModel, source: PassModel) -> CompiledModel:
        """Return the file in int8 and float."""
        from hedgerow.compile.passes.tflite.static_quantizer import FLOAT_BORDER, StaticQuantizer
        from hedgerow.compile.runners.tflite import predict_tflite
        from hedgerow.compile.scoring import least_snr_db

        tool = StaticQuantizer(stage, source)
        everything, layers = _operators(stage.content)
        data = source.calibration.take(np.arange(min(_SAMPLES, len(source.calibration))))
        wanted = predict_tflite(stage, data.inputs)

        def quantized(left_out: Sequence[str]) -> CompiledModel:
            return tool.quantized(FLOAT_BORDER, left_out, keeps_squares=True)

        def quality_db(left_out: Sequence[str]) -> float:
            return least_snr_db(wanted, predict_tflite(quantized(left_out), data.inputs))

        ranked = worst_first(layers, lambda layer: quality_db([name for name in everything if name != layer]))
        return quantized(widen(ranked, quality_db, self.minimum_snr_db))


def _operators(content: bytes) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return patterns of the output tensors of all operators, and of those that may stay float."""
    from ai_edge_litert import schema_py_generated as flatbuffer

    wide = {getattr(flatbuffer.BuiltinOperator, name) for name in _LAYERS}
    model = flatbuffer.ModelT.InitFromPackedBuf(content, 0)
    codes = [max(code.builtinCode, code.deprecatedBuiltinCode) for code in model.operatorCodes]
    everything, layers = [], []
    for graph in model.subgraphs:
        for operator in graph.operators:
            # ai-edge-quantizer knows an operator by the names of its outputs, each closed with a semicolon.
            names = "".join(f"{graph.tensors[index].name.decode()};" for index in operator.outputs)
            pattern = f"^{re.escape(names)}$"
            everything.append(pattern)
            if codes[operator.opcodeIndex] in wide:
                layers.append(pattern)
    return tuple(everything), tuple(layers)
