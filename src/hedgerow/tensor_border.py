"""The border of a compiled file: real numbers outside, whatever the file stores inside. Pure.

Whoever runs a file converts by these two functions: the compiler, which writes the golden samples, and the device,
which replays them. So both give a file the same bits.

The rule is ONNX Runtime's own (``QuantizeLinear`` and ``DequantizeLinear``), bit for bit: the quotient is a float32,
and half a step goes to the even neighbour. TFLite has no one rule to agree with: XNNPACK multiplies by the reciprocal
of the scale, which moves some half steps; the reference kernels and TensorFlow Lite Micro round them away from zero.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hedgerow.manifest.content import Tensor

__all__ = ["from_stored", "is_whole", "one_sample", "plain_numbers", "to_stored"]


def is_whole(tensors: Iterable[Tensor], values: Mapping[str, NDArray[Any]]) -> bool:
    """Say whether a file has no batch dimension in front: each of its tensors is then one whole sample.

    A schema's shapes leave the batch out. Where a tensor of the file has as many dimensions as the schema says, there
    is no batch in front of them.

    Args:
        tensors: The file's inputs.
        values: Name -> a batch of it, ``(batch, *shape)``.
    """
    return any(np.ndim(values[tensor.name]) == len(tensor.shape) + 1 for tensor in tensors)


def one_sample(values: NDArray[Any], place: int, tensor: Tensor) -> NDArray[Any]:
    """Return one sample of a batch with the dimensions that the file gives it, with a batch of 1 or without one.

    Args:
        values: ``(batch, *shape)``.
        place: Of the sample.
        tensor: The file's.
    """
    return np.asarray(values[place]) if np.ndim(values) == len(tensor.shape) + 1 else values[place : place + 1]


def to_stored(values: NDArray[Any], tensor: Tensor) -> NDArray[Any]:
    """Return *values* as the file takes them, contiguous, in its dtype.

    Where the tensor has a scale that is ``rint(float32(value) / float32(scale)) + zero_point``, cut to the range of the
    dtype. A NaN is no integer, and runtimes make of it what they like (ONNX Runtime the smallest integer, XNNPACK the
    largest): here it is the real zero. Infinities are cut as other large values are.

    Args:
        values: Real numbers of any shape; where the tensor has no scale, values that its dtype holds.
        tensor: A border tensor of the file.
    """
    dtype = np.dtype(tensor.dtype)
    if tensor.scale is None:
        # Not ascontiguousarray: it turns a scalar into a vector.
        return np.asarray(values, dtype=dtype, order="C")
    limits = np.iinfo(dtype)
    # What overflows is cut, and zero over a scale that underflows is zero.
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        quotient = np.asarray(values, dtype=np.float32) / np.float32(tensor.scale)
    # A float64 holds every 32-bit integer.
    steps = np.nan_to_num(np.rint(quotient).astype(np.float64), nan=0.0) + tensor.zero_point
    return np.asarray(np.clip(steps, limits.min, limits.max), dtype=dtype, order="C")


def from_stored(values: NDArray[Any], tensor: Tensor) -> NDArray[Any]:
    """Return what the file gave as real numbers.

    Args:
        values: Values as the file stores them, of any shape.
        tensor: A border tensor of the file.

    Returns:
        ``float32((values - zero_point) * scale)`` where the tensor has a scale; else *values*, in the file's dtype.
    """
    if tensor.scale is None:
        return values
    steps = np.asarray(values).astype(np.float64) - tensor.zero_point
    with np.errstate(over="ignore"):
        return np.asarray(steps.astype(np.float32) * np.float32(tensor.scale))


def plain_numbers(values: NDArray[Any]) -> Any:
    """Return an array as JSON has it, lists of numbers; what is not finite becomes null."""
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        plain = values.astype(object)
        plain[~np.isfinite(values)] = None
        return plain.tolist()
    return values.tolist()
