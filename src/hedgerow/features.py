"""Scalar features of tensors, the same on the server that builds a reference and on the device that counts.

A small tensor (up to 16 elements: a sensor reading) is watched element by element. A larger one (an image, a
spectrogram) is watched through six summaries that cost one pass: mean, standard deviation, roughness (mean absolute
difference of neighbours), the share of values above the midpoint of the valid range, and the centre of mass along the
last two axes. What is watched of an output, its record says (:mod:`hedgerow.outputs`).
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hedgerow.model_schema import ModelSchema
from hedgerow.outputs.outputs import OUTPUT_FEATURES
from hedgerow.schema import TensorSpec

__all__ = ["input_features", "is_output_feature", "out_of_range"]

_ELEMENTWISE = 16


def input_features(schema: ModelSchema, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.float64]]:
    """Return each watched feature of a batch.

    Args:
        schema: The model's schema.
        inputs: One array of shape ``(batch, *shape)`` for every input tensor but those of state, which are not watched.

    Returns:
        Feature name -> ``float64[batch]``; NaN where the tensor holds a NaN (counted as missing).
    """
    features: dict[str, NDArray[np.float64]] = {}
    for spec in schema.given.inputs:
        values = np.asarray(inputs[spec.name], dtype=np.float64)
        flat = _flat(values)
        if flat.shape[1] <= _ELEMENTWISE:
            for index in range(flat.shape[1]):
                suffix = f".{index}" if flat.shape[1] > 1 else ""
                features[f"{spec.name}{suffix}"] = flat[:, index]
        else:
            # Values of 1e308 and infinities overflow to inf or NaN, which are counted as such; no warning is due.
            with np.errstate(over="ignore", invalid="ignore"):
                features.update({f"{spec.name}.{name}": column for name, column in _summaries(spec, values).items()})
    return features


def _flat(values: NDArray[Any]) -> NDArray[Any]:
    # Not reshape(n, -1), which an empty batch does not allow.
    return values.reshape(len(values), math.prod(values.shape[1:]))


def _summaries(spec: TensorSpec, values: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    flat = _flat(values)
    low = spec.minimum if spec.minimum is not None else 0.0
    middle = (low + spec.maximum) / 2 if spec.maximum is not None else low
    columns = {
        "mean": flat.mean(axis=1),
        "std": flat.std(axis=1),
        "high_share": np.where(np.isnan(flat).any(axis=1), np.nan, (flat > middle).mean(axis=1)),
        "roughness": _flat(np.abs(np.diff(values, axis=-1))).mean(axis=1) if values.shape[-1] > 1 else flat[:, 0] * 0,
    }
    mass = np.abs(values - low)
    for axis, name in ((-1, "centre_last"), (-2, "centre_before_last")):
        if values.ndim + axis >= 1 and values.shape[axis] > 1:
            others = tuple(index for index in range(1, values.ndim) if index != values.ndim + axis)
            profile = mass.sum(axis=others)
            total = profile.sum(axis=1)
            position = profile @ np.arange(values.shape[axis], dtype=np.float64)
            middle_position = (values.shape[axis] - 1) / 2
            columns[name] = np.where(total > 0, position / np.where(total > 0, total, 1.0), middle_position)
            columns[name][np.isnan(total)] = np.nan
    return columns


def out_of_range(schema: ModelSchema, inputs: Mapping[str, NDArray[Any]]) -> NDArray[np.bool_]:
    """Return, for each sample of a batch, whether any input value lies outside its valid range."""
    flags: NDArray[np.bool_] | None = None
    for spec in schema.given.inputs:
        flat = _flat(np.asarray(inputs[spec.name]))
        outside = np.zeros(len(flat), dtype=np.bool_)
        if spec.minimum is not None:
            outside |= (flat < spec.minimum).any(axis=1)
        if spec.maximum is not None:
            outside |= (flat > spec.maximum).any(axis=1)
        flags = outside if flags is None else flags | outside
    return np.zeros(0, dtype=np.bool_) if flags is None else flags


def is_output_feature(name: str) -> bool:
    """Return whether a feature describes the model's output, not the world."""
    return name.startswith(f"{OUTPUT_FEATURES}.")
