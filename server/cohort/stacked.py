"""The weights and optimizer state of the rows of a cohort, and how a step changes them in place. Needs torch."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from hedgerow.local_work import LocalWork, Optimizer
from hedgerow.server.local_steps import ADAM_BETAS, ADAM_EPSILON

__all__ = ["Rows", "StackedState", "StepRule", "adam_rates"]


@dataclass(frozen=True, slots=True)
class StepRule:
    """What a step does besides following the gradient of the loss."""

    optimizer: str
    learning_rate: float
    momentum: float
    weight_decay: float
    proximal_mu: float
    corrected: bool

    @classmethod
    def of(cls, work: LocalWork, *, corrected: bool) -> "StepRule":
        """Take it from the round's work."""
        return cls(
            work.optimizer, work.learning_rate, work.momentum, work.weight_decay, work.proximal_mu, corrected=corrected
        )

    @property
    def plain(self) -> bool:
        """Tell whether it is plain SGD, which a traced step takes itself."""
        extras = self.momentum or self.weight_decay or self.proximal_mu or self.corrected
        return self.optimizer == Optimizer.SGD and not extras

    @property
    def moments(self) -> int:
        """Return how many tensors of the parameters' size the optimizer keeps."""
        return 2 if self.optimizer == Optimizer.ADAM else int(self.momentum != 0)


class StackedState:
    """Everything of *capacity* clients that a step changes.

    Attributes:
        trained: Each trained parameter, stacked.
        buffers: Each buffer, stacked.
        loss_sums: What the losses of each row add up to so far.
        rates: Adam's step size and spread for the step, which depend on its number.
    """

    def __init__(
        self, trained: Sequence[torch.Tensor], buffers: Sequence[torch.Tensor], capacity: int, rule: StepRule
    ) -> None:
        self.capacity = capacity
        self.trained = [tensor.new_empty((capacity, *tensor.shape)) for tensor in trained]
        self.buffers = [tensor.new_empty((capacity, *tensor.shape)) for tensor in buffers]
        self.anchors = [torch.empty_like(tensor, requires_grad=False) for tensor in trained]
        self.loss_sums = self.anchors[0].new_zeros(capacity)
        self.rates = self.anchors[0].new_zeros(2)
        self._corrections = [torch.zeros_like(stack) for stack in self.trained] if rule.corrected else []
        self._moments = [[torch.empty_like(stack) for stack in self.trained] for _ in range(rule.moments)]

    def suits(self, rule: StepRule) -> bool:
        """Tell whether it holds the tensors that *rule* needs."""
        return len(self._moments) >= rule.moments and len(self._corrections) >= int(rule.corrected)

    def fill(
        self,
        trained: Sequence[torch.Tensor],
        buffers: Sequence[torch.Tensor],
        corrections: Sequence[torch.Tensor],
    ) -> None:
        """Start every row from the same weights, with fresh optimizer state."""
        for stack, tensor in zip([*self.trained, *self.buffers], [*trained, *buffers], strict=True):
            stack.copy_(tensor.expand_as(stack))
        torch._foreach_copy_(self.anchors, list(trained))
        for moment in self._moments:
            torch._foreach_zero_(moment)
        for stack, tensor in zip(self._corrections, corrections, strict=False):
            stack[: len(tensor)] = tensor
        self.loss_sums.zero_()

    def first(self, rows: int) -> "Rows":
        """Return views of the first *rows* rows."""
        return Rows(
            trained=[tensor[:rows] for tensor in self.trained],
            buffers=[tensor[:rows] for tensor in self.buffers],
            anchors=self.anchors,
            corrections=[tensor[:rows] for tensor in self._corrections],
            moments=[[tensor[:rows] for tensor in moment] for moment in self._moments],
            loss_sums=self.loss_sums[:rows],
            rates=self.rates,
        )


@dataclass(frozen=True, slots=True)
class Rows:
    """Views of the first rows of a :class:`StackedState`."""

    trained: list[torch.Tensor]
    buffers: list[torch.Tensor]
    anchors: list[torch.Tensor]
    corrections: list[torch.Tensor]
    moments: list[list[torch.Tensor]]
    loss_sums: torch.Tensor
    rates: torch.Tensor

    def update(self, gradients: list[torch.Tensor], rule: StepRule) -> None:
        """Take a step of *rule*; *gradients* are used up."""
        if rule.proximal_mu:
            pulls = [now - sent for now, sent in zip(self.trained, self.anchors, strict=True)]
            torch._foreach_add_(gradients, pulls, alpha=rule.proximal_mu)
        if rule.corrected:
            torch._foreach_add_(gradients, self.corrections)
        if rule.weight_decay:
            torch._foreach_add_(gradients, self.trained, alpha=rule.weight_decay)
        if rule.optimizer == Optimizer.ADAM:
            self._adam(gradients)
            return
        if rule.momentum:
            torch._foreach_mul_(self.moments[0], rule.momentum)
            torch._foreach_add_(self.moments[0], gradients)
            gradients = self.moments[0]
        torch._foreach_add_(self.trained, gradients, alpha=-rule.learning_rate)

    def _adam(self, gradients: list[torch.Tensor]) -> None:
        first, second = ADAM_BETAS
        means, squares = self.moments
        rate, spread = self.rates.unbind()
        torch._foreach_lerp_(means, gradients, 1 - first)
        torch._foreach_mul_(squares, second)
        torch._foreach_addcmul_(squares, gradients, gradients, value=1 - second)
        for tensor, mean, square in zip(self.trained, means, squares, strict=True):
            tensor.sub_(square.sqrt().div_(spread).add_(ADAM_EPSILON).reciprocal_().mul_(mean).mul_(rate))


def adam_rates(learning_rate: float, steps: int) -> Sequence[tuple[float, float]]:
    """Return Adam's step size and the divisor of the root of its squares, for each step."""
    first, second = ADAM_BETAS
    numbers = range(1, steps + 1)
    return [(learning_rate / (1 - first**step), (1 - second**step) ** 0.5) for step in numbers]
