"""How often which scores came, as whole numbers that add up exactly and keep every mean.

A score says how good one prediction was: 0 worst, 1 best, in whole multiples of :data:`SCORE_UNIT`. A histogram would
keep scores to the width of its bins only, which is coarser than what a gate must tell apart, and a sum alone says
nothing of how they are spread. So every score is shared between the two points of an even grid around it, in
proportion to how near they are ("linear binning", M. Jones, H. Lotwick, On the errors involved in computing the
empirical characteristic function, J. Stat. Comput. Simul. 17, 1983): the mean stays exactly what it was, 0 and 1 stay
themselves, and everything in between spreads by at most half a step.

What is concave in the score becomes smaller by that and never larger (Jensen's inequality). The growth of a gambler's
capital is, so evidence from these counts (:mod:`hedgerow.fleet.rollout.confidence`) is never more than there was.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from hedgerow.decode import Fields
from hedgerow.errors import DecodeError

__all__ = [
    "CHANGE_STEPS",
    "NO_PAIRED_SCORES",
    "NO_SCORES",
    "SCORE_STEPS",
    "SCORE_UNIT",
    "PairedScores",
    "ScoreCounts",
    "fixed_point",
    "spread",
]

SCORE_UNIT = 2.0**-16
"""Scores are whole multiples of it, so that the sum over a fleet does not depend on the order."""

SCORE_STEPS = 16
"""Steps of the grid of scores."""

CHANGE_STEPS = 32
"""Steps of the grid of differences between two scores, which reach from -1 to 1."""

_SHARES = 2**12
"""Parts of which each sample gives some to one grid point and the others to the next; a step is as many units."""


_MOST_PARTS = (2**53 - 1) * _SHARES
"""Parts of as many samples as a sum of windows may hold."""


@dataclass(frozen=True, slots=True)
class ScoreCounts:
    """Counts of numbers in [0, 1] on an even grid.

    Attributes:
        weights: For each grid point the parts of samples that belong to it, 4,096 for each sample in all.
    """

    weights: tuple[int, ...] = (0,) * (SCORE_STEPS + 1)

    @classmethod
    def of(cls, weights: NDArray[np.int64]) -> "ScoreCounts":
        """Return sums of what :func:`spread` gives."""
        return cls(tuple(weights.tolist()))

    @classmethod
    def at(cls, counts: Mapping[float, int], steps: int = SCORE_STEPS) -> "ScoreCounts":
        """Return *counts* of numbers that are known one by one.

        Args:
            counts: Number in [0, 1] -> how often it came.
            steps: Of the grid.
        """
        units = np.rint(np.asarray(list(counts), dtype=np.float64) * _SHARES * steps).astype(np.int64)
        rows = [spread(unit[None], steps) * times for unit, times in zip(units, counts.values(), strict=True)]
        return cls.of(np.asarray(rows, dtype=np.int64).reshape(-1, steps + 1).sum(axis=0))

    def __add__(self, other: "ScoreCounts") -> "ScoreCounts":
        if len(self.weights) != len(other.weights):
            raise ValueError("scores on different grids cannot be added")
        return ScoreCounts(tuple(a + b for a, b in zip(self.weights, other.weights, strict=True)))

    @property
    def samples(self) -> int:
        """How many numbers were counted."""
        return sum(self.weights) // _SHARES

    @property
    def counts(self) -> tuple[float, ...]:
        """Samples at each of :attr:`values`; not whole where numbers lay between two points."""
        return tuple(weight / _SHARES for weight in self.weights)

    @property
    def values(self) -> tuple[float, ...]:
        """The grid's points, from 0 to 1."""
        steps = len(self.weights) - 1
        return tuple(point / steps for point in range(steps + 1))

    @property
    def total(self) -> float:
        """Sum of the numbers, exact up to 2**53 units."""
        return sum(point * weight for point, weight in enumerate(self.weights)) / ((len(self.weights) - 1) * _SHARES)

    @property
    def mean(self) -> float:
        """Mean of the numbers.

        Raises:
            ZeroDivisionError: None was counted.
        """
        return self.total / self.samples

    @property
    def mirrored(self) -> "ScoreCounts":
        """Counts of 1 less each number."""
        return ScoreCounts(self.weights[::-1])

    @classmethod
    def from_fields(cls, fields: Fields, name: str, steps: int, *, limit_samples: int) -> "ScoreCounts":
        """Decode counts.

        Args:
            fields: Where they stand.
            name: Under this name.
            steps: Of their grid.
            limit_samples: More are refused.

        Raises:
            DecodeError: They are not of that grid, are parts of samples, or too many.
        """
        counts = cls(fields.integers(name, maximum=_MOST_PARTS, maximum_items=steps + 1))
        total = sum(counts.weights)
        if len(counts.weights) != steps + 1 or total % _SHARES or total > limit_samples * _SHARES:
            expected = f"{steps + 1} counts of at most {limit_samples} whole samples"
            found = f"{len(counts.weights)} of {total / _SHARES:g}"
            raise DecodeError(f"{fields.where}.{name}", expected, found)
        return counts


@dataclass(frozen=True, slots=True)
class PairedScores:
    """The active model against the one it replaced, on the same inputs.

    Attributes:
        agreement: How alike both answers were, 1 alike; of all samples that both saw.
        change: Half of (1 + the new model's score - the old one's); of those whose target value arrived.
    """

    agreement: ScoreCounts = ScoreCounts()
    change: ScoreCounts = ScoreCounts((0,) * (CHANGE_STEPS + 1))

    def __add__(self, other: "PairedScores") -> "PairedScores":
        return PairedScores(self.agreement + other.agreement, self.change + other.change)

    @property
    def gained(self) -> float:
        """Sum of what the new model's scores were higher, where they were."""
        return _beyond_middle(self.change)

    @property
    def lost(self) -> float:
        """Sum of what the new model's scores were lower, where they were."""
        return _beyond_middle(self.change.mirrored)

    def to_record(self) -> dict[str, Any]:
        """Return this as plain JSON values."""
        return {"agreement": list(self.agreement.weights), "change": list(self.change.weights)}

    @classmethod
    def from_fields(cls, fields: Fields, scores: ScoreCounts, *, limit_samples: int) -> Self:
        """Decode a comparison.

        Args:
            fields: Its record.
            scores: The new model's own, on all samples whose target value arrived.
            limit_samples: Samples that were predicted.

        Raises:
            DecodeError: A field is wrong, or it saw more of the new model than *scores* did: a gate judges by both.
        """
        agreement = ScoreCounts.from_fields(fields, "agreement", SCORE_STEPS, limit_samples=limit_samples)
        most = min(scores.samples, agreement.samples)
        paired = cls(agreement, ScoreCounts.from_fields(fields, "change", CHANGE_STEPS, limit_samples=most))
        fields.finish()
        for found, least, what in (
            (paired.gained, scores.total, "gains"),
            (paired.lost, scores.mirrored.total, "losses"),
        ):
            if found > least:
                expected = f"{what} of at most {least:g} in all, by the window's scores"
                raise DecodeError(f"{fields.where}.change", expected, f"{found:g}")
        return paired


NO_SCORES = ScoreCounts()
NO_PAIRED_SCORES = PairedScores()


def fixed_point(scores: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return scores in whole units of :data:`SCORE_UNIT`, the nearest; what is not finite is worth nothing.

    Args:
        scores: ``float64[n]``; what lies outside [0, 1] is moved to the nearer end.

    Returns:
        ``int64[n]``, each in 0..65536.
    """
    bounded = np.where(np.isfinite(scores), np.minimum(np.maximum(scores, 0.0), 1.0), 0.0)
    return np.rint(bounded / SCORE_UNIT).astype(np.int64)


def spread(units: NDArray[np.int64], steps: int) -> NDArray[np.int64]:
    """Share numbers between the points of a grid.

    Args:
        units: ``int64[n]``, each in ``0..4096 * steps``, which stands for 1.
        steps: Of the grid.

    Returns:
        ``int64[steps + 1]``, the parts of each point.
    """
    lower = np.minimum(units // _SHARES, steps - 1)
    beyond = units - lower * _SHARES
    weights = np.bincount(lower, _SHARES - beyond, steps + 1) + np.bincount(lower + 1, beyond, steps + 1)
    # Sums of whole numbers far below 2**53, so exact.
    return weights.astype(np.int64)


def _beyond_middle(change: ScoreCounts) -> float:
    middle = CHANGE_STEPS // 2
    above = change.weights[middle + 1 :]
    return sum(steps * weight for steps, weight in enumerate(above, start=1)) / (middle * _SHARES)
