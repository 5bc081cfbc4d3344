"""Static int8 quantization of a TFLite file in which the layers that int8 hurts most stay float."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ai_edge_litert import schema_py_generated as flatbuffer

from hedgerow.compile.passes.sensitivity import widen, worst_first
from hedgerow.compile.passes.settings import between, read_settings
from hedgerow.compile.passes.tflite.quantize_static import FLOAT_BORDER, StaticQuantizer
from hedgerow.compile.runners.tflite import predict_tflite
from hedgerow.compile.stage import Settings, Source, Stage
from hedgerow.compile.verify import signal_to_noise_db

__all__ = ["MixedSettings", "quantize_tflite_mixed"]

_STEP = "quantize-tflite-mixed"
_CODES = flatbuffer.BuiltinOperator
# What rounds numbers of its own; PAD is what litert-torch writes before a convolution with a stride.
_LAYERS = {
    _CODES.ADD, _CODES.AVERAGE_POOL_2D, _CODES.BATCH_MATMUL, _CODES.CONV_2D, _CODES.DEPTHWISE_CONV_2D,
    _CODES.FULLY_CONNECTED, _CODES.MEAN, _CODES.PAD,
}  # fmt: skip
_SAMPLES = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class MixedSettings:
    """Settings of :func:`quantize_tflite_mixed`.

    Attributes:
        minimum_snr_db: Signal to noise of the output on calibration data that must be reached, in decibel.
    """

    minimum_snr_db: float = between(0.0, 100.0, default=30.0)


def quantize_tflite_mixed(source: Source, stage: Stage | None, settings: Settings) -> Stage:
    """Measure the damage of each layer alone on calibration data, and keep the fewest of the worst in float.

    Raises:
        PassError: The quantizer fails.
        PassSettingsError: The settings make no sense.
        ValueError: No TFLite stage is given.
    """
    tool = StaticQuantizer(_STEP, source, stage)
    if stage is None:
        raise ValueError("expected a TFLite file to quantize")
    chosen = read_settings(_STEP, MixedSettings, settings)
    everything, layers = _operators(stage.content)
    data = source.calibration.take(np.arange(min(_SAMPLES, len(source.calibration))))
    wanted = predict_tflite(stage, data.inputs)

    def quality_db(left_out: Sequence[str]) -> float:
        return signal_to_noise_db(wanted, predict_tflite(tool.quantized(FLOAT_BORDER, left_out), data.inputs))

    ranked = worst_first(layers, lambda layer: quality_db([name for name in everything if name != layer]))
    return tool.quantized(FLOAT_BORDER, widen(ranked, quality_db, chosen.minimum_snr_db))


def _operators(content: bytes) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return patterns of the output tensors of all operators, and of those that may stay float."""
    model = flatbuffer.ModelT.InitFromPackedBuf(content, 0)
    codes = [max(code.builtinCode, code.deprecatedBuiltinCode) for code in model.operatorCodes]
    everything, layers = [], []
    for graph in model.subgraphs:
        for operator in graph.operators:
            # ai-edge-quantizer knows an operator by the names of its outputs, each closed with a semicolon.
            names = "".join(f"{graph.tensors[index].name.decode()};" for index in operator.outputs)
            pattern = f"^{re.escape(names)}$"
            everything.append(pattern)
            if codes[operator.opcodeIndex] in _LAYERS:
                layers.append(pattern)
    return tuple(everything), tuple(layers)
