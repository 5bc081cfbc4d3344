"""Run an ONNX file on this host with ONNX Runtime, one thread, so that sums have one order."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from hedgerow.compile.pass_models import CompiledModel
from hedgerow.compile.runners.samples import Run, Values, predict_samples, rows_of
from hedgerow.manifest.content import Tensor
from hedgerow.tensor_border import from_stored, is_whole, to_stored

__all__ = ["executed_by", "open_session", "predict_onnx", "predict_onnx_steps", "resolved_values", "takes_any_batch"]


def open_session(content: bytes, threads: int = 1) -> ort.InferenceSession:
    """Return a session on the CPU."""
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    return ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def executed_by(session: ort.InferenceSession) -> str:
    """Return what runs a session: ONNX Runtime, and the providers that it really got, first choice first."""
    return f"ONNX Runtime {ort.__version__}, {', '.join(session.get_providers())}"


def resolved_values(content: bytes, names: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Return what tensors of the main graph are in a prediction, where their sizes do not depend on values.

    The file is run on zeros and on other numbers; what had two sizes is left out.

    Args:
        content: The file; none of its inputs has an open size.
        names: Of the tensors.

    Returns:
        Name -> array, of those that are arrays; nothing where ONNX Runtime does not run the file.
    """
    model = onnx.load_model_from_string(content)
    given = {value.name for value in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in given)
    rng = np.random.default_rng(0)
    # Whether it runs at all is asked, and told, elsewhere; its errors share no base but Exception.
    try:
        session = open_session(model.SerializeToString())
    except Exception:  # noqa: BLE001 - see above
        return {}
    try:
        inputs = {value.name: (value.shape, _element_type(value.type)) for value in session.get_inputs()}
    # A sequence, a map or another type that has no numbers to give.
    except ValueError:
        return {}
    zeros = {name: np.zeros(shape, kind) for name, (shape, kind) in inputs.items()}
    others = {
        name: rng.normal(size=shape).astype(kind) if kind.kind == "f" else np.ones(shape, kind)
        for name, (shape, kind) in inputs.items()
    }
    try:
        runs = [session.run(list(names), values) for values in (zeros, others)]
    except Exception:  # noqa: BLE001 - see above
        return {}
    return {
        name: one
        for name, one, other in zip(names, *runs, strict=True)
        if isinstance(one, np.ndarray) and one.shape == other.shape
    }


def _element_type(words: str) -> np.dtype[Any]:
    """Return the type that ONNX Runtime writes ``tensor(float)``."""
    code = onnx.TensorProto.DataType.Value(words.removeprefix("tensor(").removesuffix(")").upper())
    return onnx.helper.tensor_dtype_to_np_dtype(code)


def predict_onnx(stage: CompiledModel, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.float32]]:
    """Return the file's outputs for a batch of inputs; each row stands alone, with the state that it has.

    Args:
        stage: An ONNX stage.
        inputs: Input name -> ``(n, *shape)``.

    Returns:
        Output name -> ``float32[n, ...]``.
    """
    if takes_any_batch(stage.inputs, inputs):
        run = _runner(stage)
        found = run({tensor.tensor: to_stored(inputs[tensor.name], tensor) for tensor in stage.inputs})
        return {t.name: np.asarray(from_stored(found[t.tensor], t)).astype(np.float32) for t in stage.outputs}
    return predict_samples(_runner(stage), stage.inputs, stage.outputs, inputs, **rows_of(stage))


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
