"""Softmax regression in numpy as a runtime: the public fake of the runtime seam, for tests and simulations.

An artifact or a train graph is a safetensors file; an artifact holds ``weight`` ``(features, classes)`` and ``bias``
``(classes)``, a train graph nothing but a marker. It is not in the table of runtimes; pass :func:`load_linear`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hedgerow.client.errors import InstallError
from hedgerow.client.runtimes.base import LoadedModel, Runtime, TrainStep
from hedgerow.errors import DecodeError, UnknownNameError
from hedgerow.manifest.artifact import Artifact
from hedgerow.manifest.train_graph import TrainGraph
from hedgerow.weights import Arrays, decode_arrays

__all__ = ["LINEAR", "LinearRuntime", "load_linear"]

LINEAR = "linear"
_LIMIT_BYTES = 2**24


def _softmax(values: NDArray[np.float32]) -> NDArray[np.float32]:
    powers = np.exp(values - values.max(axis=1, keepdims=True))
    shares: NDArray[np.float32] = powers / powers.sum(axis=1, keepdims=True)
    return shares


class _LinearModel:
    """Weights in memory."""

    def __init__(self, path: Path, artifact: Artifact) -> None:
        try:
            arrays = decode_arrays(path.read_bytes(), "the artifact", limit_bytes=_LIMIT_BYTES)
            self._weight, self._bias = arrays["weight"], arrays["bias"]
        except (DecodeError, KeyError) as exc:
            raise InstallError("loading the artifact", "weight and bias", str(exc), "compile it again") from exc
        self._input, self._output = artifact.inputs[0].name, artifact.outputs[0].name

    def predict(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Return the probabilities of a batch of any size."""
        values = inputs[self._input]
        return {self._output: _softmax(values.reshape(len(values), len(self._weight)) @ self._weight + self._bias)}


class LinearRuntime:
    """The runtime ``linear``."""

    def load(self, path: Path, artifact: Artifact) -> LoadedModel:
        """Load an artifact."""
        return _LinearModel(path, artifact)

    def load_train_graph(self, path: Path, graph: TrainGraph) -> TrainStep:
        """Return one step of gradient descent on the cross-entropy."""
        if not path.is_file():
            raise InstallError("loading the train graph", f"a file at {path}", "none")
        name, output = graph.inputs[0].name, graph.targets[0].name
        weight_name, bias_name = (tensor.name for tensor in graph.parameters)

        def step(
            inputs: Mapping[str, NDArray[Any]],
            wanted: Mapping[str, NDArray[Any]],
            learning_rate: float,
            parameters: Mapping[str, NDArray[Any]],
        ) -> tuple[float, Arrays]:
            labels = wanted[output]
            values = inputs[name].reshape(len(labels), -1)
            weight, bias = parameters[weight_name], parameters[bias_name]
            shares = _softmax(values @ weight + bias)
            rows = np.arange(len(labels))
            loss = float(-np.log(shares[rows, labels]).mean())
            shares[rows, labels] -= 1
            gradient = shares / len(labels)
            rate = np.float32(learning_rate)
            return loss, {
                weight_name: weight - rate * (values.T @ gradient),
                bias_name: bias - rate * gradient.sum(axis=0),
            }

        return step


def load_linear(name: str) -> Runtime:
    """Return the fake, under its own name only.

    Raises:
        UnknownNameError: The name is not ``linear``.
    """
    if name != LINEAR:
        raise UnknownNameError("runtime", name, (LINEAR,))
    return LinearRuntime()
