"""LiteRT, or on older devices its frozen predecessor tflite_runtime. Interpreters are not thread-safe, so they lock."""

import logging
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hedgerow.client.errors import InstallError
from hedgerow.client.runtimes.base import LoadedModel, TrainStep
from hedgerow.client.runtimes.static_batch import in_batches, static_batch
from hedgerow.manifest.artifact import Artifact
from hedgerow.manifest.content import Tensor
from hedgerow.manifest.train_graph import TrainGraph
from hedgerow.tensor_border import from_stored, to_stored
from hedgerow.weights import Arrays

try:
    from ai_edge_litert.interpreter import Interpreter
except ModuleNotFoundError:
    from tflite_runtime.interpreter import Interpreter

__all__ = ["LiteRtRuntime"]

_log = logging.getLogger(__name__)
# What the interpreter calls a node that stands for the operators that a delegate took.
_DELEGATED = "DELEGATE"


class _Graph:
    """One interpreter, fed and read by tensor index.

    The signature runner resizes and allocates on every call, which costs more than a small model itself; indices that
    were looked up once do not.
    """

    def __init__(self, path: Path, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        self._lock = threading.Lock()
        try:
            self._interpreter = Interpreter(model_path=str(path), num_threads=1)
            fed, given = self._details()
            self._inputs = [(tensor, _index(fed, tensor)) for tensor in inputs]
            self._outputs = [(tensor, _index(given, tensor)) for tensor in outputs]
            for tensor, index in self._inputs:
                # A file with a dynamic batch is run one sample at a time.
                shape = [size if size > 0 else 1 for size in tensor.shape]
                if list(self._shape(fed, tensor)) != shape:
                    self._interpreter.resize_tensor_input(index, shape)
            self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError, OSError) as exc:
            reason = " ".join(str(exc).split())[:300]
            raise InstallError("loading the artifact", "a file for LiteRT", reason, "compile it again") from exc

    def _details(self) -> tuple[dict[str, Any], dict[str, Any]]:
        signatures = self._interpreter.get_signature_list()
        if signatures:
            runner = self._interpreter.get_signature_runner(next(iter(signatures)))
            return runner.get_input_details(), runner.get_output_details()
        inputs, outputs = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        return {detail["name"]: detail for detail in inputs}, {detail["name"]: detail for detail in outputs}

    @staticmethod
    def _shape(details: Mapping[str, Any], tensor: Tensor) -> Iterable[int]:
        return (int(size) for size in details[tensor.tensor]["shape"])

    @property
    def delegate(self) -> str:
        """The delegate that took operators; the only one that LiteRT's Python package applies by itself is XNNPACK."""
        # There is no public way to ask.
        nodes: list[dict[str, Any]] = getattr(self._interpreter, "_get_ops_details", list)()
        return "XNNPACK delegate" if any(node["op_name"] == _DELEGATED for node in nodes) else "its own kernels"

    def run(self, values: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Return the outputs, by name, for inputs of exactly the allocated shapes, by name."""
        with self._lock:
            for tensor, index in self._inputs:
                self._interpreter.set_tensor(index, to_stored(values[tensor.name], tensor))
            self._interpreter.invoke()
            # get_tensor copies, so the next call does not change what the caller holds.
            return {tensor.name: from_stored(self._interpreter.get_tensor(i), tensor) for tensor, i in self._outputs}


def _index(details: Mapping[str, Any], tensor: Tensor) -> int:
    if tensor.tensor not in details:
        found = f"the tensors {', '.join(sorted(details))}"
        raise InstallError("loading the artifact", f"the tensor {tensor.tensor!r}", found, "compile it again")
    return int(details[tensor.tensor]["index"])


class _LiteRtModel:
    """An interpreter for predictions.

    Attributes:
        executed_by: The package, and the delegate that really took operators of the artifact.
    """

    def __init__(self, path: Path, artifact: Artifact) -> None:
        self._graph = _Graph(path, artifact.inputs, artifact.outputs)
        self._inputs = artifact.inputs
        self._batch = static_batch(artifact.inputs) or 1
        self.executed_by = f"{Interpreter.__module__.partition('.')[0]}, {self._graph.delegate}"

    def predict(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Return the schema's outputs for a batch of any size."""
        return in_batches(self._graph.run, inputs, self._batch, self._inputs)


# Parameters, target values and what surrounds them share one namespace in the interpreter; a prefix keeps those apart
# that are called like an input.
_PARAMETER, _TARGET = "parameter:", "target:"


def _prefixed(tensors: Iterable[Tensor], prefix: str = _PARAMETER) -> list[Tensor]:
    return [Tensor(prefix + t.name, t.tensor, t.shape, t.dtype, t.scale, t.zero_point) for t in tensors]


class LiteRtRuntime:
    """The runtime ``litert``."""

    def load(self, path: Path, artifact: Artifact) -> LoadedModel:
        """Load an artifact."""
        model = _LiteRtModel(path, artifact)
        _log.info("the artifact for %s is run by %s", artifact.target, model.executed_by)
        return model

    def load_train_graph(self, path: Path, graph: TrainGraph) -> TrainStep:
        """Load a train graph."""
        around = (*graph.inputs, *_prefixed(graph.targets, _TARGET), graph.learning_rate)
        carried = (*graph.parameters, *(extra.tensor for extra in graph.extras))
        given = (*graph.updated, *(extra.output for extra in graph.extras if extra.output is not None))
        loaded = _Graph(path, [*around, *_prefixed(carried)], [graph.loss, *_prefixed(given)])

        def step(
            inputs: Mapping[str, NDArray[Any]],
            wanted: Mapping[str, NDArray[Any]],
            learning_rate: float,
            parameters: Mapping[str, NDArray[Any]],
        ) -> tuple[float, Arrays]:
            values: dict[str, NDArray[Any]] = {_PARAMETER + name: value for name, value in parameters.items()}
            values |= {tensor.name: inputs[tensor.name] for tensor in graph.inputs}
            values |= {_TARGET + tensor.name: wanted[tensor.name] for tensor in graph.targets}
            values[graph.learning_rate.name] = np.full(graph.learning_rate.shape, learning_rate, dtype=np.float32)
            results = loaded.run(values)
            loss = float(results.pop(graph.loss.name).reshape(-1)[0])
            return loss, {name.removeprefix(_PARAMETER): value for name, value in results.items()}

        return step
