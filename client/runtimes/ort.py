"""ONNX Runtime: single-threaded sessions, small arenas, no graph written back to disk."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from hedgerow.client.errors import InstallError
from hedgerow.client.runtimes.base import LoadedModel, TrainStep
from hedgerow.client.runtimes.static_batch import in_batches, static_batch
from hedgerow.manifest.artifact import Artifact
from hedgerow.manifest.content import Tensor
from hedgerow.manifest.train_graph import TrainGraph
from hedgerow.tensor_border import from_stored, to_stored
from hedgerow.weights import Arrays

__all__ = ["OrtRuntime"]

# Warnings about initializers and shapes are for whoever exported the file, not for a device's log.
_ERRORS_ONLY = 3
_log = logging.getLogger(__name__)


def _session(path: Path, tensors: Sequence[Tensor], outputs: Sequence[Tensor]) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = _ERRORS_ONLY
    # The arena grows in large steps and never shrinks; a device pays for it all day.
    options.enable_cpu_mem_arena = False
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    # onnxruntime raises a dozen classes that share no base but Exception.
    except Exception as exc:
        reason = " ".join(str(exc).split())[:300]
        raise InstallError("loading the artifact", "a file for ONNX Runtime", reason, "compile it again") from exc
    wanted = {tensor.tensor for tensor in tensors}
    found = {node.name for node in session.get_inputs()}
    missing = {tensor.tensor for tensor in outputs} - {node.name for node in session.get_outputs()}
    if wanted != found or missing:
        raise InstallError(
            "loading the artifact",
            f"the tensors {sorted(wanted)}",
            f"{sorted(found)}, without {sorted(missing)}",
            "compile it again",
        )
    return session


class _OrtModel:
    """A session; ONNX Runtime's Run is thread-safe.

    Attributes:
        executed_by: The runtime with its version, and the providers that the session really got, first choice first.
    """

    def __init__(self, path: Path, artifact: Artifact) -> None:
        self._inputs, self._outputs = artifact.inputs, artifact.outputs
        self._names = [tensor.tensor for tensor in artifact.outputs]
        self._batch = static_batch(artifact.inputs)
        self._session = _session(path, artifact.inputs, artifact.outputs)
        self.executed_by = f"ONNX Runtime {onnxruntime.__version__}, {', '.join(self._session.get_providers())}"

    def predict(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Return the schema's outputs for a batch of any size."""
        return in_batches(self._run, inputs, self._batch, self._inputs)

    def _run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        fed = {tensor.tensor: to_stored(inputs[tensor.name], tensor) for tensor in self._inputs}
        values = self._session.run(self._names, fed)
        return {tensor.name: from_stored(value, tensor) for tensor, value in zip(self._outputs, values, strict=True)}


class OrtRuntime:
    """The runtime ``onnxruntime``."""

    def load(self, path: Path, artifact: Artifact) -> LoadedModel:
        """Load an artifact."""
        model = _OrtModel(path, artifact)
        _log.info("the artifact for %s is run by %s", artifact.target, model.executed_by)
        return model

    def load_train_graph(self, path: Path, graph: TrainGraph) -> TrainStep:
        """Load a train graph."""
        carried = (*graph.parameters, *(extra.tensor for extra in graph.extras))
        given = (*graph.updated, *(extra.output for extra in graph.extras if extra.output is not None))
        session = _session(path, (*graph.inputs, *graph.targets, graph.learning_rate, *carried), (graph.loss, *given))
        names = [graph.loss.tensor, *(tensor.tensor for tensor in given)]

        def step(
            inputs: Mapping[str, NDArray[Any]],
            wanted: Mapping[str, NDArray[Any]],
            learning_rate: float,
            parameters: Mapping[str, NDArray[Any]],
        ) -> tuple[float, Arrays]:
            values = {tensor.tensor: to_stored(inputs[tensor.name], tensor) for tensor in graph.inputs}
            values |= {tensor.tensor: to_stored(parameters[tensor.name], tensor) for tensor in carried}
            values |= {tensor.tensor: to_stored(wanted[tensor.name], tensor) for tensor in graph.targets}
            values[graph.learning_rate.tensor] = np.full(
                graph.learning_rate.shape, learning_rate, dtype=graph.learning_rate.dtype
            )
            loss, *updated = session.run(names, values)
            return float(np.asarray(loss).reshape(-1)[0]), {
                tensor.name: value for tensor, value in zip(given, updated, strict=True)
            }

        return step
