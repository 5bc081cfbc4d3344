"""What becomes of the rows of a stacked cohort when their clients are done: norms, clipping, mean or each. Needs torch.

A row is read once, at the end of its client's last step; what runs on in it afterwards touches nothing here.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from hedgerow.server.cohort.stacked import StackedState

__all__ = ["Results", "SentWeights"]


@dataclass(frozen=True, slots=True)
class SentWeights:
    """The weights that every client starts from, on the device: trained parameters and buffers."""

    trained: list[torch.Tensor]
    buffers: list[torch.Tensor]


class Results:
    """Takes finished rows.

    Args:
        sent: What they started from.
        places: Where each row stands in the order that was asked; ``int64[K]``.
        shares: Weight of each place in the mean, ``float32[K]``.
        clip_norm: Longer updates are scaled down to it.
        each: Keep every client's weights instead of their mean.

    Attributes:
        trained: New weights, stacked or averaged, as they are taken.
        buffers: New buffers, stacked or averaged in the same way.
        norms: How long each place's update is before clipping.
        losses: What the losses of each place's steps add up to.
    """

    def __init__(
        self, sent: SentWeights, places: torch.Tensor, shares: torch.Tensor, clip_norm: float | None, *, each: bool
    ) -> None:
        self._sent, self._places, self._shares = sent, places, shares
        self._clip_norm, self._each = clip_norm, each
        self.norms, self.losses = torch.zeros_like(shares), torch.zeros_like(shares)
        if each:
            self.trained = [tensor.new_empty((len(shares), *tensor.shape)) for tensor in sent.trained]
            self.buffers = [tensor.new_empty((len(shares), *tensor.shape)) for tensor in sent.buffers]
        else:
            self.trained = [tensor.detach().clone() for tensor in sent.trained]
            # Means of whole numbers are not whole.
            self.buffers = [t.clone() if t.is_floating_point() else t.to(shares.dtype) for t in sent.buffers]

    def take(self, state: StackedState, finished: range) -> None:
        """Take the *finished* rows of *state*; they lie side by side."""
        chosen = slice(finished.start, finished.stop)
        places = self._places[chosen]
        self.losses[places] = state.loss_sums[chosen].to(self.losses.dtype)
        pairs = [
            *zip(state.trained, self._sent.trained, self.trained, strict=True),
            *zip(state.buffers, self._sent.buffers, self.buffers, strict=True),
        ]
        changes = [stack[chosen] - sent for stack, sent, _result in pairs]
        scales = self._measure(changes, places)
        for (stack, sent, result), change in zip(pairs, changes, strict=True):
            clipped = scales if change.is_floating_point() else None
            if self._each:
                result[places] = stack[chosen] if clipped is None else _scaled(stack[chosen], sent, change, clipped)
            else:
                shares = self._shares[places] if clipped is None else self._shares[places] * clipped
                result.add_(_weighted_sum(change, shares))

    def _measure(self, changes: Sequence[torch.Tensor], places: torch.Tensor) -> torch.Tensor | None:
        """Record the norms; return the factor of each update where any is clipped."""
        parts = [
            torch.linalg.vector_norm(change.reshape(len(places), -1), dim=1)
            for change in changes
            if change.is_floating_point()
        ]
        norms = torch.linalg.vector_norm(torch.stack(parts).to(self.norms.dtype), dim=0)
        self.norms[places] = norms
        if self._clip_norm is None or not bool((norms > self._clip_norm).any()):
            return None
        return torch.clamp(self._clip_norm / norms, max=1.0)


def _scaled(rows: torch.Tensor, sent: torch.Tensor, change: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    factors = scales.to(rows.dtype).view(-1, *[1] * sent.dim())
    # Rows that are not clipped stay what they are, to the bit.
    return torch.where(factors < 1, sent + change * factors, rows)


def _weighted_sum(changes: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
    dtype = changes.dtype if changes.is_floating_point() else shares.dtype
    total: torch.Tensor = torch.mv(changes.reshape(len(changes), -1).to(dtype).T, shares.to(dtype))
    return total.view(changes.shape[1:])
