"""What pre-processing in 8 bits would cost: whether the features of a task are alike enough to share one scale."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx

from hedgerow.compile.preparation.halves import Halves

__all__ = ["MOST_STEPS", "are_unlike", "steps_lost"]

MOST_STEPS = 4.0
"""So far may 8 bits before the model move what it takes, in steps of what it takes in 8 bits: two of the eight bits.
Rounding alone moves it by half a step for each operator, so images that are shifted and divided stay below."""
_SAMPLES = 256
_LEVELS = 255


def are_unlike(halves: Halves, inputs: Mapping[str, NDArray[Any]]) -> bool:
    """Say whether pre-processing in integers would lose what the model needs.

    Args:
        halves: Of the task.
        inputs: The task's inputs of some samples, such as those that quantizers calibrate with.
    """
    return not steps_lost(halves, inputs) <= MOST_STEPS


def steps_lost(halves: Halves, inputs: Mapping[str, NDArray[Any]]) -> float:
    """Return how far 8 bits in every float tensor before the model move any number that it takes.

    Each tensor is rounded with one scale for all of it, from its extremes over the samples, as quantizers do it.

    Args:
        halves: Of the task.
        inputs: As in :func:`are_unlike`.

    Returns:
        Steps of the tensor that the model takes, with one scale in 8 bits; infinity where a number is not finite.
    """
    count = min(_SAMPLES, len(next(iter(inputs.values()))))
    samples = tuple(
        torch.from_numpy(np.require(inputs[spec.name][:count], requirements=["C", "W"]))
        for spec in halves.schema.inputs
    )
    program = torch.export.export(halves.module, samples).module()
    if not isinstance(program, fx.GraphModule):
        raise TypeError(f"expected a graph of the pre-processing, found {type(program).__name__}")
    rounded = _Rounded(program)
    with torch.no_grad():
        wanted = rounded.run(*samples)
        if rounded.is_open:
            return math.inf
        rounded.rounds = True
        found = rounded.run(*samples)
    return max((_distance(one, other) for one, other in zip(wanted, found, strict=True)), default=0.0)


class _Rounded(fx.Interpreter):
    """Runs a graph twice: to find the extremes of its float tensors, then with each of them rounded in between.

    Attributes:
        rounds: Whether it is the second time.
        is_open: Whether an extreme is not finite, so that no scale can be.
    """

    def __init__(self, program: fx.GraphModule) -> None:
        super().__init__(program)
        self.rounds = self.is_open = False
        self._ranges: dict[str, tuple[float, float]] = {}

    def run_node(self, n: fx.Node) -> Any:
        """Run one operator."""
        found = super().run_node(n)
        if n.op not in {"placeholder", "call_function"} or not isinstance(found, torch.Tensor):
            return found
        if not found.is_floating_point() or found.numel() == 0:
            return found
        if not self.rounds:
            low, high = (float(extreme) for extreme in torch.aminmax(found))
            self._ranges[n.name] = min(low, 0.0), max(high, 0.0)
            self.is_open |= not (math.isfinite(low) and math.isfinite(high))
            return found
        low, high = self._ranges[n.name]
        scale = (high - low) / _LEVELS
        return (torch.round(found / scale) * scale).clamp(low, high) if scale else found


def _distance(wanted: torch.Tensor, found: torch.Tensor) -> float:
    if not wanted.is_floating_point():
        return 0.0 if torch.equal(wanted, found) else math.inf
    if not bool(torch.isfinite(wanted).all() and torch.isfinite(found).all()):
        return math.inf
    step = float(wanted.max().clamp_min(0) - wanted.min().clamp_max(0)) / _LEVELS
    moved = float((wanted - found).abs().max())
    return moved / step if step else 0.0
