"""Local training: the train graph over the labelled buffer, one epoch of batches after another. No I/O of its own."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hedgerow.batches import batch_indices
from hedgerow.client.errors import TrainingError
from hedgerow.client.runtimes import TrainStep
from hedgerow.manifest.train_graph import Extra, TrainGraph
from hedgerow.weights import Arrays

__all__ = ["Samples", "TrainedWeights", "train"]


class Samples(Protocol):
    """Samples to learn from in a fixed order (see :class:`hedgerow.client.buffer.LabelledSamples`)."""

    def __len__(self) -> int: ...

    def read(self, indices: NDArray[np.int64]) -> tuple[Arrays, Arrays]:
        """Return the inputs by name and the target values by output of the samples at *indices*."""


@dataclass(frozen=True, slots=True)
class TrainedWeights:
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
    proximal_mu: float = 0.0,
    control: Mapping[str, NDArray[Any]] | None = None,
) -> TrainedWeights:
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
        proximal_mu: Weight of FedProx's term, which pulls towards *weights*; above zero the graph must hold the term.
        control: Name of a parameter -> the server's control variate minus this device's (SCAFFOLD); absent ones are
            zero.

    The optimizer's state starts at zero and lives as long as the call. Masks are drawn from a generator that *rng*
    spawns, so that the order of the samples is the same with and without them.

    Raises:
        TrainingError: There are no samples, the weights or the samples' target values do not fit the graph, the graph
            lacks a term that is asked for, or training diverged.
    """
    if len(samples) == 0:
        raise TrainingError("expected labelled samples to train on, found none; label some on this device")
    parameters = _parameters(graph, weights)
    extras = _extras(graph, parameters, proximal_mu, control or {})
    masks = [extra for extra in graph.extras if extra.kind == "mask"]
    drawn = rng.spawn(1)[0] if masks else rng
    losses = []
    for _ in range(epochs):
        for chosen in batch_indices(len(samples), graph.batch_size, rng):
            proceed()
            inputs, wanted = samples.read(chosen)
            _check_targets(graph, wanted)
            extras |= {mask.tensor.name: _mask(mask, drawn) for mask in masks}
            loss, found = step(inputs, wanted, learning_rate, {**parameters, **extras})
            parameters |= {name: found[name] for name in parameters if name in found}
            extras |= {name: found[name] for name in extras if name in found}
            losses.append(loss)
    if not all(np.isfinite(value).all() for value in (np.asarray(losses), *parameters.values())):
        raise TrainingError(
            f"expected finite weights after {len(losses)} steps, found NaN or infinity; lower the learning rate"
        )
    changed = {
        name: value.reshape(weights[name].shape).astype(weights[name].dtype, copy=False)
        for name, value in parameters.items()
    }
    return TrainedWeights({**weights, **changed}, len(samples), float(np.mean(losses)))


def _check_targets(graph: TrainGraph, wanted: Mapping[str, NDArray[Any]]) -> None:
    for tensor in graph.targets:
        found = wanted.get(tensor.name)
        is_float = tensor.dtype.startswith("float")
        if found is None or found.size != int(np.prod(tensor.shape)) or is_float != (found.dtype.kind == "f"):
            told = "none" if found is None else f"{found.dtype}{list(found.shape)}"
            raise TrainingError(
                f"expected a train graph that learns what the release's outputs say, found one that wants "
                f"{tensor.dtype}{list(tensor.shape)} for {tensor.name} where the samples have {told}; compile another "
                "into the release"
            )


def _extras(
    graph: TrainGraph, anchors: Mapping[str, NDArray[Any]], proximal_mu: float, control: Mapping[str, NDArray[Any]]
) -> Arrays:
    """Return the extra inputs of the first step but the masks; the anchors are the parameters that it starts from."""
    held = {extra.kind for extra in graph.extras}
    for kind, wanted in (("proximal_mu", proximal_mu != 0), ("control", bool(control))):
        if wanted and kind not in held:
            raise TrainingError(
                f"expected a train graph with the input {kind}, found none in it; compile one that has it"
            )
    found: Arrays = {}
    for extra in graph.extras:
        if extra.kind == "mask":
            continue
        value: Any = np.zeros(())
        if extra.kind == "proximal_mu":
            value = np.asarray(proximal_mu)
        elif extra.parameter is not None:
            value = (anchors if extra.kind == "anchor" else control).get(extra.parameter, value)
        shape, dtype = extra.tensor.shape, np.dtype(extra.tensor.dtype)
        if value.ndim and value.size != int(np.prod(shape)):
            raise TrainingError(
                f"expected for {extra.tensor.name} an array of shape {shape}, found {value.shape}; send this release's"
            )
        found[extra.tensor.name] = (
            np.full(shape, value, dtype) if not value.ndim else value.reshape(shape).astype(dtype)
        )
    return found


def _mask(extra: Extra, rng: np.random.Generator) -> NDArray[Any]:
    kept: NDArray[Any] = rng.random(extra.tensor.shape) < extra.keep
    return kept.astype(extra.tensor.dtype)


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
