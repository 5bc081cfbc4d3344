"""Static int8 quantization of an ONNX file in which the layers that int8 hurts most stay float."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import onnx

from hedgerow.compile.passes.onnx.quantize_static import StaticSettings, static_bytes
from hedgerow.compile.passes.sensitivity import widen, worst_first
from hedgerow.compile.passes.settings import between, read_settings
from hedgerow.compile.runners.onnx import predict_onnx
from hedgerow.compile.stage import Settings, Source, Stage
from hedgerow.compile.verify import signal_to_noise_db

__all__ = ["MixedSettings", "quantize_onnx_mixed"]

_STEP = "quantize-onnx-mixed"
_LAYERS = {"Conv", "Gemm", "MatMul"}


@dataclass(frozen=True, slots=True, kw_only=True)
class MixedSettings(StaticSettings):
    """Settings of :func:`quantize_onnx_mixed`.

    Attributes:
        minimum_snr_db: Signal to noise of the output on calibration data that must be reached, in decibel.
    """

    minimum_snr_db: float = between(0.0, 100.0, default=30.0)


def quantize_onnx_mixed(source: Source, stage: Stage | None, settings: Settings) -> Stage:
    """Measure the damage of each layer alone on calibration data, and keep the fewest of the worst in float.

    Raises:
        PassError: The quantizer fails.
        PassSettingsError: The settings make no sense.
        ValueError: No ONNX stage is given.
    """
    if stage is None or stage.format != "onnx":
        raise ValueError("expected an ONNX file to quantize")
    chosen = read_settings(_STEP, MixedSettings, settings)
    static = StaticSettings(**{entry.name: getattr(chosen, entry.name) for entry in fields(StaticSettings)})
    nodes = onnx.load_model_from_string(stage.content).graph.node
    everything = [node.name for node in nodes]
    layers = [node.name for node in nodes if node.op_type in _LAYERS]
    inputs = source.calibration.inputs
    wanted = predict_onnx(stage, inputs)
    with tempfile.TemporaryDirectory() as folder:
        ranges = Path(folder) / "ranges.json"

        def quantized(left_out: Sequence[str]) -> Stage:
            content = static_bytes(_STEP, source, stage, static, left_out=left_out, ranges=ranges)
            return Stage(format="onnx", content=content, inputs=stage.inputs, outputs=stage.outputs)

        def quality_db(left_out: Sequence[str]) -> float:
            return signal_to_noise_db(wanted, predict_onnx(quantized(left_out), inputs))

        ranked = worst_first(layers, lambda layer: quality_db([name for name in everything if name != layer]))
        return quantized(widen(ranked, quality_db, chosen.minimum_snr_db))
