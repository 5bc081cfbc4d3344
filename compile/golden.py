"""Golden samples: inputs and this very artifact's outputs; a device replays them before it trusts the artifact."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hedgerow.task import Dataset
from hedgerow.weights import encode_arrays

__all__ = ["GOLDEN_SAMPLES", "choose_places", "choose_rows", "choose_samples", "encode_golden", "replay_tolerance"]

GOLDEN_SAMPLES = 16
_SMALLEST, _LARGEST = 0.01, 0.25


def choose_samples(held_out: Dataset) -> Dataset:
    """Return up to :data:`GOLDEN_SAMPLES` samples, spread evenly over *held_out*."""
    return held_out.take(choose_rows(held_out))


def choose_rows(held_out: Dataset) -> NDArray[np.int64]:
    """Return the places of :func:`choose_samples`; one at least has a missing value, where any sample has."""
    places = choose_places(len(held_out))
    is_missing = np.zeros(len(held_out), dtype=np.bool_)
    for values in held_out.inputs.values():
        if values.dtype.kind == "f":
            is_missing |= np.isnan(values).any(axis=tuple(range(1, values.ndim)))
    if is_missing.any() and not is_missing[places].any():
        first = int(np.flatnonzero(is_missing)[0])
        places[int(np.abs(places - first).argmin())] = first
    return places


def choose_places(samples: int) -> NDArray[np.int64]:
    """Return the places of up to :data:`GOLDEN_SAMPLES` samples, spread evenly over so many, in order."""
    count = min(GOLDEN_SAMPLES, samples)
    return np.arange(count) * samples // count


def encode_golden(inputs: Mapping[str, NDArray[Any]], outputs: Mapping[str, NDArray[Any]]) -> bytes:
    """Encode samples as safetensors: ``input.<name>`` and ``output.<name>``."""
    arrays = {f"input.{name}": values for name, values in inputs.items()}
    return encode_arrays(arrays | {f"output.{name}": values for name, values in outputs.items()})


def replay_tolerance(largest_difference: float) -> float:
    """Return the absolute difference at which a replay on other hardware still counts as the same.

    Two right executions of one integer model differ where rounding falls the other way, and each lies within
    *largest_difference* of the float model; so they lie within twice that of each other.

    Args:
        largest_difference: Between the artifact's and the float model's outputs, over held-out data.
    """
    return float(np.clip(2 * largest_difference, _SMALLEST, _LARGEST))
