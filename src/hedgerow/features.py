"""Scalar features of tensors, the same on the server that builds a reference and on the device that counts.

Of an input, what is watched goes by its kind (:attr:`hedgerow.schema.TensorSpec.counted_as`):

- sensor, category, flag, count: each value by itself, under its channel's name; of a series with named channels, each
  channel's mean and spread. An input of more channels than a window can tell (:data:`hedgerow.bins.MOST_BYTES`), and
  one of several dimensions without names, is watched as a picture is.
- image: six summaries that cost one pass: mean, standard deviation, roughness (mean absolute difference of
  neighbours), the share of values above the midpoint of the valid range, and the centre of mass along the last two
  axes.
- audio: mean, standard deviation, roughness, the largest magnitude, and how often the sign changes.
- tokens: how many different ones, and the share of the most frequent one.

What is watched of an output, its record says (:mod:`hedgerow.outputs`).
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hedgerow.bins import BYTES_OF_COUNT, BYTES_OF_FEATURE, LEAST_COUNTS, MOST_BYTES
from hedgerow.model_schema import ModelSchema
from hedgerow.outputs.outputs import OUTPUT_FEATURES
from hedgerow.schema import SMALL, TensorSpec

__all__ = ["input_features", "input_summaries", "is_output_feature", "out_of_range", "whole_features"]

_BY_VALUE = frozenset({"sensor", "category", "flag", "count"})

Columns = dict[str, NDArray[np.float64]]


def input_features(schema: ModelSchema, inputs: Mapping[str, NDArray[Any]]) -> Columns:
    """Return each watched feature of a batch.

    Args:
        schema: The model's schema.
        inputs: One array of shape ``(batch, *shape)`` for every input tensor but those of state, which are not watched.
            With more dimensions in front, such as steps of sequences, each of these counts as a sample.

    Returns:
        Feature name -> ``float64[batch]``; NaN where the tensor holds a NaN (counted as missing). Where values may be
        missing, summaries are those of the values that came, and ``<tensor>.gaps`` is the share of the others.
    """
    features: Columns = {}
    for spec, names in _watched(schema):
        given = np.asarray(inputs[spec.name])
        size = math.prod(spec.shape)
        values = given.reshape(given.size // size, *spec.shape).astype(np.float64)
        if names and len(names) == size:
            features.update(zip(names, _flat(values).T, strict=True))
            continue
        # Values of 1e308 and infinities overflow to inf or NaN, which are counted as such; no warning is due.
        with np.errstate(over="ignore", invalid="ignore"):
            if names:
                features.update(_series(spec, values, names))
            else:
                features.update({f"{spec.name}.{name}": column for name, column in _summed_up(spec, values).items()})
    return features


def input_summaries(schema: ModelSchema, inputs: Mapping[str, NDArray[Any]]) -> Columns:
    """Return the six summaries of each input of more than :data:`hedgerow.schema.SMALL` values, whatever its kind.

    That is what references of before knew of such an input, and their releases are counted by them as long as they run.

    Args:
        schema: The model's schema.
        inputs: As :func:`input_features` takes them.
    """
    features: Columns = {}
    for spec in schema.given.inputs:
        values = np.asarray(inputs[spec.name], dtype=np.float64)
        if math.prod(spec.shape) > SMALL:
            with np.errstate(over="ignore", invalid="ignore"):
                features.update({f"{spec.name}.{name}": column for name, column in _summaries(spec, values).items()})
    return features


def whole_features(schema: ModelSchema) -> frozenset[str]:
    """Return the watched features of the inputs whose values are whole numbers."""
    return frozenset(
        name
        for spec, names in _watched(schema)
        if len(names) == math.prod(spec.shape)
        and (spec.counted_as in {"category", "flag", "count"} or spec.dtype != "float32")
        for name in names
    )


def _watched(schema: ModelSchema) -> Iterator[tuple[TensorSpec, list[str]]]:
    """Yield each input with the names of its channels; none where it is watched through summaries."""
    left = MOST_BYTES
    for spec in schema.given.inputs:
        names = _channel_names(spec)
        parts = 1 if len(names) == math.prod(spec.shape) else 2 + spec.missing
        fixed = BYTES_OF_FEATURE + LEAST_COUNTS * BYTES_OF_COUNT + (len(".mean") if parts > 1 else 0)
        needed = parts * sum(len(name.encode()) + fixed for name in names)
        if needed > left:
            names, needed = [], 0
        left -= needed
        yield spec, names


def _channel_names(spec: TensorSpec) -> list[str]:
    size = math.prod(spec.shape)
    if spec.counted_as not in _BY_VALUE:
        return []
    if spec.channels and (len(spec.channels) == size or spec.counted_as == "sensor"):
        return [f"{spec.name}.{channel}" for channel in spec.channels]
    if size == 1:
        return [spec.name]
    is_each = len(spec.shape) == 1 or size <= SMALL or spec.counted_as != "sensor"
    return [f"{spec.name}.{index}" for index in range(size)] if is_each else []


def _flat(values: NDArray[Any]) -> NDArray[Any]:
    # Not reshape(n, -1), which an empty batch does not allow.
    return values.reshape(len(values), math.prod(values.shape[1:]))


def _series(spec: TensorSpec, values: NDArray[np.float64], names: list[str]) -> Columns:
    """Return each channel's mean and spread over the other dimensions."""
    axis = spec.channel_axis or 0
    columns: Columns = {}
    by_channel = np.moveaxis(values, axis + 1, 0)
    for name, part in zip(names, by_channel, strict=True):
        flat, gaps = _filled(spec, _flat(part))
        columns[f"{name}.mean"], columns[f"{name}.std"] = flat.mean(axis=1), flat.std(axis=1)
        if gaps is not None:
            columns[f"{name}.gaps"] = gaps
    return columns


def _filled(spec: TensorSpec, flat: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
    """Return rows with the mean of what came in the place of what did not, and the share of that where it may be."""
    if not spec.missing:
        return flat, None
    absent = np.isnan(flat)
    came = np.maximum((~absent).sum(axis=1), 1)
    mean = np.where(absent, 0.0, flat).sum(axis=1) / came
    mean[absent.all(axis=1)] = np.nan
    return np.where(absent, mean[:, None], flat), absent.mean(axis=1)


def _summed_up(spec: TensorSpec, values: NDArray[np.float64]) -> Columns:
    flat, gaps = _filled(spec, _flat(values))
    more = {} if gaps is None else {"gaps": gaps}
    if spec.counted_as == "tokens":
        return _tokens(flat)
    if spec.counted_as == "audio":
        return _audio(flat) | more
    return _summaries(spec, flat.reshape(values.shape)) | more


def _tokens(flat: NDArray[np.float64]) -> Columns:
    ordered = np.sort(flat, axis=1)
    starts = np.ones(flat.shape, dtype=np.bool_)
    starts[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    distinct = starts.sum(axis=1).astype(np.float64)
    longest = [int(np.diff([*np.flatnonzero(row), len(row)]).max()) for row in starts]
    return {"distinct": distinct, "most_frequent": np.asarray(longest, dtype=np.float64) / flat.shape[1]}


def _audio(flat: NDArray[np.float64]) -> Columns:
    is_up = flat >= 0
    changes = (is_up[:, 1:] != is_up[:, :-1]).sum(axis=1) / max(1, flat.shape[1] - 1)
    return {
        "mean": flat.mean(axis=1),
        "std": flat.std(axis=1),
        "roughness": np.abs(np.diff(flat, axis=1)).mean(axis=1) if flat.shape[1] > 1 else flat[:, 0] * 0,
        "peak": np.abs(flat).max(axis=1),
        "sign_changes": np.where(np.isnan(flat).any(axis=1), np.nan, changes),
    }


def _summaries(spec: TensorSpec, values: NDArray[np.float64]) -> Columns:
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
