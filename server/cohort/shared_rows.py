"""One model's tensors as a row of bytes, and rows in memory that forked processes share. Needs torch.

The memory is anonymous: it has no name that could be left behind, and it is free as soon as the last process that maps
it has ended, however that ends. Pages cost nothing until they are written.
"""

import mmap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby

import torch

__all__ = ["MemorySpan", "ModelRow", "RowLayout", "TensorPlace", "shared_bytes"]

_ALIGNMENT_BYTES = 64


def shared_bytes(size: int) -> torch.Tensor:
    """Return ``uint8[size]``, zeros, shared with the processes that are forked from now on."""
    # Not reserved: rows are laid out for the largest cohort, and a smaller one must not pay for it.
    flags = mmap.MAP_SHARED | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0)
    return torch.frombuffer(mmap.mmap(-1, max(1, size), flags=flags), dtype=torch.uint8)[:size]


@dataclass(frozen=True, slots=True)
class TensorPlace:
    """Where a tensor lies in a row.

    Attributes:
        name: What the parameter or buffer is called.
        shape: The model's.
        dtype: Its type.
        start_bytes: It begins so far from the start of the row.
        channels_last: Whether its second dimension is the innermost in memory, as convolutions like their weights.
    """

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    start_bytes: int
    channels_last: bool

    @property
    def end_bytes(self) -> int:
        """Where the first byte after it lies."""
        return self.start_bytes + self.dtype.itemsize * torch.Size(self.shape).numel()


@dataclass(frozen=True, slots=True)
class MemorySpan:
    """Tensors of one dtype, which lie beside each other, seen as one array with gaps of zeros.

    Attributes:
        dtype: The type of all of them.
        start_bytes: The first begins so far from the start of the row.
        end_bytes: The last ends before this byte.
    """

    dtype: torch.dtype
    start_bytes: int
    end_bytes: int

    def view(self, rows: torch.Tensor) -> torch.Tensor:
        """Return this part of ``uint8[..., row]`` as *dtype*."""
        return rows[..., self.start_bytes : self.end_bytes].view(self.dtype)


class RowLayout:
    """Where each tensor of a model lies in a row: those of one dtype beside each other, floats first.

    Args:
        tensors: All parameters and buffers.

    Attributes:
        names: What they are called, in the order of *tensors*.
        unique: Those that have a place; the others are tied to one of them.
        row_bytes: Size of a row, a multiple of 64.
        segments: One for each dtype.
    """

    def __init__(self, tensors: Mapping[str, torch.Tensor]) -> None:
        self.names = tuple(tensors)
        first_names: dict[tuple[object, ...], str] = {}
        self._tied = {name: first_names.setdefault(_identity(name, t), name) for name, t in tensors.items()}
        self.unique = tuple(first_names.values())
        ordered = sorted(
            ((name, tensors[name]) for name in self.unique),
            key=lambda item: (not item[1].is_floating_point(), str(item[1].dtype)),
        )
        places, segments, start = [], [], 0
        for dtype, group in groupby(ordered, key=lambda item: item[1].dtype):
            first = start
            for name, tensor in group:
                places.append(
                    TensorPlace(name, tuple(tensor.shape), dtype, start, tensor.ndim == 4 and dtype.is_floating_point)
                )
                start = -(-places[-1].end_bytes // _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES
            segments.append(MemorySpan(dtype, first, start))
        self._places = {place.name: place for place in places}
        self.segments = tuple(segments)
        self.row_bytes = max(start, _ALIGNMENT_BYTES)

    @property
    def has_channels_last(self) -> bool:
        """Whether a tensor does not lie in memory as it is written."""
        return any(place.channels_last for place in self._places.values())

    def place(self, name: str) -> TensorPlace:
        """Return where a tensor lies."""
        return self._places[self._tied[name]]

    def views(self, rows: torch.Tensor, names: Iterable[str] | None = None) -> dict[str, torch.Tensor]:
        """Return the tensors in *rows*, as views.

        Args:
            rows: ``uint8[row_bytes]``, or ``uint8[n, row_bytes]`` for n models stacked.
            names: Which; None: all.
        """
        chosen = self.names if names is None else tuple(names)
        own = dict.fromkeys(self._tied[name] for name in chosen)
        seen = {name: _view(rows, self._places[name]) for name in own}
        return {name: seen[self._tied[name]] for name in chosen}


@dataclass(frozen=True, slots=True)
class ModelRow:
    """One model's tensors in a row of memory.

    Attributes:
        row: ``uint8[row_bytes]``.
        tensors: Views of it by name.
    """

    row: torch.Tensor
    tensors: Mapping[str, torch.Tensor]

    @classmethod
    def of(cls, layout: RowLayout, row: torch.Tensor) -> "ModelRow":
        """See *row* as tensors."""
        return cls(row, layout.views(row))


def _view(rows: torch.Tensor, place: TensorPlace) -> torch.Tensor:
    values = rows[..., place.start_bytes : place.end_bytes].view(place.dtype)
    leading = rows.shape[:-1]
    if not place.channels_last:
        return values.view((*leading, *place.shape))
    first, channels, height, width = place.shape
    return values.view(*leading, first, height, width, channels).movedim(-1, -3)


def _identity(name: str, tensor: torch.Tensor) -> tuple[object, ...]:
    # Empty tensors have no memory to tell them apart by.
    return (tensor.data_ptr(), tensor.shape, tensor.stride()) if tensor.numel() else (name,)
