"""Convolutions and their gradients as matrix products, for TFLite.

XNNPACK, which runs TFLite's floats, takes a convolution only if its kernel is a constant; a step's kernels are inputs.
LiteRT's own kernel writes all patches to memory, and is three times slower than a product of XNNPACK's. But a product
over patches copies each value as often as the kernel has taps. Here a value is copied once for each *row* of the
kernel: rows that a window meets stand side by side in the channels, one product gives what each *column* of the kernel
adds, and those are added up, each shifted by its column. The same three pieces make the gradients. A stride puts
neighbours into the channels first, after which it is none.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from hedgerow.compile.train_graph.patches import cut, interleave

__all__ = ["Convolution"]

_pad = torch.nn.functional.pad


@dataclass(frozen=True, slots=True, kw_only=True)
class Convolution:
    """A two-dimensional convolution without groups: ``values[n, c, h, w]`` by ``weight[o, c, kh, kw]``.

    Attributes:
        values: Its input's height and width.
        kernel, stride, padding, dilation: As torch has them.
        out: Its output's height and width.
    """

    values: tuple[int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    out: tuple[int, int]

    @property
    def spares_work(self) -> bool:
        """Whether few of the products' columns fall outside of the output."""
        return self._columns[-1] <= self.out[1]

    @property
    def _columns(self) -> list[int]:
        """By how many blocks of ``stride`` pixels each column of the kernel is shifted; each shift once."""
        return sorted({tap // self.stride[1] for tap in self._taps(1)})

    @property
    def _phases(self) -> list[int]:
        """Places in such a block that any column of the kernel meets."""
        return sorted({tap % self.stride[1] for tap in self._taps(1)})

    def _taps(self, axis: int) -> range:
        return range(0, self.kernel[axis] * self.dilation[axis], self.dilation[axis])

    def forward(self, values: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """Return ``[n, o, out height, out width]``."""
        count, filters = values.shape[0], weight.shape[0]
        columns = weight.permute(2, 1, 3, 0).reshape(-1, self.kernel[1] * filters)
        # [phases * kernel rows * c, shifts * o]: what a block's pixels give to each shift.
        matrix = self._blocks(columns) if self.stride[1] > 1 else columns
        products = self._rows(values) @ matrix
        wide = products.reshape(count * self.out[0], -1, len(self._columns) * filters)
        found = _added(wide, self._columns, self.out[1], filters)
        return found.reshape(count, *self.out, filters).permute(0, 3, 1, 2).contiguous()

    def weight_gradient(self, grad: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """Return the gradient of the weight, given that of the output."""
        count, channels, filters = values.shape[0], values.shape[1], grad.shape[1]
        shifts, width = self._columns, self.out[1] + self._columns[-1]
        last = shifts[-1]
        long = _pad(grad.permute(1, 0, 2, 3), (last, last)) if last else grad.permute(1, 0, 2, 3)
        shifted = [cut(long, 3, last - shift, last - shift + width) for shift in shifts]
        left = torch.cat(shifted, 0).reshape(len(shifts) * filters, count * self.out[0] * width)
        found = left @ self._rows(values)
        if self.stride[1] > 1:
            block = self.kernel[0] * channels
            places = [
                (shifts.index(t // self.stride[1]), self._phases.index(t % self.stride[1])) for t in self._taps(1)
            ]
            by_tap = [
                cut(cut(found, 0, shift * filters, (shift + 1) * filters), 1, phase * block, (phase + 1) * block)
                for shift, phase in places
            ]
            found = torch.cat(by_tap, 0)
        return found.reshape(self.kernel[1], filters, self.kernel[0], channels).permute(1, 3, 2, 0).contiguous()

    def input_gradient(self, grad: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """Return the gradient of the values, given that of the output; a transposed convolution is this."""
        count, (filters, channels) = grad.shape[0], weight.shape[:2]
        (down, across), (height, width) = self.stride, self.values
        matrix, rows, columns = self._spread(weight)
        # Blocks of stride rows, from the one with the first row that is no padding to the one with the last.
        first, left = self.padding[0] // down, self.padding[1] // across
        tall = -(-(self.padding[0] + height) // down) - first
        long = -(-(self.padding[1] + width) // across) - left
        wide = grad.permute(0, 2, 3, 1)
        wide = _grown(wide, 1, rows[-1] - first, tall + first - self.out[0])
        wide = _grown(wide, 2, columns[-1] - left, long + left - self.out[1])
        met = torch.cat([cut(wide, 1, rows[-1] - row, rows[-1] - row + tall) for row in rows], 3)
        each = down * across * channels
        products = met.reshape(-1, len(rows) * filters) @ matrix
        products = products.reshape(count * tall, long + columns[-1], len(columns) * each)
        found = _added(products, [columns[-1] - column for column in columns], long, each)
        if self.stride != (1, 1):
            found = found.reshape(count * tall, long, down, across * channels).permute(0, 2, 1, 3)
        found = found.reshape(count, tall * down, long * across, channels)
        found = cut(found, 1, self.padding[0] - first * down, self.padding[0] - first * down + height)
        found = cut(found, 2, self.padding[1] - left * across, self.padding[1] - left * across + width)
        return found.permute(0, 3, 1, 2).contiguous()

    def _rows(self, values: torch.Tensor) -> torch.Tensor:
        """Return ``[n * out height * blocks, phases * kernel rows * c]``: the pixels that a row of windows meets."""
        count, channels = values.shape[:2]
        (down, across), width = self.stride, self.out[1] + self._columns[-1]
        height = self.out[0] + self._taps(0)[-1] // down
        wide = values.permute(0, 2, 3, 1)
        wide = _grown(wide, 1, self.padding[0], height * down - self.values[0] - self.padding[0])
        wide = _grown(wide, 2, self.padding[1], width * across - self.values[1] - self.padding[1])
        wide = wide.reshape(count, height, down, width * across * channels) if down > 1 else wide
        rows = []
        for tap in self._taps(0):
            row = cut(wide, 1, tap // down, tap // down + self.out[0])
            row = cut(row, 2, tap % down, tap % down + 1) if down > 1 else row
            row = row.reshape(count * self.out[0], width, across, channels)
            if len(self._phases) < across:
                row = torch.cat([cut(row, 2, phase, phase + 1) for phase in self._phases], 2)
            rows.append(row.reshape(-1, len(self._phases), channels))
        met = torch.cat(rows, 2)
        return met.reshape(-1, len(self._phases) * self.kernel[0] * channels)

    def _blocks(self, columns: torch.Tensor) -> torch.Tensor:
        """Lay the kernel's columns out: a row of blocks for each phase, a column of them for each shift."""
        filters = columns.shape[1] // self.kernel[1]
        zeros = torch.zeros(columns.shape[0], filters, dtype=columns.dtype)
        taps = {
            divmod(tap, self.stride[1]): cut(columns, 1, place * filters, (place + 1) * filters)
            for place, tap in enumerate(self._taps(1))
        }
        lines = [[taps.get((shift, phase), zeros) for shift in self._columns] for phase in self._phases]
        return torch.cat([torch.cat(line, 1) if len(line) > 1 else line[0] for line in lines], 0)

    def _spread(self, weight: torch.Tensor) -> tuple[torch.Tensor, list[int], list[int]]:
        """Return ``[row shifts * o, column shifts * stride * c]``, what a gradient gives to pixels; and the shifts."""
        filters, channels, tall, wide = weight.shape
        if self.stride == (1, 1):
            matrix = weight.permute(2, 0, 3, 1).reshape(tall * filters, wide * channels)
            return matrix, list(self._taps(0)), list(self._taps(1))
        (down, across), taps = self.stride, interleave(weight, self.dilation)
        rows, columns = -(-taps.shape[2] // down), -(-taps.shape[3] // across)
        taps = _grown(_grown(taps, 2, 0, rows * down - taps.shape[2]), 3, 0, columns * across - taps.shape[3])
        # In at most four axes: [o, c, rows, down, columns, across] -> [rows, o, columns, down, across, c].
        taps = taps.reshape(filters * channels, rows, down, columns * across).permute(1, 0, 2, 3)
        taps = taps.reshape(rows * filters * channels, down, columns, across).permute(0, 2, 1, 3)
        taps = taps.reshape(rows * filters, channels, columns * down * across).permute(0, 2, 1)
        return taps.reshape(rows * filters, columns * down * across * channels), list(range(rows)), list(range(columns))


def _grown(values: torch.Tensor, axis: int, before: int, after: int) -> torch.Tensor:
    """Add zeros along an axis; where *before* or *after* is negative, cut."""
    amounts = [0] * (2 * (values.ndim - axis))
    amounts[-2:] = [max(before, 0), max(after, 0)]
    values = _pad(values, amounts) if any(amounts) else values
    return cut(values, axis, max(-before, 0), values.shape[axis] - max(-after, 0))


def _added(products: torch.Tensor, shifts: Sequence[int], width: int, each: int) -> torch.Tensor:
    """Return the sum of each shift's own *each* channels, from that shift on along the middle axis."""
    parts = [
        cut(cut(products, 2, place * each, (place + 1) * each), 1, shift, shift + width)
        for place, shift in enumerate(shifts)
    ]
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total
