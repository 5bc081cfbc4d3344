"""Scalar features of tensors, the same on the server that builds a reference and on the device that counts.

A small tensor (up to 16 elements: a sensor reading) is watched element by element. A larger one (an image, a
spectrogram) is watched through six summaries that cost one pass: mean, standard deviation, roughness (mean absolute
difference of neighbours), the share of values above the midpoint of the valid range, and the centre of mass along the
last two axes. A model's output is watched through its winning class and that class's probability.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hedgerow.schema import ModelSchema, TensorSpec

__all__ = ["CONFIDENCE", "PREDICTED", "input_features", "out_of_range", "output_features", "predicted_classes"]

CONFIDENCE = "output.confidence"
PREDICTED = "output.label"
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


def predicted_classes(probabilities: NDArray[Any]) -> NDArray[np.int64]:
    """Return the most probable class of each sample, ``int64[batch]``; -1 where a probability is not finite.

    What is no number is no prediction: the first of several NaN must not be right by chance.

    Args:
        probabilities: ``(batch, classes)``.
    """
    values = np.asarray(probabilities)
    return np.where(np.isfinite(values).all(axis=1), values.argmax(axis=1), -1).astype(np.int64)


def output_features(probabilities: NDArray[Any]) -> dict[str, NDArray[np.float64]]:
    """Return the confidence and the predicted class of a batch.

    Args:
        probabilities: ``(batch, classes)``.

    Returns:
        :data:`CONFIDENCE` and :data:`PREDICTED`, each ``float64[batch]``; both are NaN where a probability is not
        finite.
    """
    values = np.asarray(probabilities, dtype=np.float64)
    predicted = predicted_classes(values).astype(np.float64)
    is_none = predicted < 0
    return {
        CONFIDENCE: np.where(is_none, np.nan, values.max(axis=1)),
        PREDICTED: np.where(is_none, np.nan, predicted),
    }
