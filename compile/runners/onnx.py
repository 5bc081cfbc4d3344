"""Run an ONNX file on this host with ONNX Runtime, one thread, so that sums have one order."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from hedgerow.compile.pass_models import CompiledModel
from hedgerow.tensor_border import from_stored, to_stored

__all__ = ["executed_by", "open_session", "predict_onnx"]


def open_session(content: bytes, threads: int = 1) -> ort.InferenceSession:
    """Return a session on the CPU."""
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    return ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def executed_by(session: ort.InferenceSession) -> str:
    """Return what runs a session: ONNX Runtime, and the providers that it really got, first choice first."""
    return f"ONNX Runtime {ort.__version__}, {', '.join(session.get_providers())}"


def predict_onnx(stage: CompiledModel, inputs: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
    """Return the file's first output for a batch of inputs.

    Args:
        stage: An ONNX stage.
        inputs: Input name -> ``(n, *shape)``.

    Returns:
        ``float32[n, ...]``.
    """
    values = {tensor.tensor: to_stored(inputs[tensor.name], tensor) for tensor in stage.inputs}
    output = stage.outputs[0]
    return from_stored(open_session(stage.content).run([output.tensor], values)[0], output).astype(np.float32)
