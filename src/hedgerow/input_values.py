"""Whether the values of an input are what its specification says. Pure."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hedgerow.schema import TensorSpec

__all__ = ["value_mistakes"]


def value_mistakes(spec: TensorSpec, values: NDArray[Any]) -> list[str]:
    """Return one sentence for everything that is wrong with values of the right shape and dtype."""
    came = values
    if values.dtype.kind == "f":
        absent = np.isnan(values)
        if np.isinf(values).any() or (absent.any() and not spec.missing):
            if spec.missing:
                return [f"{spec.name} holds infinity; a value that is missing is NaN"]
            advice = "where values may be missing say missing=True, and preprocess gets the NaN"
            return [f"{spec.name} holds NaN or infinity; {advice}"]
        came = values[~absent] if absent.any() else values
        if values.size and not came.size:
            return [f"{spec.name} holds nothing but NaN"]
    if not came.size:
        return []
    low, high = came.min(), came.max()
    found = []
    if spec.minimum is not None and low < spec.minimum:
        found.append(f"{spec.name} goes down to {low:g}, the task says {spec.minimum:g}")
    if spec.maximum is not None and high > spec.maximum:
        found.append(f"{spec.name} goes up to {high:g}, the task says {spec.maximum:g}")
    return found or _kind_mistakes(spec, came)


def _kind_mistakes(spec: TensorSpec, came: NDArray[Any]) -> list[str]:
    """Return what contradicts the kind that was said."""
    if came.dtype == np.bool_:
        return []
    match spec.kind:
        case "flag":
            what, is_wrong = "0 or 1", (came != 0) & (came != 1)
        case "category":
            what, is_wrong = "whole numbers", came != np.rint(came)
        case "count" | "tokens":
            what, is_wrong = "whole numbers from 0", (came != np.rint(came)) | (came < 0)
        case _:
            return []
    wrong = came[is_wrong]
    return (
        [f"{spec.name} is said to be of the kind {spec.kind}: expected {what}, found {wrong[0]:g}"]
        if wrong.size
        else []
    )
