"""Run an ONNX file on this host with ONNX Runtime, one thread, so that sums have one order."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from hedgerow.compile.pass_models import CompiledModel
from hedgerow.compile.runners.samples import Values, predict_samples
from hedgerow.manifest.content import Tensor
from hedgerow.tensor_border import from_stored, is_whole, to_stored

__all__ = ["executed_by", "open_session", "predict_onnx", "takes_any_batch"]


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
    session, output = open_session(stage.content), stage.outputs[0]
    if takes_any_batch(stage.inputs, inputs):
        values = {tensor.tensor: to_stored(inputs[tensor.name], tensor) for tensor in stage.inputs}
        return from_stored(session.run([output.tensor], values)[0], output).astype(np.float32)

    def run(values: Mapping[str, Values]) -> Mapping[str, Values]:
        return {output.tensor: session.run([output.tensor], dict(values))[0]}

    return predict_samples(run, stage.inputs, [output], inputs)[output.name]


def takes_any_batch(tensors: Iterable[Tensor], inputs: Mapping[str, NDArray[Any]]) -> bool:
    """Say whether a file takes any number of samples at once: one that was not made here may take one alone."""
    taken = tuple(tensors)
    return not is_whole(taken, inputs) and all(tensor.shape[0] < 1 for tensor in taken)
