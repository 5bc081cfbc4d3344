"""Golden samples: inputs and this very artifact's outputs; a device replays them before it trusts the artifact."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hedgerow.compile.scoring import largest_differences
from hedgerow.outputs import Outputs
from hedgerow.outputs.outputs import Arrays
from hedgerow.task import Dataset
from hedgerow.weights import encode_arrays

__all__ = [
    "GOLDEN_SAMPLES", "NO_TOLERANCES", "Tolerances", "choose_places", "choose_rows", "choose_samples", "encode_golden",
    "replay_tolerance", "replay_tolerances",
]  # fmt: skip

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


def replay_tolerance(largest_difference: float, unit: float = 1.0) -> float:
    """Return the absolute difference at which a replay on other hardware still counts as the same.

    Two right executions of one integer model differ where rounding falls the other way, and each lies within
    *largest_difference* of the float model; so they lie within twice that of each other.

    Args:
        largest_difference: Between the artifact's and the float model's outputs, over held-out data.
        unit: How large the output's numbers are; 1 for probabilities.
    """
    return float(np.clip(2 * largest_difference, _SMALLEST * unit, _LARGEST * unit))


@dataclass(frozen=True, slots=True)
class Tolerances:
    """How far a replay may be from the golden samples.

    Attributes:
        of: Output -> its own, of every output but state.
    """

    of: Mapping[str, float]

    @property
    def largest(self) -> float:
        """The tolerance of what has none of its own; 0 where nothing is known."""
        return max(self.of.values(), default=0.0)

    @property
    def least(self) -> float:
        """The narrowest tolerance of all; 0 where nothing is known."""
        return min(self.of.values(), default=0.0)

    @property
    def unlike(self) -> Mapping[str, float]:
        """What an artifact says beside the largest: nothing of a model with one output."""
        return self.of if len(self.of) > 1 else {}

    def worst(self, differences: Mapping[str, float]) -> tuple[float, float]:
        """Return the difference that is the largest in its output's tolerances, and that tolerance."""

        def in_tolerances(name: str) -> float:
            tolerance = self.of.get(name, self.largest)
            return differences[name] / tolerance if tolerance else float("inf") if differences[name] else 0.0

        name = max(differences, key=in_tolerances)
        return differences[name], self.of.get(name, self.largest)


NO_TOLERANCES = Tolerances({})


def replay_tolerances(outputs: Outputs, floats: Arrays, answers: Arrays) -> Tolerances:
    """Return how far a replay elsewhere may be from an artifact's golden samples, by :func:`replay_tolerance`.

    Args:
        outputs: What the model's outputs are for.
        floats: The float model's answers to held-out data.
        answers: The artifact's.
    """
    found = {}
    differences = largest_differences({name: floats[name] for name in outputs}, answers)
    for name, output in outputs.items():
        spec = output.tensor(name)
        is_share = (spec.minimum, spec.maximum) == (0.0, 1.0)
        unit = 1.0 if is_share else float(np.abs(floats[name]).max(initial=0.0)) or 1.0
        known = np.isfinite(differences[name]) and np.isfinite(unit)
        found[name] = replay_tolerance(differences[name], unit) if known else 0.0
    return Tolerances(found)
