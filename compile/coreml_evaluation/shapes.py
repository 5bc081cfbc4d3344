"""Operators that move values and compute nothing."""

from collections.abc import Mapping
from typing import Any

import torch
from torch.nn import functional

from hedgerow.compile.coreml_evaluation.operation import NotEvaluatedError, Operation, Operator, Values

__all__ = ["SHAPES"]


def _reshape(call: Operation, values: Values) -> torch.Tensor:
    # The program is static, so the loader knows the shape, whatever -1 or 0 stands for.
    return call.tensor(values, "x").reshape(call.shape)


def _transpose(call: Operation, values: Values) -> torch.Tensor:
    return call.tensor(values, "x").permute(call.constant("perm"))


def _concat(call: Operation, values: Values) -> torch.Tensor:
    parts, axis = call.tensors(values, "values"), int(call.constant("axis"))
    if call.constant("interleave", False):
        axis %= parts[0].ndim
        return torch.stack(parts, axis + 1).flatten(axis, axis + 1)
    return torch.cat(parts, axis)


def _stack(call: Operation, values: Values) -> torch.Tensor:
    return torch.stack(call.tensors(values, "values"), int(call.constant("axis")))


def _split(call: Operation, values: Values) -> tuple[torch.Tensor, ...]:
    x, axis = call.tensor(values, "x"), int(call.constant("axis"))
    sizes = call.constant("split_sizes")
    return torch.split(x, x.shape[axis] // int(call.constant("num_splits")) if sizes is None else sizes, axis)


def _slice_by_index(call: Operation, values: Values) -> torch.Tensor:
    x = call.tensor(values, "x")
    begin, end = call.constant("begin"), call.constant("end")
    steps = call.constant("stride", [1] * x.ndim)
    from_start = call.constant("begin_mask", [False] * x.ndim)
    to_end = call.constant("end_mask", [False] * x.ndim)
    for axis in range(x.ndim):
        chosen = range(x.shape[axis])
        if call.constant("squeeze_mask", [False] * x.ndim)[axis]:
            chosen = chosen[begin[axis] : begin[axis] + 1 or None]
        else:
            window = slice(None if from_start[axis] else begin[axis], None if to_end[axis] else end[axis], steps[axis])
            chosen = chosen[window]
        if chosen != range(x.shape[axis]):
            x = x.index_select(axis, torch.tensor(chosen, dtype=torch.int64))
    return x.reshape(call.shape)


def _slice_by_size(call: Operation, values: Values) -> torch.Tensor:
    x = call.tensor(values, "x")
    for axis, (start, size) in enumerate(zip(call.constant("begin"), call.shape, strict=True)):
        x = x.narrow(axis, start % x.shape[axis] if start < 0 else start, size)
    return x


def _gather(call: Operation, values: Values) -> torch.Tensor:
    x, indices, axis = call.tensor(values, "x"), call.tensor(values, "indices"), int(call.constant("axis", 0))
    if int(call.constant("batch_dims", 0)):
        raise NotEvaluatedError(call.kind, "with batch dimensions")
    places: tuple[Any, ...] = (*(slice(None) for _ in range(axis % x.ndim)), indices.to(torch.int64))
    return x[places]


def _gather_along_axis(call: Operation, values: Values) -> torch.Tensor:
    x, axis = call.tensor(values, "x"), int(call.constant("axis", 0))
    indices = call.tensor(values, "indices").to(torch.int64)
    return torch.gather(x, axis, torch.where(indices < 0, indices + x.shape[axis], indices))


def _pad(call: Operation, values: Values) -> torch.Tensor:
    x, flat = call.tensor(values, "x"), call.constant("pad")
    # Core ML counts from the first padded dimension, torch from the last one.
    pairs = [count for axis in range(len(flat) // 2 - 1, -1, -1) for count in (flat[2 * axis], flat[2 * axis + 1])]
    # A pair for each dimension, most of them of nothing; torch takes no more pairs than it knows a mode for.
    while pairs and not any(pairs[-2:]):
        pairs = pairs[:-2]
    mode = str(call.constant("mode", "constant"))
    if not pairs:
        return x
    if mode == "constant":
        return functional.pad(x, pairs, value=float(call.constant("constant_val", 0.0)))
    return functional.pad(x, pairs, mode={"reflect": "reflect", "replicate": "replicate"}[mode])


def _tile(call: Operation, values: Values) -> torch.Tensor:
    return call.tensor(values, "x").repeat(call.constant("reps"))


def _reverse(call: Operation, values: Values) -> torch.Tensor:
    x, axes = call.tensor(values, "x"), call.constant("axes")
    return x.flip(list(range(x.ndim)) if axes is None else axes)


def _cumsum(call: Operation, values: Values) -> torch.Tensor:
    if call.constant("exclusive", False) or call.constant("reverse", False):
        raise NotEvaluatedError(call.kind, "that is exclusive or reversed")
    return call.tensor(values, "x").cumsum(int(call.constant("axis", 0)))


def _fill(call: Operation, _values: Values) -> torch.Tensor:
    return torch.full(call.shape, float(call.constant("value", 0.0)))


SHAPES: Mapping[str, Operator] = {
    "concat": _concat,
    "cumsum": _cumsum,
    "expand_dims": _reshape,
    "fill": _fill,
    "gather": _gather,
    "gather_along_axis": _gather_along_axis,
    "pad": _pad,
    "reshape": _reshape,
    "reverse": _reverse,
    "slice_by_index": _slice_by_index,
    "slice_by_size": _slice_by_size,
    "split": _split,
    "squeeze": _reshape,
    "stack": _stack,
    "tile": _tile,
    "transpose": _transpose,
}
