"""Gradients of a two-dimensional convolution in operators that ONNX has; with groups, in those of TFLite, too.

``torch`` leaves ``convolution_backward`` as one operator, which neither exporter translates. The gradient of the input
is a stride-1 convolution of the zero-interleaved gradient with the flipped kernel, or a transposed convolution.

The gradient of the weight is either one matrix product over the patches, or a convolution in which the parts are
exchanged: the values, channels last, are the image, a row of it ``width * channels`` long; a sample's gradient is the
kernel, with holes of a pixel's channels between its columns; and what comes out at ``(y, x * channels + c)`` is the
gradient at tap ``(y, x)`` of channel ``c``. The patches are then never written to memory, nor their ninefold read, and
what the runtime copies for each place of the kernel is a run of ``taps * channels`` numbers.
"""

from collections.abc import Sequence
from functools import partial

import torch

from hedgerow.compile.train_graph.patches import crop_or_pad, cut, interleave, patches

__all__ = ["convolution_backward", "input_gradient", "weight_gradient_by_product"]

_aten = torch.ops.aten
_pad = torch.nn.functional.pad
# Samples that one kernel spans where a sample has fewer places than the taps have channels: a sum over all samples'
# products would then be much of the work, and one kernel of all samples would leave little for other threads.
_SAMPLES_AT_ONCE = 4
_MOST_ROWS_BY_PRODUCT = 32
"""ONNX Runtime transposes on one thread, which waits for the other cores' caches at every line: 0.6 ms for 1 MiB that
four threads wrote, 0.1 ms for what one thread wrote. A product with the identity runs on all threads and is exact for
finite numbers; more rows than these cost more arithmetic than is gained."""


def _exchange(values: torch.Tensor) -> torch.Tensor:
    """Exchange the last two axes of ``values[n, rows, columns]``."""
    if values.shape[1] > _MOST_ROWS_BY_PRODUCT:
        return values.transpose(1, 2)
    unit = torch.eye(values.shape[1], dtype=values.dtype, device=values.device)
    return torch.bmm(values.transpose(1, 2), unit.expand(values.shape[0], *unit.shape))


def input_gradient(
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
    """Return the gradient of the values, of height and width *size*, by a transposed convolution if *transposed*."""
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
    grad = interleave(grad, stride)
    top, left = dilation[0] * (kernel_h - 1) - padding[0], dilation[1] * (kernel_w - 1) - padding[1]
    bottom = size[0] + dilation[0] * (kernel_h - 1) - grad.shape[2] - top
    right = size[1] + dilation[1] * (kernel_w - 1) - grad.shape[3] - left
    grad = crop_or_pad(grad, left, right, top, bottom)
    # [groups * out, in, h, w] -> [groups * in, out, h, w], group by group, in at most four axes.
    flipped = weight.flip(2, 3).reshape(groups, out_channels // groups, in_group, kernel_h * kernel_w).transpose(1, 2)
    kernel = flipped.reshape(groups * in_group, out_channels // groups, kernel_h, kernel_w)
    result: torch.Tensor = _aten.convolution.default(
        grad, kernel, None, [1, 1], [0, 0], list(dilation), False, [0, 0], groups
    )
    return result


def weight_gradient_by_product(
    grad: torch.Tensor,
    values: torch.Tensor,
    weight: torch.Tensor,
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    groups: int,
    *,
    for_tflite: bool,
) -> torch.Tensor:
    """Return the gradient of the weight as one matrix product over the patches, in operators of ONNX or TFLite."""
    out_channels, in_group, kernel_h, kernel_w = weight.shape
    count, channels, (out_h, out_w) = grad.shape[0], values.shape[1], grad.shape[2:]
    places, taps, out_group = out_h * out_w, kernel_h * kernel_w, out_channels // groups
    padded = crop_or_pad(values, padding[1], padding[1], padding[0], padding[0])
    if stride == (1, 1) and taps > 1:
        # With rows as wide as the padded ones, what a tap meets is one run of memory; beyond a row the gradient is 0.
        width = padded.shape[3]
        places = (out_h - 1) * width + out_w
        flat = padded.reshape(count, channels, padded.shape[2] * width)
        met = [
            cut(flat, 2, start, start + places)
            for start in (
                dilation[0] * row * width + dilation[1] * column
                for row in range(kernel_h)
                for column in range(kernel_w)
            )
        ]
        if out_h > 1:
            grad = _pad(grad, (0, width - out_w)) if width > out_w else grad
            grad = cut(grad.reshape(count, out_channels, out_h * width), 2, 0, places)
    elif taps == 1 and not for_tflite:
        # A cut with a stride, which ONNX Runtime's Slice would take on one thread.
        met = [_aten.avg_pool2d.default(padded, [1, 1], list(stride))]
    else:
        met = patches(padded, (kernel_h, kernel_w), stride, dilation, (out_h, out_w))
    rows = torch.cat([tap.reshape(count, channels, 1, places) for tap in met], 2) if taps > 1 else met[0]
    # One product a sample and group: with the samples' places in one row, the patches would have to be transposed.
    rows = rows.reshape(count * groups, in_group * taps, places)
    seen = grad.reshape(count * groups, out_group, places)
    products = torch.bmm(seen, rows.transpose(1, 2)).reshape(count, out_channels * in_group * taps)
    return products.sum(0).reshape(weight.shape)


def _weight_gradient_by_convolution(
    grad: torch.Tensor,
    values: torch.Tensor,
    weight: torch.Tensor,
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    groups: int,
) -> torch.Tensor:
    out_channels, in_group, kernel_h, kernel_w = weight.shape
    count, (out_h, out_w) = grad.shape[0], grad.shape[2:]
    height, width = values.shape[2:]
    together = 1
    if groups == 1 and out_h * out_w < in_group * kernel_h * kernel_w and count % _SAMPLES_AT_ONCE == 0:
        together = _SAMPLES_AT_ONCE
    image = _exchange(values.reshape(count * groups, in_group, height * width))
    image = image.reshape(1, count * groups, height, width * in_group)
    # Only what the windows meet, so that the result has the kernel's size.
    bottom = (out_h - 1) * stride[0] + dilation[0] * (kernel_h - 1) + 1 - height - padding[0]
    right = (out_w - 1) * stride[1] + kernel_w - width - padding[1]
    image = crop_or_pad(image, padding[1] * in_group, right * in_group, padding[0], bottom)
    pieces = count // together
    if together > 1:
        grad = grad.reshape(pieces, together, out_channels, out_h * out_w).transpose(1, 2)
    kernel = grad.reshape(pieces * out_channels, together, out_h, out_w)
    products: torch.Tensor = _aten.convolution.default(
        image,
        kernel,
        None,
        [dilation[0], 1],
        [0, 0],
        [stride[0], stride[1] * in_group],
        False,
        [0, 0],
        pieces * groups,
    )
    products = products.reshape(pieces, out_channels * kernel_h * kernel_w * in_group)
    total = products.sum(0) if pieces > 1 else products
    total = total.reshape(out_channels, kernel_h * kernel_w, in_group)
    return _exchange(total).reshape(weight.shape)


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
) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
    """Return the gradients of input, weight and bias of a two-dimensional convolution, each where *wanted*."""
    if weight.ndim != 4:
        return NotImplemented  # type: ignore[no-any-return]
    step, border, holes = (stride[0], stride[1]), (padding[0], padding[1]), (dilation[0], dilation[1])
    size = (values.shape[2], values.shape[3])
    # Taps that are not next to each other would make runs of single pixels; a kernel of one tap has no patches; and in
    # a depthwise convolution a pixel is one number, of which runs are short either way.
    depthwise = groups > 1 and weight.shape[1] == 1 and step == (1, 1)
    by_product = depthwise or dilation[1] > 1 or weight.shape[2:].numel() == 1
    weight_gradient = (
        partial(weight_gradient_by_product, for_tflite=False) if by_product else _weight_gradient_by_convolution
    )
    if transposed:
        # Image and gradient change places: a transposed convolution is the gradient of a convolution's input.
        back = _aten.convolution.default(
            grad, weight, None, list(step), list(border), list(holes), False, [0, 0], groups
        )
        return (
            back if wanted[0] else None,
            weight_gradient(values, grad, weight, step, border, holes, groups) if wanted[1] else None,
            grad.sum((0, 2, 3)) if wanted[2] else None,
        )
    return (
        input_gradient(grad, weight, size, step, border, holes, groups, transposed=True) if wanted[0] else None,
        weight_gradient(grad, values, weight, step, border, holes, groups) if wanted[1] else None,
        grad.sum((0, 2, 3)) if wanted[2] else None,
    )
