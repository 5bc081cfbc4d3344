"""Gradients of pooling, embedding and slices, and the table of all that ``make_fx`` takes apart.

They are written with operators that ONNX and TFLite both have, on tensors of at most four axes (TFLite's PAD and
BATCH_MATMUL refuse more).
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch._decomp import get_decompositions

from hedgerow.compile.train_graph.convolution import convolution_backward
from hedgerow.compile.train_graph.operators import apart, positive
from hedgerow.compile.train_graph.patches import patches, scatter
from hedgerow.compile.train_graph.tflite_convolution import tflite_convolution, tflite_convolution_backward
from hedgerow.compile.train_graph.unfolding import col2im, im2col

__all__ = ["decompositions"]

_aten = torch.ops.aten
_pad = torch.nn.functional.pad


def _pair(values: Sequence[int], default: Sequence[int] = ()) -> tuple[int, int]:
    given = list(values) or list(default)
    return (given[0], given[-1])


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
    return scatter([share] * (kernel[0] * kernel[1]), size, kernel, _pair(stride, kernel_size), border, (1, 1))


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
    return patches(padded, kernel, step, holes, (out[0], out[1]))


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
    for tap in taps[:-1]:
        wins = (tap == best).to(best.dtype) * free
        free = free - wins
        shares.append(grad * wins)
    # Where no other tap holds the maximum, the last one does.
    shares.append(grad * free)
    kernel, size = _pair(kernel_size), (values.shape[2], values.shape[3])
    return scatter(shares, size, kernel, _pair(stride, kernel_size), _pair(padding), _pair(dilation))


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


def threshold_backward(grad: torch.Tensor, values: torch.Tensor, threshold: float) -> torch.Tensor:
    """Return the gradient of ReLU and its like."""
    if threshold == 0:
        return grad * positive(values)
    return torch.where(values <= threshold, 0, grad)


def shrink_backward(grad: torch.Tensor, values: torch.Tensor, width: float) -> torch.Tensor:
    """Return the gradient of hard and of soft shrinkage."""
    return torch.where(values.abs() <= width, 0, grad)


def decompositions(*, for_tflite: bool = False) -> dict[Any, Callable[..., Any]]:
    """Return the table for ``make_fx``: our gradients, and torch's own for the rest of a classifier.

    Args:
        for_tflite: Nothing but what TFLite has; ONNX keeps some operators of ours whole.
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
                _aten.glu_backward,
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
    table[_aten.hardshrink_backward.default] = table[_aten.softshrink_backward.default] = shrink_backward
    table[_aten.convolution_backward.default] = convolution_backward
    table[_aten.embedding_dense_backward.default] = embedding_dense_backward
    table[_aten.select_backward.default] = select_backward
    table[_aten.slice_backward.default] = slice_backward
    table[_aten.avg_pool2d_backward.default] = avg_pool2d_backward
    table[_aten.max_pool2d_with_indices.default] = max_pool2d_with_indices
    table[_aten.max_pool2d_with_indices_backward.default] = max_pool2d_with_indices_backward
    table[_aten.threshold_backward.default] = threshold_backward
    table[_aten.im2col.default], table[_aten.col2im.default] = im2col, col2im
    if for_tflite:
        table[_aten.convolution.default] = tflite_convolution
        table[_aten.convolution_backward.default] = tflite_convolution_backward
        return table | apart()
    return table
