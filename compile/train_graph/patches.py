"""Windows over the last two axes: shifts, crops and patches, the pieces of convolution's and pooling's gradients."""

from collections.abc import Sequence

import torch

__all__ = ["crop_or_pad", "cut", "interleave", "patches", "scatter"]

_aten = torch.ops.aten
_pad = torch.nn.functional.pad


def cut(values: torch.Tensor, axis: int, start: int, stop: int, step: int = 1) -> torch.Tensor:
    """Slice one axis; nothing where all of it is wanted, because every node costs time to export."""
    if start == 0 and step == 1 and stop >= values.shape[axis]:
        return values
    result: torch.Tensor = _aten.slice.Tensor(values, axis, start, stop, step)
    return result


def interleave(grad: torch.Tensor, stride: tuple[int, int]) -> torch.Tensor:
    """Put ``stride - 1`` zeros between neighbours along the last two axes of ``grad[n, c, h, w]``."""
    count, channels, height, width = grad.shape
    down, across = stride
    if across > 1:
        grad = _pad(grad.reshape(count * channels, height * width, 1), (0, across - 1))
        grad = cut(grad.reshape(count, channels, height, width * across), 3, 0, (width - 1) * across + 1)
    wide = (width - 1) * across + 1
    if down > 1:
        grad = _pad(grad.reshape(count * channels, height, wide), (0, wide * (down - 1)))
        grad = cut(grad.reshape(count, channels, height * down, wide), 2, 0, (height - 1) * down + 1)
    return grad


def crop_or_pad(values: torch.Tensor, left: int, right: int, top: int, bottom: int) -> torch.Tensor:
    """Pad the last two axes with zeros; a negative amount crops."""
    amounts = (max(left, 0), max(right, 0), max(top, 0), max(bottom, 0))
    values = _pad(values, amounts) if any(amounts) else values
    values = cut(values, 2, max(-top, 0), values.shape[2] - max(-bottom, 0))
    return cut(values, 3, max(-left, 0), values.shape[3] - max(-right, 0))


def patches(
    values: torch.Tensor,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    dilation: tuple[int, int],
    out: tuple[int, int],
) -> list[torch.Tensor]:
    """Return, for each kernel tap, the values it meets: ``[n, c, out_h, out_w]`` each."""
    taps = []
    for row in range(0, kernel[0] * dilation[0], dilation[0]):
        rows = cut(values, 2, row, row + (out[0] - 1) * stride[0] + 1, stride[0])
        taps += [
            cut(rows, 3, column, column + (out[1] - 1) * stride[1] + 1, stride[1])
            for column in range(0, kernel[1] * dilation[1], dilation[1])
        ]
    return taps


def scatter(
    taps: Sequence[torch.Tensor],
    size: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
) -> torch.Tensor:
    """Add up each tap's gradient at the places of the input that the tap met; the inverse of :func:`patches`."""
    places = taps[0].shape[2:]
    side_by_side = stride == kernel and padding == (0, 0) and dilation == (1, 1)
    if side_by_side and (places[0] * kernel[0], places[1] * kernel[1]) == size:
        return _tile(taps, kernel)
    total: torch.Tensor | None = None
    height, width = size[0] + 2 * padding[0], size[1] + 2 * padding[1]
    for index, tap in enumerate(taps):
        row, column = index // kernel[1] * dilation[0], index % kernel[1] * dilation[1]
        spread = interleave(tap, stride)
        placed = crop_or_pad(spread, column, width - column - spread.shape[3], row, height - row - spread.shape[2])
        total = placed if total is None else total + placed
    if total is None:
        raise ValueError("a pooling window has no taps")
    return crop_or_pad(total, -padding[1], -padding[1], -padding[0], -padding[0])


def _tile(taps: Sequence[torch.Tensor], kernel: tuple[int, int]) -> torch.Tensor:
    """Lay the taps of windows that do not overlap side by side; no addition, and few nodes."""
    count, channels, height, width = taps[0].shape
    rows = [
        torch.cat([tap.reshape(-1, 1) for tap in taps[first : first + kernel[1]]], 1)
        for first in range(0, len(taps), kernel[1])
    ]
    wide = width * kernel[1]
    tiled = torch.cat([row.reshape(-1, wide) for row in rows], 1) if len(rows) > 1 else rows[0]
    return tiled.reshape(count, channels, height * kernel[0], wide)
