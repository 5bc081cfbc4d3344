"""What a cohort does in one round, and what comes of it. Needs torch for the arrays only."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

__all__ = ["CohortEngine", "CohortUpdate", "CohortWork", "StackedWeights", "Weights"]

Weights = Mapping[str, "torch.Tensor"]
"""One model's parameters and buffers by name, on the engine's device."""

StackedWeights = Mapping[str, "torch.Tensor"]
"""The same for K clients: each tensor has K rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CohortWork:
    """What every client of a cohort does in one round.

    Attributes:
        round: From 1; with *seed* and the client's number it gives the order of samples (``hedgerow.batches``).
        seed: Of the run.
        epochs: Passes over a client's samples.
        learning_rate: Step size.
        batch_size: Samples of a step; every batch is full, as ``hedgerow.batches.batch_indices`` makes them.
        optimizer: ``sgd`` or ``adam`` (Kingma and Ba 2015, torch's defaults), with fresh state each round.
        momentum: Of SGD, as in ``torch.optim.SGD``.
        weight_decay: L2 term added to the gradient.
        proximal_mu: FedProx's term mu/2 |w - w_global|^2 (Li et al. 2020, arXiv 1812.06127); 0: none.
        clip_norm: The update (new minus sent weights, floats only, over all tensors) is scaled down to this L2 norm
            (McMahan et al. 2018, arXiv 1710.06963); None: not clipped.
        epochs_of: Epochs of clients that do fewer or more, by their number (stragglers' partial work).
    """

    round: int
    seed: int
    epochs: int
    learning_rate: float
    batch_size: int
    optimizer: str = "sgd"
    momentum: float = 0.0
    weight_decay: float = 0.0
    proximal_mu: float = 0.0
    clip_norm: float | None = None
    epochs_of: Mapping[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.optimizer not in {"sgd", "adam"}:
            raise ValueError(f"expected the optimizer sgd or adam, found {self.optimizer!r}")
        if min((self.epochs, *self.epochs_of.values())) < 1:
            raise ValueError("expected at least one epoch for each client")


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
        work: CohortWork,
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
