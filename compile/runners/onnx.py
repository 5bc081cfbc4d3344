"""Run an ONNX file on this host with ONNX Runtime, one thread, so that sums have one order."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from hedgerow.compile.pass_models import CompiledModel
from hedgerow.compile.runners.samples import Run, Values, predict_samples, rows_of
from hedgerow.manifest.content import Tensor
from hedgerow.tensor_border import from_stored, is_whole, to_stored

__all__ = ["executed_by", "open_session", "predict_onnx", "predict_onnx_steps", "takes_any_batch"]


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
    """Return the file's first output for a batch of inputs; each row stands alone, with the state that it has.

    Args:
        stage: An ONNX stage.
        inputs: Input name -> ``(n, *shape)``.

    Returns:
        ``float32[n, ...]``.
    """
    output = stage.outputs[0]
    if takes_any_batch(stage.inputs, inputs):
        session = open_session(stage.content)
        values = {tensor.tensor: to_stored(inputs[tensor.name], tensor) for tensor in stage.inputs}
        return from_stored(session.run([output.tensor], values)[0], output).astype(np.float32)
    return predict_samples(_runner(stage), stage.inputs, stage.outputs, inputs, **rows_of(stage))[output.name]


def predict_onnx_steps(
    stage: CompiledModel, inputs: Mapping[str, NDArray[Any]], steps: int
) -> dict[str, NDArray[np.float32]]:
    """Return all outputs of a file with state, carried through sequences of so many rows."""
    return predict_samples(_runner(stage), stage.inputs, stage.outputs, inputs, state=stage.state, steps=steps)


def _runner(stage: CompiledModel) -> Run:
    session, names = open_session(stage.content), [tensor.tensor for tensor in stage.outputs]

    def run(values: Mapping[str, Values]) -> Mapping[str, Values]:
        return dict(zip(names, session.run(names, dict(values)), strict=True))

    return run


def takes_any_batch(tensors: Iterable[Tensor], inputs: Mapping[str, NDArray[Any]]) -> bool:
    """Say whether a file takes any number of samples at once: one that was not made here may take one alone."""
    taken = tuple(tensors)
    return not is_whole(taken, inputs) and all(tensor.shape[0] < 1 for tensor in taken)
