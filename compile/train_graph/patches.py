"""Windows over the last two axes: shifts, crops and patches, the pieces of convolution's and pooling's gradients."""

import torch

__all__ = ["crop_or_pad", "cut", "interleave", "patches"]

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
