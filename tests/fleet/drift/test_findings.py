"""A window is tested feature by feature; p-value and effect must both cross."""

import json
import math

import numpy as np
import pytest

from hedgerow.decode import Fields
from hedgerow.fleet.drift.findings import (
    DriftPlan,
    Finding,
    comparisons_of,
    counts_of,
    spent_alpha,
    test_window,
)
from hedgerow.reference import FeatureReference, Reference
from hedgerow.window import FeatureCounts, Window

PLAN = DriftPlan()
REFERENCE = Reference(
    (
        FeatureReference("x", (1.0, 2.0, 3.0), (250, 250, 250, 250)),
        FeatureReference("output.label", (0.5, 1.5), (400, 300, 300), ("a", "b", "c")),
    )
)


def window(x, label, *, missing: int = 0, out_of_range: int = 0) -> Window:
    samples = sum(x) + missing
    return Window(
        release="digits@1",
        index=0,
        started_at=0.0,
        ended_at=1.0,
        samples=samples,
        features={"x": FeatureCounts(tuple(x), missing), "output.label": FeatureCounts(tuple(label))},
        out_of_range=out_of_range,
    )


def findings(seen: Window, **more) -> dict[str, Finding]:
    settings = {"slice": "device:d0", "look": 1, "comparisons": 5, "rng": np.random.default_rng(0), **more}
    return {finding.feature: finding for finding in test_window(REFERENCE, seen, PLAN, **settings)}


def test_the_spent_levels_add_up_to_alpha():
    assert spent_alpha(0.01, 1) == pytest.approx(0.01 * 6 / math.pi**2)
    assert sum(spent_alpha(0.01, look) for look in range(1, 200_000)) == pytest.approx(0.01, rel=1e-4)


def test_every_feature_its_missing_share_and_the_range_are_counted_as_comparisons():
    assert comparisons_of(REFERENCE) == 5


def test_an_unchanged_window_has_small_effects_and_no_drift():
    found = findings(window((52, 48, 50, 50), (80, 60, 60)))
    assert sorted(found) == ["output.label", "x"]
    assert not any(finding.drifted for finding in found.values())
    assert all(finding.js_bits < 0.01 and finding.p_value > 0.5 for finding in found.values())


def test_a_moved_feature_drifts_and_the_others_do_not():
    found = findings(window((0, 0, 20, 180), (80, 60, 60)))
    assert found["x"].drifted
    assert found["x"].wasserstein_bins == pytest.approx(1.4)
    assert not found["output.label"].drifted


def test_the_distance_of_categories_is_the_share_that_changed():
    found = findings(window((50, 50, 50, 50), (0, 100, 100)))
    assert found["output.label"].wasserstein_bins == pytest.approx(0.4)
    assert found["output.label"].drifted


def test_a_certain_but_small_change_is_no_drift():
    found = findings(window((5500, 4500, 5500, 4500), (8000, 6000, 6000)), look=1)
    small = found["x"]
    assert small.p_value < small.threshold or small.js_bits < PLAN.minimum_effect_js
    assert not small.drifted


def test_the_threshold_falls_with_looks_and_comparisons():
    seen = window((50, 50, 50, 50), (80, 60, 60))
    first, tenth, more = findings(seen)["x"], findings(seen, look=10)["x"], findings(seen, comparisons=50)["x"]
    assert first.threshold == pytest.approx(spent_alpha(0.01, 1) / 5)
    assert tenth.threshold == pytest.approx(first.threshold / 100)
    assert more.threshold == pytest.approx(first.threshold / 10)


def test_missing_values_are_a_feature_of_their_own():
    found = findings(window((30, 30, 30, 30), (80, 60, 60), missing=80))
    assert found["missing:x"].drifted
    assert not found["x"].drifted
    assert found["x"].samples == 120


def test_a_feature_that_is_missing_altogether_is_found():
    found = findings(window((0, 0, 0, 0), (80, 60, 60), missing=200))
    assert "x" not in found
    assert found["missing:x"].drifted


def test_samples_out_of_range_are_a_feature_of_their_own():
    found = findings(window((50, 50, 50, 50), (80, 60, 60), out_of_range=90))
    assert found["out_of_range"].drifted
    assert not findings(window((50, 50, 50, 50), (80, 60, 60), out_of_range=1))["out_of_range"].drifted


def test_too_few_samples_are_not_tested():
    assert findings(window((0, 0, 0, 49), (20, 20, 9))) == {}


def test_a_baseline_replaces_the_reference():
    """A device that always saw only one class and one bin is at home there."""
    usual = window((0, 0, 0, 200), (200, 0, 0), missing=100, out_of_range=100)
    assert findings(usual)["x"].drifted
    assert not any(finding.drifted for finding in findings(usual, baseline=counts_of(usual)).values())
    assert findings(window((200, 0, 0, 0), (200, 0, 0)), baseline=counts_of(usual))["x"].drifted


def test_a_baseline_of_some_features_leaves_the_others_to_the_reference():
    found = findings(window((0, 0, 0, 200), (200, 0, 0)), baseline={"x": (0, 0, 0, 100)})
    assert not found["x"].drifted
    assert found["output.label"].drifted


def test_findings_survive_storage():
    for finding in findings(window((0, 0, 20, 180), (80, 60, 60), out_of_range=3)).values():
        assert Finding.from_fields(Fields(json.loads(json.dumps(finding.to_record())), "finding")) == finding


def test_wrong_plans_are_named():
    assert PLAN.mistakes() == []
    assert len(DriftPlan(0, 1, 0, 0).mistakes()) == 3


@pytest.mark.heavy
@pytest.mark.parametrize("n", [50, 247])
def test_p_values_fall_below_their_threshold_at_most_as_often_as_alpha_over_all_looks(n):
    """1,000 fleets with 20 looks, one slice: any p-value below its threshold counts, whatever the effect."""
    rng, plan, runs, wrong = np.random.default_rng(3), DriftPlan(alpha=0.1, minimum_effect_js=0.0), 400, 0
    for _ in range(runs):
        for look in range(1, 21):
            x = rng.multinomial(n, [0.25] * 4).tolist()
            label = rng.multinomial(n, [0.4, 0.3, 0.3]).tolist()
            reference = Reference(
                (
                    FeatureReference("x", (1.0, 2.0, 3.0), tuple(rng.multinomial(1000, [0.25] * 4).tolist())),
                    REFERENCE.features[1],
                )
            )
            found = test_window(reference, window(x, label), plan, slice="fleet", look=look, comparisons=5, rng=rng)
            if any(finding.drifted for finding in found):
                wrong += 1
                break
    assert wrong / runs <= plan.alpha
