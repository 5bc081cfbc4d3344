"""Static int8 quantization of an ONNX file in which the layers that int8 hurts most stay float."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from hedgerow.compile.pass_models import CompiledModel, PassModel
from hedgerow.compile.passes.onnx.quantize_static import QuantizeOnnxStatic
from hedgerow.compile.passes.onnx.recurrent_weights import RECURRENT
from hedgerow.compile.passes.sensitivity import widen, worst_first
from hedgerow.compile.passes.settings import between

__all__ = ["QuantizeOnnxMixed"]

_LAYERS = {"Conv", "Gemm", "MatMul", *RECURRENT}


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizeOnnxMixed(QuantizeOnnxStatic):
    """Measures the damage of each layer alone on calibration data, and keeps the fewest of the worst in float.

    Attributes:
        minimum_snr_db: Signal to noise of the output on calibration data that must be reached, in decibel.
    """

    name: ClassVar[str] = "quantize-onnx-mixed"
    minimum_snr_db: float = between(0.0, 100.0, default=30.0)

    def apply(self, stage: CompiledModel, source: PassModel) -> CompiledModel:
        """Return the file in int8 and float."""
        import onnx

        from hedgerow.compile.passes.onnx.static_quantizer import static_bytes
        from hedgerow.compile.runners.onnx import predict_onnx
        from hedgerow.compile.scoring import least_snr_db

        nodes = onnx.load_model_from_string(stage.content).graph.node
        everything = [node.name for node in nodes]
        layers = [node.name for node in nodes if node.op_type in _LAYERS]
        inputs = source.calibration.inputs
        wanted = predict_onnx(stage, inputs)
        with tempfile.TemporaryDirectory() as folder:
            ranges = Path(folder) / "ranges.json"

            def quantized(left_out: Sequence[str]) -> CompiledModel:
                return replace(stage, content=static_bytes(source, stage, self, left_out=left_out, ranges=ranges))

            def quality_db(left_out: Sequence[str]) -> float:
                return least_snr_db(wanted, predict_onnx(quantized(left_out), inputs))

            ranked = worst_first(layers, lambda layer: quality_db([name for name in everything if name != layer]))
            return quantized(widen(ranked, quality_db, self.minimum_snr_db))
