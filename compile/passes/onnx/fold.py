"""Fold constants of an ONNX file offline, so that weights behind a quantize node are stored as integers."""

import tempfile
from pathlib import Path

import onnxruntime as ort

from hedgerow.compile.stage import Settings, Source, Stage

__all__ = ["fold_onnx"]


def fold_onnx(_source: Source, stage: Stage | None, _settings: Settings) -> Stage:
    """Run ONNX Runtime's basic, hardware-independent optimizations and keep the result.

    Raises:
        ValueError: No ONNX stage is given.
    """
    if stage is None or stage.format != "onnx":
        raise ValueError("expected an ONNX file to fold")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "folded.onnx"
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(path)
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        ort.InferenceSession(stage.content, options, providers=["CPUExecutionProvider"])
        content = path.read_bytes()
    return Stage(format="onnx", content=content, inputs=stage.inputs, outputs=stage.outputs)
