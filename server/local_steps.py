"""Local training of one client in torch: the same plain SGD steps that a device's train graph takes.

One model stays resident and is filled anew for each client and round; only the steps cost time. Needs torch.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hedgerow.batches import batch_indices
from hedgerow.task import Dataset, Task
from hedgerow.task_module import LogitsModule, loss_function
from hedgerow.weights import Arrays

__all__ = ["LocalTrainer", "LocalWork", "draws_random_numbers", "torch_threads"]


@contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """Let torch use *threads* threads inside the block.

    Small models are bound by the cost of starting an operation, so one thread is the fastest; sums of floats depend on
    the number, so one number must be kept for runs that are to be equal.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalWork:
    """What one client does in one round.

    Attributes:
        epochs: Passes over its samples.
        learning_rate: Step size of plain SGD.
        batch_size: Samples of a step.
        seed: Of the order of samples, as ``hedgerow.batches.client_seed`` makes it.
        proximal_mu: Weight of FedProx's term mu/2 |w - w_global|^2 (Li et al. 2020, arXiv 1812.06127); 0: none.
    """

    epochs: int
    learning_rate: float
    batch_size: int
    seed: int
    proximal_mu: float = 0.0


def draws_random_numbers(task: Task, dataset: Dataset) -> bool:
    """Tell whether the task's model or pre-processing draws from torch's generator in a training step."""
    module = LogitsModule(task, task.model()).train()
    inputs = [torch.from_numpy(np.ascontiguousarray(dataset.inputs[spec.name][:2])) for spec in task.inputs]
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        before = torch.get_rng_state()
        module(*inputs)
        return not torch.equal(before, torch.get_rng_state())


class LocalTrainer:
    """Takes local steps for any number of clients of one task, one after the other, with one resident model.

    A model that draws random numbers while it trains (dropout) draws them from torch's global generator, which is
    seeded for each client and round when *reseeds* is true; such models must not be trained by several threads.
    """

    def __init__(self, task: Task, *, reseeds: bool = True) -> None:
        self._task = task
        self._reseeds = reseeds
        self._model = task.model().train()
        self._logits = LogitsModule(task, self._model).train()
        self._loss = loss_function(task)
        self._tensors = dict(self._model.state_dict())
        self._parameters = [parameter for parameter in self._model.parameters() if parameter.requires_grad]

    def train(self, weights: Mapping[str, NDArray[Any]], dataset: Dataset, work: LocalWork) -> tuple[Arrays, float]:
        """Train from *weights* on *dataset*.

        Args:
            weights: All parameters and buffers by name; floats of any width.
            dataset: The client's samples.
            work: What to do.

        Returns:
            The new weights, in the order of *weights*, and the mean loss over all steps.

        Raises:
            ValueError: The names or shapes are another model's, or the data set is empty.
        """
        if not self._reseeds:
            return self._train(weights, dataset, work)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(work.seed)
            return self._train(weights, dataset, work)

    def _train(self, weights: Mapping[str, NDArray[Any]], dataset: Dataset, work: LocalWork) -> tuple[Arrays, float]:
        self._fill(weights)
        anchors = [parameter.detach().clone() for parameter in self._parameters] if work.proximal_mu else []
        inputs = [torch.from_numpy(np.ascontiguousarray(dataset.inputs[spec.name])) for spec in self._task.inputs]
        labels = torch.from_numpy(np.ascontiguousarray(dataset.labels))
        rng = np.random.default_rng(work.seed)
        losses = []
        for _ in range(work.epochs):
            indices = batch_indices(len(dataset), work.batch_size, rng)
            order = torch.from_numpy(indices.reshape(-1))
            # Gathered once an epoch: slicing views is much cheaper than gathering at each of many small steps.
            batches = [torch.split(tensor[order], work.batch_size) for tensor in [*inputs, labels]]
            for *batch_inputs, batch_labels in zip(*batches, strict=True):
                loss = self._loss(self._logits(*batch_inputs), batch_labels)
                gradients = torch.autograd.grad(loss, self._parameters)
                self._step(gradients, anchors, work)
                losses.append(loss.detach())
        return {name: self._tensors[name].numpy().copy() for name in weights}, float(torch.stack(losses).mean())

    def _fill(self, weights: Mapping[str, NDArray[Any]]) -> None:
        if set(weights) != set(self._tensors):
            differing = sorted(set(weights) ^ set(self._tensors))
            raise ValueError(f"the weights are another model's: {', '.join(differing[:5])}")
        with torch.no_grad():
            for name, tensor in self._tensors.items():
                array = weights[name]
                if array.shape != tuple(tensor.shape):
                    raise ValueError(f"{name} has the shape {array.shape}, the model {tuple(tensor.shape)}")
                tensor.copy_(torch.from_numpy(np.array(array)))

    def _step(self, gradients: tuple[torch.Tensor, ...], anchors: list[torch.Tensor], work: LocalWork) -> None:
        with torch.no_grad():
            if anchors:
                for parameter, gradient, anchor in zip(self._parameters, gradients, anchors, strict=True):
                    gradient.add_(parameter - anchor, alpha=work.proximal_mu)
            for parameter, gradient in zip(self._parameters, gradients, strict=True):
                parameter.add_(gradient, alpha=-work.learning_rate)
