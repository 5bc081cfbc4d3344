"""Local training of one client in torch: the plain SGD steps of a device's train graph, and what simulation adds.

One model stays resident and is filled anew for each client and round; only the steps cost time. Needs torch.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hedgerow.batches import batch_indices
from hedgerow.local_work import LocalWork, Optimizer
from hedgerow.task import Dataset, Task
from hedgerow.task_losses import loss_function
from hedgerow.task_module import LogitsModule, as_given, parts_of, wanted_tensors
from hedgerow.weights import Arrays

__all__ = [
    "ADAM_BETAS",
    "ADAM_EPSILON",
    "OPTIMIZER_STEPS",
    "GradientTerms",
    "LocalTrainer",
    "StepsTaken",
    "draws_random_numbers",
    "torch_threads",
    "unshared",
]

ADAM_BETAS = (0.9, 0.999)
ADAM_EPSILON = 1e-8


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


@dataclass(frozen=True, slots=True)
class StepsTaken:
    """What a client's steps came to.

    Attributes:
        loss: The mean over all steps.
        norm: L2 norm of the update of all floats together, before clipping.
    """

    loss: float
    norm: float


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

    Attributes:
        model: The resident model, in training mode.
        tensors: The model's parameters and buffers by name; after :meth:`take_steps` they hold the new weights.
        parameters: Names of those that are trained.
    """

    def __init__(self, task: Task, *, reseeds: bool = True, device: str = "cpu") -> None:
        self._task = task
        self._reseeds = reseeds
        self.model = task.model().train().to(device)
        self._logits = LogitsModule(task, self.model).train()
        self._loss = loss_function(task)
        self.tensors: Mapping[str, torch.Tensor] = dict(self.model.state_dict())
        trained = {name: value for name, value in self.model.named_parameters() if value.requires_grad}
        self.parameters = tuple(trained)
        self._parameters = list(trained.values())

    def train(
        self, weights: Mapping[str, NDArray[np.generic]], dataset: Dataset, work: LocalWork
    ) -> tuple[Arrays, float]:
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
        sent = {name: torch.from_numpy(np.array(array)) for name, array in weights.items()}
        inputs = [torch.from_numpy(np.ascontiguousarray(dataset.inputs[spec.name])) for spec in self._task.inputs]
        taken = self.take_steps(sent, inputs, wanted_tensors(self._task, dataset), work)
        return {name: self.tensors[name].numpy().copy() for name in weights}, taken.loss

    def take_steps(
        self,
        weights: Mapping[str, torch.Tensor],
        inputs: Sequence[torch.Tensor],
        wanted: Any,
        work: LocalWork,
        *,
        corrections: Mapping[str, torch.Tensor] | None = None,
        positions: torch.Tensor | None = None,
    ) -> StepsTaken:
        """Train from *weights* and leave the new ones in :attr:`tensors`.

        Args:
            weights: All parameters and buffers by name; not changed.
            inputs: The task's inputs, samples first, on the trainer's device.
            wanted: The target values, as :func:`hedgerow.task_module.wanted_tensors` returns them.
            work: What to do.
            corrections: Added to every gradient of the parameter of that name.
            positions: Where the client's samples lie in *inputs* and *wanted*, ``int64[n]``; None: all are its own.

        Raises:
            ValueError: The names or shapes are another model's, there is no sample, or the optimizer is unknown.
        """
        if not self._reseeds:
            return self._take_steps(weights, inputs, wanted, work, corrections or {}, positions)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(work.order_seed)
            return self._take_steps(weights, inputs, wanted, work, corrections or {}, positions)

    def _take_steps(
        self,
        weights: Mapping[str, torch.Tensor],
        inputs: Sequence[torch.Tensor],
        wanted: Any,
        work: LocalWork,
        corrections: Mapping[str, torch.Tensor],
        positions: torch.Tensor | None,
    ) -> StepsTaken:
        self._fill(weights)
        terms = GradientTerms(self._parameters, self.parameters, corrections, work)
        optimizer = OPTIMIZER_STEPS[work.optimizer](self._parameters, work)
        tensors = [*inputs, *parts_of(wanted)]
        samples = len(tensors[0]) if positions is None else len(positions)
        rng = np.random.default_rng(work.order_seed)
        losses = []
        for _ in range(work.epochs):
            order = torch.from_numpy(batch_indices(samples, work.batch_size, rng).reshape(-1)).to(tensors[0].device)
            chosen = order if positions is None else positions[order]
            # Gathered once an epoch: slicing views is much cheaper than gathering at each of many small steps.
            batches = [torch.split(tensor[chosen], work.batch_size) for tensor in tensors]
            for batch in zip(*batches, strict=True):
                given = self._logits(*batch[: len(inputs)])
                loss = self._loss(given, as_given(batch[len(inputs) :]))
                shared = torch.autograd.grad(loss, self._parameters, materialize_grads=True)
                with torch.no_grad():
                    gradients = unshared(shared)
                    terms.add_to(gradients)
                    optimizer.step(gradients)
                losses.append(loss.detach())
        return StepsTaken(float(torch.stack(losses).mean()), self._clip(weights, work.clip_norm))

    def _fill(self, weights: Mapping[str, torch.Tensor]) -> None:
        if set(weights) != set(self.tensors):
            differing = sorted(set(weights) ^ set(self.tensors))
            raise ValueError(f"the weights are another model's: {', '.join(differing[:5])}")
        with torch.no_grad():
            for name, tensor in self.tensors.items():
                if weights[name].shape != tensor.shape:
                    raise ValueError(
                        f"{name} has the shape {tuple(weights[name].shape)}, the model {tuple(tensor.shape)}"
                    )
                tensor.copy_(weights[name])

    def _clip(self, weights: Mapping[str, torch.Tensor], clip_norm: float | None) -> float:
        with torch.no_grad():
            # A tensor that the state names twice is one.
            names = {tensor.data_ptr(): name for name, tensor in self.tensors.items() if tensor.is_floating_point()}
            sent = {name: weights[name] for name in names.values()}
            norms = torch.stack([torch.linalg.vector_norm(self.tensors[name] - old) for name, old in sent.items()])
            norm = float(torch.linalg.vector_norm(norms))
            if clip_norm is not None and norm > clip_norm:
                for name, old in sent.items():
                    self.tensors[name].sub_(old).mul_(clip_norm / norm).add_(old)
        return norm


def unshared(gradients: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Return gradients that can be changed in place one by one.

    Autograd gives the same tensor to parameters that the model adds, and one number for all of a sum's.
    """
    seen: set[int] = set()
    own = []
    for gradient in gradients:
        taken = gradient.data_ptr() in seen or 0 in gradient.stride()
        own.append(gradient.clone() if taken else gradient)
        seen.add(own[-1].data_ptr())
    return own


class GradientTerms:
    """What is added to the gradient of the loss: FedProx's pull to the sent weights, and corrections."""

    def __init__(
        self,
        parameters: Sequence[torch.Tensor],
        names: Sequence[str],
        corrections: Mapping[str, torch.Tensor],
        work: LocalWork,
    ) -> None:
        self._parameters, self._mu = parameters, work.proximal_mu
        # Copies: weights may be of another width.
        self._anchors = [parameter.detach().clone() for parameter in parameters] if work.proximal_mu else []
        self._corrections = [(row, corrections[name]) for row, name in enumerate(names) if name in corrections]

    def add_to(self, gradients: Sequence[torch.Tensor]) -> None:
        """Change *gradients* in place."""
        if self._anchors:
            for parameter, gradient, anchor in zip(self._parameters, gradients, self._anchors, strict=True):
                gradient.add_(parameter - anchor, alpha=self._mu)
        for row, correction in self._corrections:
            gradients[row].add_(correction)


class _Sgd:
    """``torch.optim.SGD`` written out, without its cost for each call."""

    def __init__(self, parameters: Sequence[torch.Tensor], work: LocalWork) -> None:
        self._parameters, self._work = parameters, work
        self._velocities = [torch.zeros_like(parameter) for parameter in parameters] if work.momentum else []

    def step(self, gradients: Sequence[torch.Tensor]) -> None:
        """Change the parameters in place."""
        work = self._work
        if work.weight_decay:
            for parameter, gradient in zip(self._parameters, gradients, strict=True):
                gradient.add_(parameter, alpha=work.weight_decay)
        for velocity, gradient in zip(self._velocities, gradients, strict=bool(self._velocities)):
            velocity.mul_(work.momentum).add_(gradient)
        for parameter, change in zip(self._parameters, self._velocities or gradients, strict=True):
            parameter.add_(change, alpha=-work.learning_rate)


class _Adam:
    """``torch.optim.Adam`` with its defaults, written out."""

    def __init__(self, parameters: Sequence[torch.Tensor], work: LocalWork) -> None:
        self._parameters, self._work, self._steps = parameters, work, 0
        self._means = [torch.zeros_like(parameter) for parameter in parameters]
        self._squares = [torch.zeros_like(parameter) for parameter in parameters]

    def step(self, gradients: Sequence[torch.Tensor]) -> None:
        """Change the parameters in place."""
        self._steps += 1
        first, second = ADAM_BETAS
        rate = -self._work.learning_rate / (1 - first**self._steps)
        spread = (1 - second**self._steps) ** 0.5
        states = zip(self._parameters, gradients, self._means, self._squares, strict=True)
        for parameter, gradient, mean, square in states:
            if self._work.weight_decay:
                gradient.add_(parameter, alpha=self._work.weight_decay)
            mean.lerp_(gradient, 1 - first)
            square.mul_(second).addcmul_(gradient, gradient, value=1 - second)
            parameter.addcdiv_(mean, square.sqrt().div_(spread).add_(ADAM_EPSILON), value=rate)


OPTIMIZER_STEPS: Mapping[str, type[_Sgd] | type[_Adam]] = {Optimizer.SGD: _Sgd, Optimizer.ADAM: _Adam}
