"""An engine that trains nothing: the public fake of the seam, and what the cost of everything around is measured with.

Needs torch.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from hedgerow.local_work import LocalWork
from hedgerow.server.cohort.clients import ClientIndex
from hedgerow.server.cohort.engine import CohortUpdate, StackedWeights, Weights

__all__ = ["NullEngine"]


class NullEngine:
    """Answers with the weights it was given, each client's shifted by what *shift* says.

    Args:
        clients: Who owns how many samples.
        slices: So many clients are answered together; 0: all.
        shift: Client -> what is added to each of its float weights; None: nothing.
    """

    name = "null"
    device = "cpu"

    def __init__(self, clients: ClientIndex, *, slices: int = 0, shift: Callable[[int], float] | None = None) -> None:
        self._clients, self._slices, self._shift = clients, slices, shift
        self.asked: list[tuple[tuple[int, ...], LocalWork]] = []

    def train(
        self,
        weights: Weights,
        clients: Sequence[int],
        work: LocalWork,
        *,
        each: bool,
        corrections: StackedWeights | None = None,
    ) -> Iterator[CohortUpdate]:
        """Answer; see :class:`hedgerow.server.cohort.engine.CohortEngine`."""
        del corrections
        self.asked.append((tuple(clients), work))
        width = self._slices or len(clients)
        for start in range(0, len(clients), width):
            yield self._answer(weights, tuple(clients[start : start + width]), each=each)

    def close(self) -> None:
        """Nothing is to be ended."""

    def _answer(self, weights: Weights, clients: tuple[int, ...], *, each: bool) -> CohortUpdate:
        examples = np.array([self._clients.size(client) for client in clients], dtype=np.int64)
        shifts = np.array([self._shift(client) if self._shift is not None else 0.0 for client in clients])
        floats = {name: tensor for name, tensor in weights.items() if tensor.is_floating_point()}
        count = sum(tensor.numel() for tensor in floats.values())
        rows = (
            {name: tensor.expand(len(clients), *tensor.shape).clone() for name, tensor in weights.items()}
            if each
            else {}
        )
        for name in floats if each else ():
            for row, shift in enumerate(shifts.tolist()):
                rows[name][row] += shift
        mean = float(np.dot(shifts, examples) / examples.sum())
        return CohortUpdate(
            clients=clients,
            examples=examples,
            losses=np.ones(len(clients)),
            norms=np.abs(shifts) * np.sqrt(count),
            mean=None
            if each
            else {name: tensor + mean if name in floats else tensor for name, tensor in weights.items()},
            each=rows if each else None,
        )
