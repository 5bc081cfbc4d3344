"""Layers that move values about: up-sampling, padding by the values themselves, choosing by index.

Torch's gradients of these are scatters, which TFLite lacks and ONNX is slow at. What they do along one axis is a linear
map, the same for every row: a product with a constant matrix, whose gradient is a product with the transposed one. The
matrix is what torch's own function makes of the unit matrix, so that every mode and rounding is torch's.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.fx.experimental.proxy_tensor import disable_proxy_modes_tracing

from hedgerow.compile.errors import UntranslatableError

__all__ = ["RESAMPLING"]

_functional = torch.nn.functional
_interpolate, _pad = _functional.interpolate, _functional.pad
_MODES = {"nearest": "nearest", "nearest-exact": "nearest-exact", "linear": "linear", "bilinear": "linear"}
"""Mode of a whole tensor -> that of one of its axes; they go axis by axis."""
_OF_VALUES = frozenset({"reflect", "replicate", "circular"})


def _map_of(size: int, change: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """Return ``float32[size, new size]``: what *change* makes of the unit matrix along its last axis."""
    # A constant of the graph, and none of its operators.
    with disable_proxy_modes_tracing(), torch.no_grad():
        return change(torch.eye(size)[None])[0].contiguous()


def _along(values: torch.Tensor, axis: int, matrix: torch.Tensor) -> torch.Tensor:
    """Return *values* with an axis multiplied by *matrix*, in at most four axes."""
    matrix = matrix.to(values.dtype)
    if axis == values.ndim - 1:
        return values @ matrix
    # The rows of an image stand to the left of its columns.
    return matrix.t() @ values


def _resized(
    values: torch.Tensor,
    size: int | Sequence[int] | None = None,
    scale_factor: float | Sequence[float] | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> torch.Tensor:
    """Return ``torch.nn.functional.interpolate`` of one or two axes, axis by axis."""
    axes = values.ndim - 2
    if mode not in _MODES or axes not in {1, 2} or antialias or not values.is_floating_point():
        # Pre-processing may do so, where there is no gradient; elsewhere the gradient is refused by its name.
        return _interpolate(values, size, scale_factor, mode, align_corners, recompute_scale_factor, antialias)
    sizes, scales = (_each(given, axes) for given in (size, scale_factor))
    for place in range(axes):
        options: dict[str, Any] = {"mode": _MODES[mode], "recompute_scale_factor": recompute_scale_factor}
        options |= {"align_corners": align_corners} if _MODES[mode] == "linear" else {}
        options |= {"size": sizes[place]} if sizes is not None else {"scale_factor": scales[place] if scales else None}
        matrix = _map_of(values.shape[2 + place], lambda unit, o=options: _interpolate(unit, **o))  # type: ignore[misc]
        values = _along(values, 2 + place, matrix)
    return values


def _each(given: Any, axes: int) -> tuple[Any, ...] | None:
    if given is None:
        return None
    return tuple(given) if isinstance(given, Sequence) else (given,) * axes


def _padded(
    values: torch.Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None
) -> torch.Tensor:
    """Return ``torch.nn.functional.pad``; by the values themselves over one or two axes, axis by axis."""
    axes = len(pad) // 2
    if mode == "circular" and axes == 3:
        raise UntranslatableError(("circular padding of three axes",))
    if mode not in _OF_VALUES or axes not in {1, 2} or values.ndim > 4 or not values.is_floating_point():
        return _pad(values, pad, mode, value)
    for place in range(axes):
        before, after = pad[2 * place], pad[2 * place + 1]
        if before or after:
            axis = values.ndim - 1 - place
            amounts = [before, after]
            matrix = _map_of(values.shape[axis], lambda unit, a=amounts: _pad(unit, a, mode))  # type: ignore[misc]
            values = _along(values, axis, matrix)
    return values


def _chosen(indices: torch.Tensor, count: int, dtype: torch.dtype) -> torch.Tensor:
    """Return ``[..., count]``: one at each index, zero elsewhere."""
    return (indices.unsqueeze(-1) == torch.arange(count, dtype=indices.dtype)).to(dtype)


def _gather(values: torch.Tensor, dim: int, index: torch.Tensor, *, sparse_grad: bool = False) -> torch.Tensor:
    """Return ``torch.gather`` along the last axis; its gradient is a product, not a scatter."""
    del sparse_grad
    last = dim % values.ndim == values.ndim - 1
    if not values.is_floating_point() or not last or values.shape[:-1] != index.shape[:-1]:
        return torch.gather(values, dim, index)
    return (_chosen(index, values.shape[-1], values.dtype) * values.unsqueeze(-2)).sum(-1)


def _taken_along(values: torch.Tensor, indices: torch.Tensor, dim: int | None = None) -> torch.Tensor:
    return torch.take_along_dim(values, indices) if dim is None else _gather(values, dim, indices)


def _one_hot(indices: torch.Tensor, num_classes: int = -1) -> torch.Tensor:
    if num_classes < 0:
        raise UntranslatableError(("one_hot without num_classes",))
    return _chosen(indices, num_classes, torch.int64)


def _item(values: torch.Tensor, index: Any) -> torch.Tensor:
    """Return ``values[rows, columns]`` of a matrix by two vectors of indices without a scatter; all else as it is."""
    by_two = isinstance(index, tuple) and len(index) == 2 and all(_is_vector_of_places(part) for part in index)
    if not by_two or not values.is_floating_point() or values.ndim != 2:
        return values[index]
    rows = _chosen(index[0], values.shape[0], values.dtype) @ values
    return (rows * _chosen(index[1], values.shape[1], values.dtype)).sum(-1)


def _is_vector_of_places(part: Any) -> bool:
    whole = isinstance(part, torch.Tensor) and part.ndim == 1
    return whole and not part.is_floating_point() and part.dtype != torch.bool


RESAMPLING: Mapping[Any, Callable[..., Any]] = {
    _interpolate: _resized,
    _pad: _padded,
    torch.gather: _gather,
    torch.Tensor.gather: _gather,
    torch.take_along_dim: _taken_along,
    _functional.one_hot: _one_hot,
    torch.Tensor.__getitem__: _item,
}
"""Function of torch -> what takes its place while a step is traced."""
