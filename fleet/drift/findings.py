"""Whether a window differs from the reference, feature by feature. Pure: windows in, findings out.

Every feature is tested on exact counts in the reference's bins (:mod:`hedgerow.fleet.drift.two_sample_test`), and so
are the shares of missing and of out-of-range values. The level is spent over looks, ``alpha * 6 / (pi^2 k^2)`` at look
``k`` (the terms add up to alpha), and divided by the number of comparisons (Bonferroni over features and slices). A
finding has drifted when its p-value is below that threshold *and* its effect is above the minimum: in all, or in the
share of values that lie where the reference has next to none, so that few values far outside are not thinned out. When
an alert follows is decided in :mod:`hedgerow.fleet.drift.alerts`.

The p-values assume samples that are independent of each other; a camera that looks at one scene is not. The minimum
effect and the rule of consecutive looks are what holds then; see docs/statistics.md.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from hedgerow.decode import Fields
from hedgerow.fleet.drift.effect_size import js_bits, psi, total_variation, wasserstein_bins
from hedgerow.fleet.drift.two_sample_test import p_value
from hedgerow.fleet.settings import FleetSettings
from hedgerow.reference import MISSING, Reference
from hedgerow.window import Window

__all__ = [
    "OUT_OF_RANGE",
    "DriftPlan",
    "Finding",
    "comparisons_of",
    "counts_of",
    "spent_alpha",
    "test_window",
]

_DEFAULTS = FleetSettings()
_RARE = 1 / 200

OUT_OF_RANGE = "out_of_range"
"""The feature that counts samples outside the schema's range: (inside, outside)."""


@dataclass(frozen=True, slots=True)
class DriftPlan:
    """What counts as drift.

    Attributes:
        alpha: Probability of any finding below its threshold on an unchanged world, over all features, slices and
            looks together.
        minimum_effect_js: Smallest Jensen-Shannon divergence that counts, in bits.
        minimum_samples: Fewer are not tested.
        consecutive: Looks in a row at which the same feature of a slice must have drifted before an alert.
        minimum_unseen_share: Smallest share of values where the reference has next to none that is an effect too.
    """

    alpha: float = _DEFAULTS.drift_alpha
    minimum_effect_js: float = _DEFAULTS.drift_minimum_js
    minimum_samples: int = _DEFAULTS.drift_minimum_samples
    consecutive: int = _DEFAULTS.drift_consecutive
    minimum_unseen_share: float = _DEFAULTS.drift_minimum_unseen

    @classmethod
    def by(cls, settings: FleetSettings) -> Self:
        """Return what a fleet's settings say."""
        return cls(
            alpha=settings.drift_alpha,
            minimum_effect_js=settings.drift_minimum_js,
            minimum_unseen_share=settings.drift_minimum_unseen,
            minimum_samples=settings.drift_minimum_samples,
            consecutive=settings.drift_consecutive,
        )

    def mistakes(self) -> list[str]:
        """Return one sentence for everything that is wrong."""
        found = []
        if not 0 < self.alpha < 1:
            found.append(f"drift: alpha must lie between 0 and 1, not {self.alpha:g}")
        if not 0 <= self.minimum_effect_js < 1:
            found.append(f"drift: minimum_effect_js must lie in [0, 1), not {self.minimum_effect_js:g}")
        if not 0 < self.minimum_unseen_share <= 1:
            found.append(f"drift: minimum_unseen_share must lie in (0, 1], not {self.minimum_unseen_share:g}")
        if self.minimum_samples < 1 or self.consecutive < 1:
            found.append("drift: minimum_samples and consecutive must be at least 1")
        return found


@dataclass(frozen=True, slots=True)
class Finding:
    """One feature of one slice at one look.

    Attributes:
        slice: ``device:<name>``, ``target:<name>`` or ``fleet``.
        feature: The feature; ``missing:<feature>`` or ``out_of_range`` for those shares.
        samples: Values tested.
        p_value: What the two-sample test gave.
        threshold: What it had to be below at this look.
        js_bits: Jensen-Shannon divergence, bits.
        psi: Population stability index, for people who think in it.
        wasserstein_bins: Mean distance moved, in bins; for categories, the share of samples that moved.
        drifted: Whether p-value and effect both crossed.
        unseen: Share of the values that lie in bins where the reference, or the baseline, has next to none: at most one
            in two hundred.
    """

    slice: str
    feature: str
    samples: int
    p_value: float
    threshold: float
    js_bits: float
    psi: float
    wasserstein_bins: float
    drifted: bool
    unseen: float = 0.0

    def to_record(self) -> dict[str, Any]:
        """Return this as plain JSON values."""
        return {
            "slice": self.slice,
            "feature": self.feature,
            "samples": self.samples,
            "p_value": self.p_value,
            "threshold": self.threshold,
            "js_bits": self.js_bits,
            "psi": self.psi,
            "wasserstein_bins": self.wasserstein_bins,
            "drifted": self.drifted,
            "unseen": self.unseen,
        }

    @classmethod
    def from_fields(cls, fields: Fields) -> "Finding":
        """Decode a finding.

        Raises:
            DecodeError: A field is absent, unknown or out of bounds.
        """
        finding = cls(
            slice=fields.text("slice", maximum_chars=128),
            feature=fields.text("feature", maximum_chars=160),
            samples=fields.integer("samples"),
            p_value=fields.number("p_value", minimum=0, maximum=1),
            threshold=fields.number("threshold", minimum=0, maximum=1),
            js_bits=fields.number("js_bits", minimum=0),
            psi=fields.number("psi"),
            wasserstein_bins=fields.number("wasserstein_bins", minimum=0),
            drifted=fields.boolean("drifted"),
            # Findings of before have none.
            unseen=fields.optional_number("unseen", minimum=0, maximum=1) or 0.0,
        )
        fields.finish()
        return finding


def spent_alpha(alpha: float, look: int) -> float:
    """Return what of *alpha* look number *look* (from 1) may spend: ``alpha * 6 / (pi^2 look^2)``."""
    return alpha * 6 / (math.pi * look) ** 2


def comparisons_of(reference: Reference) -> int:
    """Return how many tests one slice takes: each feature, its missing share, and the out-of-range share."""
    return 2 * len(reference.features) + 1


def counts_of(window: Window) -> dict[str, tuple[int, ...]]:
    """Return a window as the counts of every tested feature; what a device's baseline is made of."""
    counts: dict[str, tuple[int, ...]] = {}
    for name, feature in window.features.items():
        counts[name] = feature.counts
        counts[MISSING + name] = (window.samples - feature.missing, feature.missing)
    counts[OUT_OF_RANGE] = (window.samples - window.out_of_range, window.out_of_range)
    return counts


def _expected_counts(
    reference: Reference, baseline: Mapping[str, Sequence[int]] | None
) -> dict[str, tuple[Sequence[int], bool]]:
    """Return, for every tested feature, what to compare with and whether its bins have an order.

    Nothing was out of range when the reference was counted.
    """
    given = baseline or {}
    expected: dict[str, tuple[Sequence[int], bool]] = {}
    size = 0
    for feature in reference.features:
        counts = given.get(feature.name, feature.counts)
        size = max(size, sum(counts) + feature.missing)
        expected[feature.name] = (counts, not feature.categories)
        expected[MISSING + feature.name] = (given.get(MISSING + feature.name, (sum(counts), feature.missing)), True)
    expected[OUT_OF_RANGE] = (given.get(OUT_OF_RANGE, (size, 0)), True)
    return expected


def test_window(
    reference: Reference,
    window: Window,
    plan: DriftPlan,
    *,
    slice: str,  # noqa: A002 - the design's word
    look: int,
    comparisons: int,
    rng: np.random.Generator,
    baseline: Mapping[str, Sequence[int]] | None = None,  # noqa: PT028 - no test of ours
) -> tuple[Finding, ...]:
    """Test every feature of a window.

    Args:
        reference: The one of the window's release.
        window: One device's window, or many merged.
        plan: The thresholds.
        slice: Whose window it is.
        look: How often this slice has been looked at, this time included.
        comparisons: Tests that share the level: :func:`comparisons_of` times the number of slices.
        rng: Decides the draws of permutation tests.
        baseline: Counts that replace the reference's, for the features it names (see :func:`counts_of`); the bins
            stay the reference's.

    Returns:
        One finding for each feature with enough samples; none for a share that is zero on both sides.

    Raises:
        ValueError: The window's bins are not the reference's.
    """
    threshold = spent_alpha(plan.alpha, look) / max(1, comparisons)
    found = counts_of(window)
    findings = []
    for feature, (expected, ordered) in _expected_counts(reference, baseline).items():
        counts = found[feature]
        is_share = feature == OUT_OF_RANGE or feature.startswith(MISSING)
        if sum(counts) < plan.minimum_samples or sum(expected) == 0 or (is_share and counts[1] == expected[1] == 0):
            continue
        probability = p_value(expected, counts, rng, resolution=threshold)
        effect = js_bits(expected, counts)
        rare = _RARE * sum(expected)
        unseen = sum(now for before, now in zip(expected, counts, strict=True) if before <= rare) / sum(counts)
        is_large = effect >= plan.minimum_effect_js or (unseen >= plan.minimum_unseen_share and not is_share)
        distance = wasserstein_bins if ordered else total_variation
        findings.append(
            Finding(
                slice=slice,
                feature=feature,
                samples=sum(counts),
                p_value=probability,
                threshold=threshold,
                js_bits=effect,
                psi=psi(expected, counts),
                wasserstein_bins=distance(expected, counts),
                drifted=probability < threshold and is_large,
                unseen=unseen,
            )
        )
    return tuple(findings)


# pytest must not take it for a test where a test file imports it by name.
test_window.__test__ = False  # type: ignore[attr-defined]
