"""What a round's parent and its workers share: weights, work, results, and the sums of clients' weights. Needs torch.

Every client has a row of its own, and the mean is summed column by column over the rows in their order. So it depends
neither on how many workers there are nor on who was faster.
"""

import pickle
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hedgerow.local_work import LocalWork
from hedgerow.server.cohort.engine import StackedWeights, Weights
from hedgerow.server.cohort.shared_rows import ModelRow, RowLayout, shared_bytes

__all__ = ["SharedRound"]

_BLOCK = 2**15
"""Numbers that are summed at once: float64 sums and one row of them stay in a core's cache."""
_WORK_BYTES = 4096
_TEXT_BYTES = 4096


def _shared_array(dtype: str, *shape: int) -> NDArray[Any]:
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return shared_bytes(size).numpy().view(dtype).reshape(shape)


class SharedRound:
    """Memory that is laid out before workers are forked and filled anew for each slice of each round.

    Args:
        layout: How a row is laid out.
        rows: So many clients fit at once.
        workers: How many.

    Attributes:
        sent: The weights that clients start from.
        examples: Samples of each row's client.
        losses: Results of each row.
        norms: How long each row's update is.
        in_hand: The row that each worker trains, or -1.
        order: Rows in the order in which they are handed out.
    """

    def __init__(self, layout: RowLayout, rows: int, workers: int) -> None:
        self.layout, self.capacity = layout, rows
        self.sent = ModelRow.of(layout, shared_bytes(layout.row_bytes))
        self._rows = shared_bytes(rows * layout.row_bytes).view(rows, layout.row_bytes)
        self._corrections = shared_bytes(rows * layout.row_bytes).view(rows, layout.row_bytes)
        lengths = [(segment.end_bytes - segment.start_bytes) // segment.dtype.itemsize for segment in layout.segments]
        self._sums = [shared_bytes(8 * length).view(torch.float64) for length in lengths]
        self.blocks = tuple(
            (number, slice(start, min(start + _BLOCK, length)))
            for number, length in enumerate(lengths)
            for start in range(0, length, _BLOCK)
        )
        self._clients, self.order, self.examples, self._epochs = _shared_array("int64", 4, rows)
        self.losses, self.norms, self._shares = _shared_array("float64", 3, rows)
        self.in_hand = _shared_array("int64", workers)
        self._counts = _shared_array("int64", 2)
        self._summed = _shared_array("int64", 3)
        self._work = shared_bytes(_WORK_BYTES).numpy()
        self._texts = shared_bytes(workers * _TEXT_BYTES).numpy().reshape(workers, _TEXT_BYTES)

    def send_weights(self, weights: Weights) -> None:
        """Set what clients start from.

        Raises:
            ValueError: The names or shapes are another model's.
        """
        if set(weights) != set(self.layout.names):
            differing = sorted(set(weights) ^ set(self.layout.names))
            raise ValueError(f"the weights are another model's: {', '.join(differing[:5])}")
        for name, tensor in self.sent.tensors.items():
            if weights[name].shape != tensor.shape:
                raise ValueError(f"{name} has the shape {tuple(weights[name].shape)}, the model {tuple(tensor.shape)}")
            tensor.copy_(weights[name].detach())

    def begin_slice(
        self,
        work: LocalWork,
        clients: Sequence[int],
        examples: NDArray[np.int64],
        shares: NDArray[np.float64],
        corrections: StackedWeights | None,
    ) -> None:
        """Set who trains in the first rows.

        Args:
            work: What all of them do.
            clients: One a row.
            examples: Samples of each.
            shares: Weight of each in the mean.
            corrections: Rows of SCAFFOLD's terms.
        """
        count = len(clients)
        self._clients[:count] = clients
        self.examples[:count] = examples
        self._shares[:count] = shares
        epochs = np.full(count, work.epochs)
        for row, client in enumerate(clients if work.epochs_of else ()):
            epochs[row] = work.epochs_by(client)
        self._epochs[:count] = epochs
        steps = -(-examples // work.batch_size) * epochs
        # The longest first, so that the last ones to end are short.
        self.order[:count] = np.argsort(-steps, kind="stable")
        names = sorted(corrections) if corrections else []
        if corrections:
            for name, stack in self.layout.views(self._corrections[:count], names).items():
                stack.copy_(corrections[name])
        encoded = pickle.dumps((replace(work, epochs_of={}), names))
        self._work[: len(encoded)] = np.frombuffer(encoded, dtype=np.uint8)
        self._counts[:2] = count, len(encoded)

    def read_work(self) -> tuple[LocalWork, list[str]]:
        """Return what :meth:`begin_slice` was told, and the names of corrections."""
        work: tuple[LocalWork, list[str]] = pickle.loads(self._work[: self._counts[1]].tobytes())  # noqa: S301 - ours
        return work

    def client(self, row: int) -> tuple[int, int]:
        """Return a row's client and its epochs."""
        return int(self._clients[row]), int(self._epochs[row])

    def target(self, row: int) -> ModelRow:
        """Return the row that a client's new weights go to."""
        return ModelRow.of(self.layout, self._rows[row])

    def corrections(self, row: int, names: Sequence[str]) -> dict[str, torch.Tensor]:
        """Return what is added to a client's gradients."""
        return self.layout.views(self._corrections[row], names)

    def stacked(self) -> dict[str, torch.Tensor]:
        """Return the new weights of every row of the slice, as views."""
        return self.layout.views(self._rows[: self._counts[0]])

    def begin_sums(self, start: int, stop: int, *, anew: bool) -> None:
        """Set which rows :meth:`add_block` adds, and whether it forgets former slices first."""
        self._summed[:] = start, stop, anew

    def add_block(self, number: int) -> None:
        """Add one block of columns of the chosen rows, times their shares, to its sums."""
        segment, columns = self.blocks[number]
        start, stop, anew = self._summed.tolist()
        sums = self._sums[segment][columns]
        if anew:
            sums.zero_()
        values = self.layout.segments[segment].view(self._rows[start:stop])[:, columns]
        wide = torch.empty_like(sums)
        for row, share in enumerate(self._shares[start:stop].tolist()):
            sums.add_(wide.copy_(values[row]), alpha=share)

    def mean(self) -> dict[str, torch.Tensor]:
        """Return the sums as tensors of their own; means of whole numbers are float32."""
        row = torch.empty(self.layout.row_bytes, dtype=torch.uint8)
        whole: dict[str, torch.Tensor] = {}
        for segment, sums in zip(self.layout.segments, self._sums, strict=True):
            if segment.dtype.is_floating_point:
                segment.view(row).copy_(sums)
        tensors = self.layout.views(row)
        for segment, sums in zip(self.layout.segments, self._sums, strict=True):
            if not segment.dtype.is_floating_point:
                whole |= self._whole_means(segment.start_bytes, segment.end_bytes, segment.dtype.itemsize, sums)
        return {name: whole.get(name, tensor) for name, tensor in tensors.items()}

    def _whole_means(self, start: int, end: int, itemsize: int, sums: torch.Tensor) -> dict[str, torch.Tensor]:
        means = {}
        for name in self.layout.names:
            place = self.layout.place(name)
            if start <= place.start_bytes < end:
                first, last = (place.start_bytes - start) // itemsize, (place.end_bytes - start) // itemsize
                means[name] = sums[first:last].to(torch.float32).view(place.shape)
        return means

    def write_text(self, worker: int, text: str) -> None:
        """Leave why a worker failed."""
        encoded = text.encode()[: _TEXT_BYTES - 1]
        self._texts[worker] = 0
        self._texts[worker, : len(encoded)] = np.frombuffer(encoded, dtype=np.uint8)

    def read_text(self, worker: int) -> str:
        """Return what :meth:`write_text` left."""
        return bytes(self._texts[worker]).rstrip(b"\0").decode("utf-8", "replace")
