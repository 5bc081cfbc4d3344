"""Gradients of convolution and pooling, written with operators that ONNX and TFLite both have.

``torch`` leaves ``convolution_backward`` as one operator, which neither exporter translates. Here the gradient of the
input is a stride-1 convolution of the zero-interleaved gradient with the flipped kernel, and the gradient of the weight
is one matrix product over the patches: no transposed convolution (TFLite cannot legalize a grouped one) and no
tensor of more than four axes (TFLite's PAD and BATCH_MATMUL refuse more).
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch._decomp import get_decompositions

__all__ = ["decompositions"]

_aten = torch.ops.aten
_pad = torch.nn.functional.pad


def _cut(values: torch.Tensor, axis: int, start: int, stop: int, step: int = 1) -> torch.Tensor:
    """Slice one axis; nothing where all of it is wanted, because every node costs time to export."""
    if start == 0 and step == 1 and stop >= values.shape[axis]:
        return values
    result: torch.Tensor = _aten.slice.Tensor(values, axis, start, stop, step)
    return result


def _interleave(grad: torch.Tensor, stride: tuple[int, int]) -> torch.Tensor:
    """Put ``stride - 1`` zeros between neighbours along the last two axes of ``grad[n, c, h, w]``."""
    count, channels, height, width = grad.shape
    down, across = stride
    if across > 1:
        grad = _pad(grad.reshape(count * channels, height * width, 1), (0, across - 1))
        grad = _cut(grad.reshape(count, channels, height, width * across), 3, 0, (width - 1) * across + 1)
    wide = (width - 1) * across + 1
    if down > 1:
        grad = _pad(grad.reshape(count * channels, height, wide), (0, wide * (down - 1)))
        grad = _cut(grad.reshape(count, channels, height * down, wide), 2, 0, (height - 1) * down + 1)
    return grad


def _crop_or_pad(values: torch.Tensor, left: int, right: int, top: int, bottom: int) -> torch.Tensor:
    """Pad the last two axes with zeros; a negative amount crops."""
    amounts = (max(left, 0), max(right, 0), max(top, 0), max(bottom, 0))
    values = _pad(values, amounts) if any(amounts) else values
    values = _cut(values, 2, max(-top, 0), values.shape[2] - max(-bottom, 0))
    return _cut(values, 3, max(-left, 0), values.shape[3] - max(-right, 0))


def _input_gradient(
    grad: torch.Tensor,
    weight: torch.Tensor,
    size: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    groups: int,
    *,
    transposed: bool,
) -> torch.Tensor:
    out_channels, in_group, kernel_h, kernel_w = weight.shape
    if transposed and stride != (1, 1):
        spare = [
            size[axis]
            + 2 * padding[axis]
            - (grad.shape[2 + axis] - 1) * stride[axis]
            - dilation[axis] * (weight.shape[2 + axis] - 1)
            - 1
            for axis in (0, 1)
        ]
        found: torch.Tensor = _aten.convolution.default(
            grad, weight, None, list(stride), list(padding), list(dilation), True, spare, groups
        )
        return found
    grad = _interleave(grad, stride)
    top, left = dilation[0] * (kernel_h - 1) - padding[0], dilation[1] * (kernel_w - 1) - padding[1]
    bottom = size[0] + dilation[0] * (kernel_h - 1) - grad.shape[2] - top
    right = size[1] + dilation[1] * (kernel_w - 1) - grad.shape[3] - left
    grad = _crop_or_pad(grad, left, right, top, bottom)
    # [groups * out, in, h, w] -> [groups * in, out, h, w], group by group, in at most four axes.
    flipped = weight.flip(2, 3).reshape(groups, out_channels // groups, in_group, kernel_h * kernel_w).transpose(1, 2)
    kernel = flipped.reshape(groups * in_group, out_channels // groups, kernel_h, kernel_w)
    result: torch.Tensor = _aten.convolution.default(
        grad, kernel, None, [1, 1], [0, 0], list(dilation), False, [0, 0], groups
    )
    return result


def _patches(
    values: torch.Tensor,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    dilation: tuple[int, int],
    out: tuple[int, int],
) -> list[torch.Tensor]:
    """Return, for each kernel tap, the values it meets: ``[n, c, out_h, out_w]`` each."""
    taps = []
    for row in range(0, kernel[0] * dilation[0], dilation[0]):
        rows = _cut(values, 2, row, row + (out[0] - 1) * stride[0] + 1, stride[0])
        taps += [
            _cut(rows, 3, column, column + (out[1] - 1) * stride[1] + 1, stride[1])
            for column in range(0, kernel[1] * dilation[1], dilation[1])
        ]
    return taps


def _weight_gradient(
    grad: torch.Tensor,
    values: torch.Tensor,
    weight: torch.Tensor,
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    groups: int,
) -> torch.Tensor:
    out_channels, in_group, kernel_h, kernel_w = weight.shape
    count, channels, (out_h, out_w) = grad.shape[0], values.shape[1], grad.shape[2:]
    places, taps, out_group = out_h * out_w, kernel_h * kernel_w, out_channels // groups
    padded = _crop_or_pad(values, padding[1], padding[1], padding[0], padding[0])
    if stride == (1, 1) and taps > 1:
        # With rows as wide as the padded ones, what a tap meets is one run of memory; beyond a row the gradient is 0.
        width = padded.shape[3]
        places = (out_h - 1) * width + out_w
        flat = padded.reshape(count, channels, padded.shape[2] * width)
        met = [
            _cut(flat, 2, start, start + places)
            for start in (
                dilation[0] * row * width + dilation[1] * column
                for row in range(kernel_h)
                for column in range(kernel_w)
            )
        ]
        grad = _pad(grad, (0, width - out_w)) if width > out_w else grad
        grad = _cut(grad.reshape(count, out_channels, out_h * width), 2, 0, places)
    else:
        met = _patches(padded, (kernel_h, kernel_w), stride, dilation, (out_h, out_w))
    patches = torch.cat([tap.reshape(count, channels, 1, places) for tap in met], 2) if taps > 1 else met[0]
    # One product a sample and group: with the samples' places in one row, the patches would have to be transposed.
    patches = patches.reshape(count * groups, in_group * taps, places)
    seen = grad.reshape(count * groups, out_group, places)
    products = torch.bmm(seen, patches.transpose(1, 2)).reshape(count, out_channels * in_group * taps)
    return products.sum(0).reshape(weight.shape)


def convolution_backward(
    grad: torch.Tensor,
    values: torch.Tensor,
    weight: torch.Tensor,
    _bias_sizes: Sequence[int] | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    _output_padding: Sequence[int],
    groups: int,
    wanted: Sequence[bool],
    *,
    by_transposed: bool = False,
) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
    """Return the gradients of input, weight and bias of a two-dimensional convolution, each where *wanted*.

    ONNX Runtime transposes a strided convolution faster than it convolves zeros (*by_transposed*); TFLite cannot.
    """
    if transposed or weight.ndim != 4:
        return NotImplemented  # type: ignore[no-any-return]
    step, border, holes = (stride[0], stride[1]), (padding[0], padding[1]), (dilation[0], dilation[1])
    size = (values.shape[2], values.shape[3])
    return (
        _input_gradient(grad, weight, size, step, border, holes, groups, transposed=by_transposed)
        if wanted[0]
        else None,
        _weight_gradient(grad, values, weight, step, border, holes, groups) if wanted[1] else None,
        grad.sum((0, 2, 3)) if wanted[2] else None,
    )


def _pair(values: Sequence[int], default: Sequence[int] = ()) -> tuple[int, int]:
    given = list(values) or list(default)
    return (given[0], given[-1])


def _scatter(
    taps: Sequence[torch.Tensor],
    size: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
) -> torch.Tensor:
    """Add up each tap's gradient at the places of the input that the tap met; the inverse of :func:`_patches`."""
    total: torch.Tensor | None = None
    height, width = size[0] + 2 * padding[0], size[1] + 2 * padding[1]
    for index, tap in enumerate(taps):
        row, column = index // kernel[1] * dilation[0], index % kernel[1] * dilation[1]
        spread = _interleave(tap, stride)
        placed = _crop_or_pad(spread, column, width - column - spread.shape[3], row, height - row - spread.shape[2])
        total = placed if total is None else total + placed
    if total is None:
        raise ValueError("a pooling window has no taps")
    return _crop_or_pad(total, -padding[1], -padding[1], -padding[0], -padding[0])


def _window_sizes(size: int, places: int, kernel: int, stride: int, padding: int) -> torch.Tensor:
    """Return how many values, not counting padding, each window along one axis holds."""
    starts = [place * stride - padding for place in range(places)]
    return torch.tensor([float(min(start + kernel, size) - max(start, 0)) for start in starts])


def avg_pool2d_backward(
    grad: torch.Tensor,
    values: torch.Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None,
) -> torch.Tensor:
    """Return the gradient of the input of an average pool."""
    kernel, border = _pair(kernel_size), _pair(padding)
    if ceil_mode:
        return NotImplemented  # type: ignore[no-any-return]
    step = _pair(stride, kernel_size)
    if divisor_override is not None or count_include_pad or not any(border):
        share = grad / (divisor_override or kernel[0] * kernel[1])
    else:
        rows, columns = (
            _window_sizes(values.shape[2 + axis], grad.shape[2 + axis], kernel[axis], step[axis], border[axis])
            for axis in (0, 1)
        )
        share = grad * (1 / (rows[:, None] * columns))
    size = (values.shape[2], values.shape[3])
    return _scatter([share] * (kernel[0] * kernel[1]), size, kernel, _pair(stride, kernel_size), border, (1, 1))


def max_pool2d_with_indices(
    values: torch.Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0, 0),
    dilation: Sequence[int] = (1, 1),
    ceil_mode: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the maximum over the taps, and in place of its indices the number of the winning tap."""
    if ceil_mode:
        return NotImplemented  # type: ignore[no-any-return]
    taps = _max_pool_taps(values, kernel_size, stride, padding, dilation)
    best = taps[0]
    for tap in taps[1:]:
        best = torch.maximum(best, tap)
    return best, torch.zeros_like(best, dtype=torch.int64)


def _max_pool_taps(
    values: torch.Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> list[torch.Tensor]:
    kernel, step, border, holes = _pair(kernel_size), _pair(stride, kernel_size), _pair(padding), _pair(dilation)
    out = tuple(
        (values.shape[2 + axis] + 2 * border[axis] - holes[axis] * (kernel[axis] - 1) - 1) // step[axis] + 1
        for axis in (0, 1)
    )
    lowest = -3.0e38
    padded = torch.nn.functional.pad(values, (border[1], border[1], border[0], border[0]), value=lowest)
    return _patches(padded, kernel, step, holes, (out[0], out[1]))


def max_pool2d_with_indices_backward(
    grad: torch.Tensor,
    values: torch.Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    ceil_mode: bool,
    _indices: torch.Tensor,
) -> torch.Tensor:
    """Return the gradient of the input of a maximum pool: the first tap that holds the maximum gets it all."""
    if ceil_mode:
        return NotImplemented  # type: ignore[no-any-return]
    taps = _max_pool_taps(values, kernel_size, stride, padding, dilation)
    best = taps[0]
    for tap in taps[1:]:
        best = torch.maximum(best, tap)
    free = torch.ones_like(best)
    shares = []
    for tap in taps:
        wins = (tap == best).to(best.dtype) * free
        free = free - wins
        shares.append(grad * wins)
    kernel, size = _pair(kernel_size), (values.shape[2], values.shape[3])
    return _scatter(shares, size, kernel, _pair(stride, kernel_size), _pair(padding), _pair(dilation))


def embedding_dense_backward(
    grad: torch.Tensor, indices: torch.Tensor, rows: int, padding_idx: int, scale_grad_by_freq: bool
) -> torch.Tensor:
    """Return the gradient of an embedding's table as one matrix product, for TFLite has no scatter that adds."""
    if scale_grad_by_freq:
        return NotImplemented  # type: ignore[no-any-return]
    every = torch.arange(rows, dtype=indices.dtype)
    chosen = every[:, None] == indices.reshape(1, -1)
    if padding_idx >= 0:
        chosen = chosen & (every != padding_idx)[:, None]
    return chosen.to(grad.dtype) @ grad.reshape(-1, grad.shape[-1])


def select_backward(grad: torch.Tensor, sizes: Sequence[int], dim: int, index: int) -> torch.Tensor:
    """Return the gradient of ``values.select(dim, index)``: zeros, but for the one place."""
    axis, size = dim % len(sizes), sizes[dim]
    return _grow(grad.unsqueeze(axis), axis, index % size, size - index % size - 1)


def slice_backward(grad: torch.Tensor, sizes: Sequence[int], dim: int, start: int, end: int, step: int) -> torch.Tensor:
    """Return the gradient of a slice of one axis: zeros, but for the places between *start* and *end*."""
    if step != 1:
        return NotImplemented  # type: ignore[no-any-return]
    axis, size = dim % len(sizes), sizes[dim]
    first = min(max(start + size if start < 0 else start, 0), size)
    last = min(max(end + size if end < 0 else end, first), size)
    return _grow(grad, axis, first, size - last)


def _grow(values: torch.Tensor, axis: int, before: int, after: int) -> torch.Tensor:
    amounts = [0] * (2 * (values.ndim - axis))
    amounts[-2:] = [before, after]
    return _pad(values, amounts)


def decompositions(*, transposed_convolution: bool = False) -> dict[Any, Callable[..., Any]]:
    """Return the table for ``make_fx``: our gradients, and torch's own for the rest of a classifier.

    Args:
        transposed_convolution: Whether the format has transposed convolutions of any kind.
    """
    table: dict[Any, Callable[..., Any]] = dict(
        get_decompositions(
            [
                _aten.threshold_backward,
                _aten._log_softmax,  # noqa: SLF001 - the operator's name
                _aten._log_softmax_backward_data,  # noqa: SLF001
                _aten._softmax_backward_data,  # noqa: SLF001
                _aten.nll_loss_forward,
                _aten.nll_loss_backward,
                _aten.native_batch_norm,
                _aten._native_batch_norm_legit_no_training,  # noqa: SLF001
                _aten.native_batch_norm_backward,
                _aten.hardtanh_backward,
                _aten.hardswish_backward,
                _aten.sigmoid_backward,
                _aten.tanh_backward,
                _aten.gelu_backward,
                _aten.elu_backward,
                _aten.leaky_relu_backward,
                _aten.mse_loss,
                _aten.mse_loss_backward,
                _aten.smooth_l1_loss,
                _aten.smooth_l1_loss_backward,
                _aten.binary_cross_entropy,
                _aten.binary_cross_entropy_backward,
                _aten.binary_cross_entropy_with_logits,
                _aten.log_sigmoid_forward,
                _aten.log_sigmoid_backward,
                _aten.huber_loss,
                _aten.huber_loss_backward,
                _aten.softplus_backward,
                _aten.hardsigmoid_backward,
                _aten.addmm,
                _aten.t,
            ]
        )
    )
    table[_aten.convolution_backward.default] = partial(convolution_backward, by_transposed=transposed_convolution)
    table[_aten.embedding_dense_backward.default] = embedding_dense_backward
    table[_aten.select_backward.default] = select_backward
    table[_aten.slice_backward.default] = slice_backward
    table[_aten.avg_pool2d_backward.default] = avg_pool2d_backward
    table[_aten.max_pool2d_with_indices.default] = max_pool2d_with_indices
    table[_aten.max_pool2d_with_indices_backward.default] = max_pool2d_with_indices_backward
    return table
