"""The seam between a round and the engine that trains its cohort. Needs torch for the arrays only."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from hedgerow.local_work import LocalWork

if TYPE_CHECKING:
    import torch

__all__ = ["CohortEngine", "CohortUpdate", "StackedWeights", "Weights"]

Weights = Mapping[str, "torch.Tensor"]
"""One model's parameters and buffers by name, on the engine's device."""

StackedWeights = Mapping[str, "torch.Tensor"]
"""The same for K clients: each tensor has K rows."""


@dataclass(frozen=True, slots=True)
class CohortUpdate:
    """What one slice of the cohort brought.

    Attributes:
        clients: Their numbers, in the order that was asked.
        examples: Samples of each, ``int64[K]``.
        losses: Mean loss over each one's steps, ``float64[K]``.
        norms: L2 norm of each one's update before clipping, ``float64[K]``.
        mean: The clients' new weights averaged by *examples*; None when each was asked for.
        each: The clients' new weights, stacked; None when only the mean was asked for.
    """

    clients: tuple[int, ...]
    examples: NDArray[np.int64]
    losses: NDArray[np.float64]
    norms: NDArray[np.float64]
    mean: Weights | None = None
    each: StackedWeights | None = None


class CohortEngine(Protocol):
    """Trains a cohort. Results equal the plain loop over clients (``SequentialEngine``) to 1e-5."""

    @property
    def name(self) -> str:
        """``sequential``, ``workers`` or ``vectorized``."""
        ...

    def train(
        self,
        weights: Weights,
        clients: Sequence[int],
        work: LocalWork,
        *,
        each: bool,
        corrections: StackedWeights | None = None,
    ) -> Iterator[CohortUpdate]:
        """Train *clients* from *weights*, slice by slice, in the order given.

        Args:
            weights: All parameters and buffers; not changed.
            clients: Numbers of virtual clients.
            work: What each does.
            each: Bring every client's weights instead of their mean.
            corrections: Added to every gradient of the client in the same row (SCAFFOLD's c - c_i, Karimireddy et al.
                2020, arXiv 1910.06378), by parameter name.
        """
        ...

    def close(self) -> None:
        """End what it started: processes, shared memory."""
        ...
