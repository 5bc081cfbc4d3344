"""Batches of any size through a file that takes one size alone. Pure."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hedgerow.manifest.content import Tensor
from hedgerow.tensor_border import is_whole

__all__ = ["in_batches", "static_batch"]

Values = NDArray[Any]


def static_batch(tensors: Sequence[Tensor]) -> int | None:
    """Return the batch size that the file was compiled for, or None when it takes any."""
    sizes = {tensor.shape[0] for tensor in tensors if tensor.shape and tensor.shape[0] > 0}
    return min(sizes) if sizes else None


def in_batches(
    run: Callable[[Mapping[str, Values]], dict[str, Values]],
    inputs: Mapping[str, Values],
    size: int | None,
    tensors: Sequence[Tensor] = (),
) -> dict[str, Values]:
    """Run *run*, which takes batches of exactly *size*, over a batch of any size; the last one is padded.

    Args:
        run: Makes outputs of inputs.
        inputs: Each ``(batch, *shape)``, with one batch size.
        size: The static batch; None: any.
        tensors: The file's inputs. Where they have no batch in front, *run* gets one sample at a time and no batch.
    """
    total = len(next(iter(inputs.values())))
    if is_whole(tensors, inputs):
        return _one_by_one(run, inputs, total)
    if size is None or total == size:
        return run(inputs)
    pieces = []
    for start in range(0, total, size):
        piece = {name: values[start : start + size] for name, values in inputs.items()}
        got = min(size, total - start)
        if got < size:
            piece = {name: np.concatenate([v, np.repeat(v[-1:], size - got, axis=0)]) for name, v in piece.items()}
        pieces.append({name: values[:got] for name, values in run(piece).items()})
    if not pieces:
        # An empty batch still has outputs of the right shape.
        zero = {name: np.zeros((size, *values.shape[1:]), dtype=values.dtype) for name, values in inputs.items()}
        return {name: values[:0] for name, values in run(zero).items()}
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}


def _one_by_one(
    run: Callable[[Mapping[str, Values]], dict[str, Values]], inputs: Mapping[str, Values], total: int
) -> dict[str, Values]:
    """Run *run* on each sample, without a batch dimension."""
    samples = [{name: values[place] for name, values in inputs.items()} for place in range(total)]
    # An empty batch still has outputs of the right shape.
    zero = {name: np.zeros(values.shape[1:], dtype=values.dtype) for name, values in inputs.items()}
    given = [run(sample) for sample in samples or [zero]]
    return {name: np.stack([each[name] for each in given])[:total] for name in given[0]}
