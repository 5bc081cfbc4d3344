"""Local training: the train graph over the labelled buffer, one epoch of batches after another. No I/O of its own."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hedgerow.batches import batch_indices
from hedgerow.client.errors import TrainingError
from hedgerow.client.runtimes import TrainStep
from hedgerow.manifest import TrainGraph
from hedgerow.weights import Arrays

__all__ = ["Samples", "TrainResult", "train"]


class Samples(Protocol):
    """Labelled samples in a fixed order (see :class:`hedgerow.client.buffer.LabelledSamples`)."""

    def __len__(self) -> int: ...

    def read(self, indices: NDArray[np.int64]) -> tuple[Arrays, NDArray[np.int64]]:
        """Return the inputs by name and the ``int64`` labels of the samples at *indices*."""


@dataclass(frozen=True, slots=True)
class TrainResult:
    """What training gave.

    Attributes:
        weights: All arrays that went in, the parameters among them changed.
        examples: Samples trained on.
        loss: Mean loss over all steps, each before its update.
    """

    weights: Arrays
    examples: int
    loss: float


def train(
    step: TrainStep,
    graph: TrainGraph,
    samples: Samples,
    weights: Mapping[str, NDArray[Any]],
    *,
    epochs: int,
    learning_rate: float,
    rng: np.random.Generator,
    proceed: Callable[[], None] = lambda: None,
) -> TrainResult:
    """Train for *epochs* passes.

    Args:
        step: The loaded train graph.
        graph: Its description.
        samples: What to train on.
        weights: The global weights. Arrays that the graph does not train (such as running averages) pass through.
        epochs: Passes over the samples.
        learning_rate: Step size.
        rng: Decides the order.
        proceed: Called before each step; raises to end the training.

    Raises:
        TrainingError: There are no samples, the weights do not fit the graph, or training diverged.
    """
    if len(samples) == 0:
        raise TrainingError("expected labelled samples to train on, found none; label some on this device")
    parameters = _parameters(graph, weights)
    losses = []
    for _ in range(epochs):
        for chosen in batch_indices(len(samples), graph.batch_size, rng):
            proceed()
            inputs, labels = samples.read(chosen)
            loss, parameters = step(inputs, labels, learning_rate, parameters)
            losses.append(loss)
    if not all(np.isfinite(value).all() for value in (np.asarray(losses), *parameters.values())):
        raise TrainingError(
            f"expected finite weights after {len(losses)} steps, found NaN or infinity; lower the learning rate"
        )
    changed = {
        name: value.reshape(weights[name].shape).astype(weights[name].dtype, copy=False)
        for name, value in parameters.items()
    }
    return TrainResult({**weights, **changed}, len(samples), float(np.mean(losses)))


def _parameters(graph: TrainGraph, weights: Mapping[str, NDArray[Any]]) -> Arrays:
    parameters = {}
    for tensor in graph.parameters:
        found = weights.get(tensor.name)
        if found is None or found.size != int(np.prod(tensor.shape)):
            shape = "none" if found is None else f"one of shape {found.shape}"
            raise TrainingError(
                f"expected a weight {tensor.name} of shape {tensor.shape}, found {shape}; send this release's"
            )
        parameters[tensor.name] = found.reshape(tensor.shape)
    return parameters
