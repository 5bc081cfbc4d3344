"""What a device counted against the reference over a period. Windows add up; nothing in them is a sample.

Counting is pure: the clock is passed in. A window belongs to one release, because the bins do.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hedgerow.decode import Fields
from hedgerow.errors import DecodeError
from hedgerow.features import input_features, input_summaries, out_of_range
from hedgerow.model_schema import ModelSchema
from hedgerow.outputs.outputs import Arrays
from hedgerow.reference import Reference
from hedgerow.score_counts import (
    CHANGE_STEPS,
    NO_PAIRED_SCORES,
    NO_SCORES,
    SCORE_STEPS,
    SCORE_UNIT,
    PairedScores,
    ScoreCounts,
    fixed_point,
    spread,
)

__all__ = [
    "LATENCY_EDGES_MS",
    "WINDOW_SAMPLES_LIMIT",
    "FeatureCounts",
    "Window",
    "WindowCounter",
    "merge_windows",
]

LATENCY_EDGES_MS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0)
"""Inner edges of the latency histogram, in milliseconds."""

WINDOW_SAMPLES_LIMIT = 2**24
"""Samples of one window from a device. Sums of windows may hold up to 2**53 - 1, so half a billion of the largest."""

_COUNT_LIMIT = 2**53 - 1
_LATEST_S = 253402300800.0  # the year 10000


@dataclass(frozen=True, slots=True)
class FeatureCounts:
    """One feature's counts in the bins of the reference, and how many values were missing (NaN)."""

    counts: tuple[int, ...]
    missing: int = 0

    def __add__(self, other: "FeatureCounts") -> "FeatureCounts":
        if len(self.counts) != len(other.counts):
            raise ValueError("windows with different bins cannot be added")
        summed = tuple(a + b for a, b in zip(self.counts, other.counts, strict=True))
        return FeatureCounts(summed, self.missing + other.missing)


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """One period of one device under one release.

    Attributes:
        release: ``name@number``.
        index: Rises by one with every window of this boot.
        started_at, ended_at: Unix time in seconds, by the device's clock.
        samples: Predictions made.
        features: Feature name -> counts.
        out_of_range: Samples with any value outside the schema's valid range.
        scores: Of the predictions whose target value arrived.
        latency: Counts in the bins of :data:`LATENCY_EDGES_MS`.
        paired: Comparison with the model before, on samples that both saw.
    """

    release: str
    index: int
    started_at: float
    ended_at: float
    samples: int
    features: Mapping[str, FeatureCounts]
    out_of_range: int = 0
    scores: ScoreCounts = NO_SCORES
    latency: tuple[int, ...] = (0,) * (len(LATENCY_EDGES_MS) + 1)
    paired: PairedScores = NO_PAIRED_SCORES

    def to_record(self) -> dict[str, Any]:
        """Return this as plain JSON values."""
        return {
            "release": self.release,
            "index": self.index,
            "started_at": self.started_at,
            "ended_at": self.ended_at,
            "samples": self.samples,
            "features": {n: {"counts": list(f.counts), "missing": f.missing} for n, f in self.features.items()},
            "out_of_range": self.out_of_range,
            "scores": list(self.scores.weights),
            "latency": list(self.latency),
            "paired": self.paired.to_record(),
        }

    @classmethod
    def from_fields(cls, fields: Fields, *, limit_samples: int = _COUNT_LIMIT) -> "Window":
        """Decode a window, or a sum of windows.

        Args:
            fields: Its record.
            limit_samples: More are refused; :data:`WINDOW_SAMPLES_LIMIT` for what a device sends.

        Raises:
            DecodeError: A field is wrong, or the counts contradict each other.
        """
        samples = fields.integer("samples", maximum=limit_samples)
        scores = ScoreCounts.from_fields(fields, "scores", SCORE_STEPS, limit_samples=samples)
        window = cls(
            release=fields.text("release", maximum_chars=128),
            index=fields.integer("index"),
            started_at=fields.number("started_at", minimum=0, maximum=_LATEST_S),
            ended_at=fields.number("ended_at", minimum=0, maximum=_LATEST_S),
            samples=samples,
            features=fields.mapping("features", _feature_counts),
            out_of_range=fields.integer("out_of_range", maximum=samples),
            scores=scores,
            latency=fields.integers("latency", maximum_items=len(LATENCY_EDGES_MS) + 1),
            paired=PairedScores.from_fields(fields.nested("paired"), scores, limit_samples=samples),
        )
        fields.finish()
        if len(window.latency) != len(LATENCY_EDGES_MS) + 1:
            raise DecodeError(
                f"{fields.where}.latency", f"{len(LATENCY_EDGES_MS) + 1} counts", str(len(window.latency))
            )
        if sum(window.latency) > samples:
            raise DecodeError(f"{fields.where}.latency", f"at most {samples} samples", str(sum(window.latency)))
        for name, feature in window.features.items():
            if sum(feature.counts) + feature.missing != samples:
                raise DecodeError(
                    f"{fields.where}.features[{name}]", f"{samples} values", str(sum(feature.counts) + feature.missing)
                )
        return window


def _feature_counts(fields: Fields) -> FeatureCounts:
    counts = FeatureCounts(fields.integers("counts"), fields.integer("missing"))
    fields.finish()
    return counts


def merge_windows(first: Window, second: Window) -> Window:
    """Add two windows of the same release.

    Raises:
        ValueError: They belong to different releases or have different features.
    """
    if first.release != second.release or set(first.features) != set(second.features):
        raise ValueError(f"cannot add windows of {first.release} and {second.release}")
    return replace(
        first,
        index=max(first.index, second.index),
        started_at=min(first.started_at, second.started_at),
        ended_at=max(first.ended_at, second.ended_at),
        samples=first.samples + second.samples,
        features={name: first.features[name] + second.features[name] for name in first.features},
        out_of_range=first.out_of_range + second.out_of_range,
        scores=first.scores + second.scores,
        latency=tuple(a + b for a, b in zip(first.latency, second.latency, strict=True)),
        paired=first.paired + second.paired,
    )


class WindowCounter:
    """Counts predictions until the window is cut.

    Args:
        release: ``name@number`` of the active release.
        schema: Its schema.
        reference: Its reference.
        first_index: Index of the first window; pass the last counter's :attr:`next_index` when the release changes.
    """

    def __init__(self, release: str, schema: ModelSchema, reference: Reference, *, first_index: int = 0) -> None:
        self._release, self._schema, self._reference = release, schema, reference
        self._next_index = first_index
        self._clear(0.0)

    def _clear(self, now: float) -> None:
        self._started_at = now
        self._samples = self._out_of_range = 0
        self._scores = np.zeros(SCORE_STEPS + 1, dtype=np.int64)
        self._counts = {f.name: np.zeros(len(f.counts), dtype=np.int64) for f in self._reference.features}
        self._missing = dict.fromkeys(self._counts, 0)
        self._latency = np.zeros(len(LATENCY_EDGES_MS) + 1, dtype=np.int64)
        self._paired = [np.zeros(steps + 1, dtype=np.int64) for steps in (SCORE_STEPS, CHANGE_STEPS)]

    @property
    def samples(self) -> int:
        """Predictions counted since the last cut."""
        return self._samples

    @property
    def next_index(self) -> int:
        """Index that the window in progress will have."""
        return self._next_index

    def observe(
        self,
        inputs: Mapping[str, NDArray[Any]],
        answers: Arrays,
        *,
        latency_ms: float,
        now: float,
        wanted: Arrays | None = None,
        previous: Arrays | None = None,
    ) -> None:
        """Count one batch.

        Args:
            inputs: The batch, as the schema says.
            answers: What the active model gave, by output, ``(batch, *shape)``.
            latency_ms: Time of the prediction, for each sample of the batch.
            now: Unix time in seconds.
            wanted: Target values by output, each as its record says where it is not known; None when none is.
            previous: Answers of the model before to the same batch, where it was run.
        """
        # Everything that may raise comes first, so that a batch is counted as a whole or not at all.
        size, outputs = len(next(iter(inputs.values()))), self._schema.answers
        columns = {**input_features(self._schema, inputs), **outputs.features(answers)}
        if not self._counts.keys() <= columns.keys():
            columns = input_summaries(self._schema, inputs) | columns
        binned = {f.name: f.bin(columns[f.name]) for f in self._reference.features}
        missing = {name: int(np.isnan(columns[name]).sum()) for name in binned}
        outside = int(out_of_range(self._schema, inputs).sum())
        known = outputs.known(wanted) if wanted is not None else np.zeros(size, dtype=np.bool_)
        target = {name: values[known] for name, values in (wanted or {}).items()}

        def scored(given: Arrays) -> NDArray[np.int64]:
            if not known.any():
                return np.zeros(0, dtype=np.int64)
            return fixed_point(outputs.scores({name: given[name][known] for name in outputs}, target))

        now_scored = scored(answers)
        scores = spread(now_scored, SCORE_STEPS)
        paired: list[NDArray[np.int64]] = []
        if previous is not None:
            change = now_scored - scored(previous) + round(1 / SCORE_UNIT)
            alike = fixed_point(outputs.agreement(answers, previous))
            paired = [spread(alike, SCORE_STEPS), spread(change, CHANGE_STEPS)]
        if self._samples == 0:
            self._started_at = now
        for name, counts in binned.items():
            self._counts[name] += counts
            self._missing[name] += missing[name]
        self._samples += size
        self._out_of_range += outside
        self._latency[np.searchsorted(LATENCY_EDGES_MS, latency_ms, side="right")] += size
        self._scores += scores
        for place, more in enumerate(paired):
            self._paired[place] += more

    def cut(self, now: float) -> Window | None:
        """Close the window and start the next; None when nothing was counted."""
        if self._samples == 0:
            return None
        window = Window(
            release=self._release,
            index=self._next_index,
            started_at=self._started_at,
            ended_at=now,
            samples=self._samples,
            features={n: FeatureCounts(tuple(c.tolist()), self._missing[n]) for n, c in self._counts.items()},
            out_of_range=self._out_of_range,
            scores=ScoreCounts.of(self._scores),
            latency=tuple(self._latency.tolist()),
            paired=PairedScores(*map(ScoreCounts.of, self._paired)),
        )
        self._next_index += 1
        self._clear(now)
        return window
