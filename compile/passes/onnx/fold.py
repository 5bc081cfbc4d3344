"""Fold constants of an ONNX file offline, so that weights behind a quantize node are stored as integers."""

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from hedgerow.compile.pass_models import CompiledModel, PassModel
from hedgerow.compile.passes.kinds import FilePass

__all__ = ["FoldOnnx"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldOnnx(FilePass):
    """Runs ONNX Runtime's basic, hardware-independent optimizations and keeps the result."""

    name: ClassVar[str] = "fold-onnx"
    takes: ClassVar[str] = "onnx"
    gives: ClassVar[str] = "onnx"

    @property
    def weight_bits(self) -> None:
        """Weights stay what they are."""
        return

    def apply(self, stage: CompiledModel, source: PassModel) -> CompiledModel:
        """Return the file with its constants folded."""
        import onnxruntime as ort

        del source
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "folded.onnx"
            options = ort.SessionOptions()
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
            options.optimized_model_filepath = str(path)
            options.intra_op_num_threads = 1
            options.log_severity_level = 3
            ort.InferenceSession(stage.content, options, providers=["CPUExecutionProvider"])
            return replace(stage, content=path.read_bytes())
