"""Unfolding into columns and folding back, each the other's gradient, without the scatter that TFLite lacks."""

from collections.abc import Sequence

import torch

from hedgerow.compile.train_graph.patches import patches, scatter

__all__ = ["col2im", "im2col"]

_pad = torch.nn.functional.pad


def _two(values: Sequence[int]) -> tuple[int, int]:
    return (values[0], values[-1])


def _places(
    size: Sequence[int], kernel: Sequence[int], dilation: Sequence[int], padding: Sequence[int], stride: Sequence[int]
) -> tuple[int, int]:
    """Return how often the window fits along each axis."""
    rows, columns = (
        (size[axis] + 2 * padding[axis] - dilation[axis] * (kernel[axis] - 1) - 1) // stride[axis] + 1
        for axis in (0, 1)
    )
    return (rows, columns)


def im2col(
    values: torch.Tensor,
    kernel_size: Sequence[int],
    dilation: Sequence[int],
    padding: Sequence[int],
    stride: Sequence[int],
) -> torch.Tensor:
    """Return ``values[n, c, h, w]`` as ``[n, c * taps, places]``: what each tap of the kernel meets at each place."""
    if values.ndim == 3:
        return im2col(values.unsqueeze(0), kernel_size, dilation, padding, stride).squeeze(0)
    count, channels, height, width = values.shape
    kernel, holes, border, step = _two(kernel_size), _two(dilation), _two(padding), _two(stride)
    out = _places((height, width), kernel, holes, border, step)
    padded = _pad(values, (border[1], border[1], border[0], border[0])) if any(border) else values
    taps = patches(padded, kernel, step, holes, out)
    columns = torch.cat([tap.reshape(count * channels, 1, out[0] * out[1]) for tap in taps], 1)
    return columns.reshape(count, channels * len(taps), out[0] * out[1])


def col2im(
    columns: torch.Tensor,
    output_size: Sequence[int],
    kernel_size: Sequence[int],
    dilation: Sequence[int],
    padding: Sequence[int],
    stride: Sequence[int],
) -> torch.Tensor:
    """Return ``[n, c, h, w]``: ``columns[n, c * taps, places]`` added up where each tap met the image."""
    if columns.ndim == 2:
        return col2im(columns.unsqueeze(0), output_size, kernel_size, dilation, padding, stride).squeeze(0)
    kernel, holes, border, step, size = (_two(v) for v in (kernel_size, dilation, padding, stride, output_size))
    rows, across = _places(size, kernel, holes, border, step)
    count, number = columns.shape[0], kernel[0] * kernel[1]
    channels = columns.shape[1] // number
    apart = columns.reshape(count * channels, number, rows * across)
    taps = [apart[:, tap].reshape(count, channels, rows, across) for tap in range(number)]
    return scatter(taps, size, kernel, step, border, holes)
