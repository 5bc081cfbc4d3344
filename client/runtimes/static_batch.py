"""Batches of any size through a file that takes one size alone. Pure."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hedgerow.manifest.content import Tensor

__all__ = ["in_batches", "static_batch"]

Values = NDArray[Any]


def static_batch(tensors: Sequence[Tensor]) -> int | None:
    """Return the batch size that the file was compiled for, or None when it takes any."""
    sizes = {tensor.shape[0] for tensor in tensors if tensor.shape and tensor.shape[0] > 0}
    return min(sizes) if sizes else None


def in_batches(
    run: Callable[[Mapping[str, Values]], dict[str, Values]], inputs: Mapping[str, Values], size: int | None
) -> dict[str, Values]:
    """Run *run*, which takes batches of exactly *size*, over a batch of any size; the last one is padded.

    Args:
        run: Makes outputs of inputs.
        inputs: Each ``(batch, *shape)``, with one batch size.
        size: The static batch; None: any.
    """
    total = len(next(iter(inputs.values())))
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
