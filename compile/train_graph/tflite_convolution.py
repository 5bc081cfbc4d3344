"""Two-dimensional convolutions and their gradients in the operators that TFLite's fast kernels take."""

from collections.abc import Sequence

import torch

from hedgerow.compile.train_graph.convolution import input_gradient, weight_gradient_by_product
from hedgerow.compile.train_graph.products import Convolution

__all__ = ["tflite_convolution", "tflite_convolution_backward"]

_aten = torch.ops.aten


def tflite_convolution(
    values: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
) -> torch.Tensor:
    """Return a convolution, or a transposed one, as products; with groups, as a plain one."""
    if weight.ndim != 4:
        return NotImplemented  # type: ignore[no-any-return]
    step, border, holes = _pair(stride), _pair(padding), _pair(dilation)
    given, made = _pair(values.shape[2:]), []
    for axis in (0, 1):
        reach = holes[axis] * (weight.shape[2 + axis] - 1) + 1 - 2 * border[axis]
        if transposed:
            made.append((given[axis] - 1) * step[axis] + reach + output_padding[axis])
        else:
            made.append((given[axis] - reach) // step[axis] + 1)
    products = _products(
        made if transposed else given, weight, stride, padding, dilation, given if transposed else made
    )
    if groups == 1 and products.spares_work:
        found = products.input_gradient(values, weight) if transposed else products.forward(values, weight)
    elif transposed:
        found = input_gradient(values, weight, _pair(made), step, border, holes, groups, transposed=False)
    else:
        return NotImplemented  # type: ignore[no-any-return]
    found = found if bias is None else found + bias.reshape(1, -1, 1, 1)
    # A product's rows are samples and places, so its channels are last in memory; torch's global pooling changes the
    # strides of what it makes of such a tensor in place, which has no translation. In a file no strides are left.
    return found.clone(memory_format=torch.contiguous_format)


def tflite_convolution_backward(
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
    """Return the gradients of input, weight and bias, each where *wanted*."""
    if weight.ndim != 4:
        return NotImplemented  # type: ignore[no-any-return]
    # Image and gradient change places: a transposed convolution is the gradient of a convolution's input.
    large, small = (grad, values) if transposed else (values, grad)
    products = _products(large.shape[2:], weight, stride, padding, dilation, small.shape[2:])
    settings = (_pair(stride), _pair(padding), _pair(dilation), groups)
    by_rows = groups == 1 and products.spares_work
    back = by_weight = None
    if wanted[0] and by_rows:
        back = products.forward(grad, weight) if transposed else products.input_gradient(grad, weight)
    elif wanted[0] and transposed:
        back = _aten.convolution.default(grad, weight, None, stride, padding, dilation, False, [0, 0], groups)
    elif wanted[0]:
        back = input_gradient(grad, weight, _pair(values.shape[2:]), *settings, transposed=False)
    if wanted[1] and by_rows:
        by_weight = products.weight_gradient(small, large)
    elif wanted[1]:
        by_weight = weight_gradient_by_product(small, large, weight, *settings, for_tflite=True)
    return back, by_weight, grad.sum((0, 2, 3)) if wanted[2] else None


def _pair(values: Sequence[int]) -> tuple[int, int]:
    return (values[0], values[1])


def _products(
    values: Sequence[int],
    weight: torch.Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    out: Sequence[int],
) -> Convolution:
    return Convolution(
        values=_pair(values),
        kernel=_pair(weight.shape[2:]),
        stride=_pair(stride),
        padding=_pair(padding),
        dilation=_pair(dilation),
        out=_pair(out),
    )
