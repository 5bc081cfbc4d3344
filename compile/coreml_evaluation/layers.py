"""Convolutions, matrix products, pooling, normalisations and softmax, in float32."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch.nn import functional

from hedgerow.compile.coreml_evaluation.operation import NotEvaluatedError, Operation, Operator, Values

__all__ = ["LAYERS"]


def _padding(call: Operation, sizes: tuple[int, ...], kernel: list[int], strides: list[int]) -> list[tuple[int, int]]:
    """Return how many values are added before and after each spatial dimension."""
    kind = str(call.constant("pad_type", "valid")).lower()
    if kind == "custom":
        flat = call.constant("pad")
        return [(flat[2 * axis], flat[2 * axis + 1]) for axis in range(len(kernel))]
    if kind in {"same", "same_lower"}:
        found = []
        for size, window, stride in zip(sizes, kernel, strides, strict=True):
            total = max(0, (math.ceil(size / stride) - 1) * stride + window - size)
            small, large = total // 2, total - total // 2
            found.append((large, small) if kind == "same_lower" else (small, large))
        return found
    return [(0, 0)] * len(kernel)


def _padded(x: torch.Tensor, padding: list[tuple[int, int]], value: float) -> torch.Tensor:
    # torch counts from the last dimension.
    flat = [count for pair in reversed(padding) for count in pair]
    return functional.pad(x, flat, value=value) if any(flat) else x


def _conv(call: Operation, values: Values) -> torch.Tensor:
    x, weight, bias = (call.tensor(values, "x"), call.tensor(values, "weight"), call.optional(values, "bias"))
    spatial = weight.ndim - 2
    strides = call.constant("strides", [1] * spatial)
    dilations = call.constant("dilations", [1] * spatial)
    # A kernel with holes covers as much as this one without.
    kernel = [(size - 1) * step + 1 for size, step in zip(weight.shape[2:], dilations, strict=True)]
    x = _padded(x, _padding(call, tuple(x.shape[2:]), kernel, strides), 0.0)
    convolve: Any = (functional.conv1d, functional.conv2d, functional.conv3d)[spatial - 1]
    result: torch.Tensor = convolve(x, weight, bias, strides, 0, dilations, int(call.constant("groups", 1)))
    return result


def _conv_transpose(call: Operation, values: Values) -> torch.Tensor:
    x, weight, bias = (call.tensor(values, "x"), call.tensor(values, "weight"), call.optional(values, "bias"))
    spatial = weight.ndim - 2
    kind = str(call.constant("pad_type", "valid")).lower()
    if kind not in {"valid", "custom"}:
        raise NotEvaluatedError(call.kind, f"with the padding {kind}")
    strides, dilations = call.constant("strides", [1] * spatial), call.constant("dilations", [1] * spatial)
    pads = call.constant("pad") if kind == "custom" else [0] * (2 * spatial)
    convolve: Any = (functional.conv_transpose1d, functional.conv_transpose2d, functional.conv_transpose3d)[spatial - 1]
    full: torch.Tensor = convolve(x, weight, bias, strides, 0, 0, int(call.constant("groups", 1)), dilations)
    for axis in range(spatial):
        size = call.shape[2 + axis]
        if pads[2 * axis] + size > full.shape[2 + axis]:
            raise NotEvaluatedError(call.kind, "whose output is larger than what its kernel meets")
        full = full.narrow(2 + axis, pads[2 * axis], size)
    return full


def _linear(call: Operation, values: Values) -> torch.Tensor:
    return functional.linear(call.tensor(values, "x"), call.tensor(values, "weight"), call.optional(values, "bias"))


def _matmul(call: Operation, values: Values) -> torch.Tensor:
    x, y = call.tensor(values, "x"), call.tensor(values, "y")
    x = x.transpose(-1, -2) if call.constant("transpose_x", False) else x
    y = y.transpose(-1, -2) if call.constant("transpose_y", False) else y
    return torch.matmul(x, y)


def _einsum(call: Operation, values: Values) -> torch.Tensor:
    return torch.einsum(str(call.constant("equation")), *call.tensors(values, "values"))


def _pool(call: Operation, values: Values, *, average: bool) -> torch.Tensor:
    x, kernel = call.tensor(values, "x"), call.constant("kernel_sizes")
    strides = call.constant("strides", [1] * len(kernel))
    padding = _padding(call, tuple(x.shape[2:]), kernel, strides)
    if call.constant("ceil_mode", False):
        # The window may hang over the end: as many more values as it needs, which do not count.
        padding = [
            (before, after + max(0, (size_out - 1) * stride + window - (size + before + after)))
            for (before, after), size_out, stride, window, size in zip(
                padding, call.shape[2:], strides, kernel, x.shape[2:], strict=True
            )
        ]
    if not average:
        pool: Any = (functional.max_pool1d, functional.max_pool2d, functional.max_pool3d)[len(kernel) - 1]
        largest: torch.Tensor = pool(_padded(x, padding, -math.inf), kernel, strides)
        return largest
    pool = (functional.avg_pool1d, functional.avg_pool2d, functional.avg_pool3d)[len(kernel) - 1]
    mean: torch.Tensor = pool(_padded(x, padding, 0.0), kernel, strides)
    if call.constant("exclude_padding_from_average", False) or call.constant("ceil_mode", False):
        mean = mean / pool(_padded(torch.ones_like(x), _counted(call, padding), 0.0), kernel, strides)
    return mean


def _counted(call: Operation, padding: list[tuple[int, int]]) -> list[tuple[int, int]]:
    if not call.constant("exclude_padding_from_average", False) and any(sum(pair) for pair in padding):
        raise NotEvaluatedError(call.kind, "in ceil mode that counts padding")
    return padding


def _max_pool(call: Operation, values: Values) -> torch.Tensor:
    return _pool(call, values, average=False)


def _average_pool(call: Operation, values: Values) -> torch.Tensor:
    return _pool(call, values, average=True)


def _channels(values: torch.Tensor | None, rank: int, absent: float) -> torch.Tensor | float:
    return absent if values is None else values.reshape(-1, *(1 for _ in range(rank - 2)))


def _batch_norm(call: Operation, values: Values) -> torch.Tensor:
    x = call.tensor(values, "x")
    mean, variance, gamma, beta = (
        _channels(call.optional(values, name), x.ndim, absent)
        for name, absent in (("mean", 0.0), ("variance", 1.0), ("gamma", 1.0), ("beta", 0.0))
    )
    scale = gamma / torch.sqrt(torch.as_tensor(variance + float(call.constant("epsilon", 1e-5))))
    return (x - mean) * scale + beta


def _instance_norm(call: Operation, values: Values) -> torch.Tensor:
    x = call.tensor(values, "x")
    normal = _standardized(x, list(range(2, x.ndim)), float(call.constant("epsilon", 1e-5)))
    gamma = _channels(call.optional(values, "gamma"), x.ndim, 1.0)
    return normal * gamma + _channels(call.optional(values, "beta"), x.ndim, 0.0)


def _layer_norm(call: Operation, values: Values) -> torch.Tensor:
    x, axes = call.tensor(values, "x"), call.constant("axes")
    axes = sorted(axis % x.ndim for axis in (range(x.ndim) if axes is None else axes))
    normal = _standardized(x, axes, float(call.constant("epsilon", 1e-5)))
    sizes = [x.shape[axis] if axis in axes else 1 for axis in range(x.ndim)]
    gamma, beta = call.optional(values, "gamma"), call.optional(values, "beta")
    normal = normal if gamma is None else normal * gamma.reshape(sizes)
    return normal if beta is None else normal + beta.reshape(sizes)


def _standardized(x: torch.Tensor, axes: list[int], epsilon: float) -> torch.Tensor:
    mean = x.mean(axes, keepdim=True)
    return (x - mean) / torch.sqrt((x - mean).square().mean(axes, keepdim=True) + epsilon)


def _softmax(call: Operation, values: Values) -> torch.Tensor:
    return torch.softmax(call.tensor(values, "x"), int(call.constant("axis", -1)))


def _attention(call: Operation, values: Values) -> torch.Tensor:
    query, key, value = (call.tensor(values, name) for name in ("query", "key", "value"))
    scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
    mask = call.optional(values, "attn_mask")
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else scores + mask
    return torch.softmax(scores, -1) @ value


LAYERS: Mapping[str, Operator] = {
    "avg_pool": _average_pool,
    "batch_norm": _batch_norm,
    "conv": _conv,
    "conv_transpose": _conv_transpose,
    "einsum": _einsum,
    "instance_norm": _instance_norm,
    "layer_norm": _layer_norm,
    "linear": _linear,
    "matmul": _matmul,
    "max_pool": _max_pool,
    "scaled_dot_product_attention": _attention,
    "softmax": _softmax,
}
