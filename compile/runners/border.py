"""Convert values at a file's border: real numbers outside, whatever the file stores inside."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hedgerow.manifest import Tensor

__all__ = ["from_stored", "to_stored"]


def to_stored(values: NDArray[Any], tensor: Tensor) -> NDArray[Any]:
    """Return real *values* as the file takes them: ``round(value / scale) + zero_point``, saturated, when quantized."""
    dtype = np.dtype(tensor.dtype)
    if tensor.scale is None:
        return np.ascontiguousarray(values, dtype=dtype)
    limits = np.iinfo(dtype)
    steps = np.round(np.asarray(values, dtype=np.float64) / tensor.scale) + tensor.zero_point
    return np.clip(steps, limits.min, limits.max).astype(dtype)


def from_stored(values: NDArray[Any], tensor: Tensor) -> NDArray[np.float32]:
    """Return the file's *values* as real numbers."""
    if tensor.scale is None:
        return values.astype(np.float32)
    return ((values.astype(np.float64) - tensor.zero_point) * tensor.scale).astype(np.float32)
