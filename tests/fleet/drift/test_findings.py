"""A window is tested feature by feature; p-value and effect must both cross."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import scipy.spatial.distance
import scipy.stats

from hedgerow.decode import Fields
from hedgerow.errors import DecodeError
from hedgerow.fleet.drift.findings import (
    DriftPlan,
    Finding,
    comparisons_of,
    counts_of,
    spent_alpha,
    test_window,
)
from hedgerow.fleet.settings import FleetSettings
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


def test_a_plan_is_what_a_fleets_settings_say():
    settings = replace(
        FleetSettings(), drift_alpha=0.03, drift_minimum_js=0.2, drift_minimum_samples=77, drift_consecutive=5
    )
    assert DriftPlan.by(settings) == DriftPlan(alpha=0.03, minimum_effect_js=0.2, minimum_samples=77, consecutive=5)


RARE = Reference((FeatureReference("x", (1.0, 2.0, 3.0), (1, 499, 498, 2)),))


def rare(*counts):
    features = {"x": FeatureCounts(counts)}
    seen = Window(release="m@1", index=0, started_at=0.0, ended_at=1.0, samples=sum(counts), features=features)
    return {f.feature: f for f in test_window(RARE, seen, PLAN, **LOOK)}


LOOK = {"slice": "fleet", "look": 1, "comparisons": 3, "rng": np.random.default_rng(0)}


def test_few_values_where_the_reference_has_next_to_none_are_drift_though_the_effect_is_small():
    found = rare(0, 1000, 980, 120)["x"]

    assert found.js_bits < PLAN.minimum_effect_js
    assert found.unseen == pytest.approx(120 / 2100)
    assert found.drifted


def test_fewer_than_the_smallest_share_there_are_none():
    found = rare(0, 1000, 980, 100)["x"]

    assert found.unseen < PLAN.minimum_unseen_share
    assert found.p_value < found.threshold
    assert not found.drifted


def test_few_values_alone_prove_nothing():
    found = rare(0, 30, 27, 3)["x"]

    assert found.unseen == pytest.approx(0.05)
    assert not found.drifted


def test_a_finding_of_before_knew_nothing_of_the_unseen():
    record = rare(0, 30, 27, 3)["x"].to_record()
    del record["unseen"]

    assert Finding.from_fields(Fields(record, "finding")).unseen == 0.0


def test_what_was_missing_in_training_is_no_drift():
    reference = Reference((FeatureReference("x", (1.0,), (400, 400), missing=200),))
    for missing, drifted in ((25, False), (75, True)):
        seen = Window(
            release="m@1",
            index=0,
            started_at=0.0,
            ended_at=1.0,
            samples=100 + missing,
            features={"x": FeatureCounts((50, 50), missing)},
        )
        found = {f.feature: f for f in test_window(reference, seen, replace(PLAN, minimum_effect_js=0.02), **LOOK)}
        assert found["missing:x"].drifted is drifted


def test_wrong_plans_are_named():
    assert len(DriftPlan(minimum_unseen_share=0.0).mistakes()) == 1
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


# Golden figures: by scipy, or by hand


def chi_square(*rows):
    return scipy.stats.chi2_contingency(np.array(rows), correction=False).pvalue


def test_every_figure_of_a_finding_is_that_of_scipy():
    found = findings(window((30, 40, 60, 70), (80, 60, 60), missing=0, out_of_range=90), look=3, comparisons=7)
    seen, usual = np.array((30, 40, 60, 70)), np.array((250, 250, 250, 250))
    moved = found["x"]
    p, q = usual / usual.sum(), seen / seen.sum()
    smooth_p, smooth_q = (usual + 0.5) / (usual + 0.5).sum(), (seen + 0.5) / (seen + 0.5).sum()
    assert (moved.slice, moved.feature, moved.samples) == ("device:d0", "x", 200)
    assert moved.p_value == pytest.approx(chi_square(usual, seen), rel=1e-12)
    assert moved.threshold == pytest.approx(0.01 * 6 / (9 * math.pi**2) / 7, rel=1e-14)
    assert moved.js_bits == pytest.approx(scipy.spatial.distance.jensenshannon(p, q, base=2) ** 2, rel=1e-12)
    assert moved.psi == pytest.approx(float(((smooth_q - smooth_p) * np.log(smooth_q / smooth_p)).sum()), rel=1e-12)
    assert moved.wasserstein_bins == pytest.approx(
        scipy.stats.wasserstein_distance(range(4), range(4), p, q), rel=1e-12
    )
    label = found["output.label"]
    assert label.p_value == pytest.approx(chi_square((400, 300, 300), (80, 60, 60)), rel=1e-12)
    assert label.wasserstein_bins == pytest.approx(0.0, abs=1e-15)
    outside = found["out_of_range"]
    assert (outside.samples, outside.p_value) == (200, pytest.approx(chi_square((1000, 0), (110, 90)), rel=1e-12))


def test_shares_are_compared_with_as_many_samples_as_the_reference_holds():
    found = findings(window((30, 30, 30, 30), (80, 60, 60), missing=80))
    assert found["missing:x"].p_value == pytest.approx(chi_square((1000, 0), (120, 80)), rel=1e-12)
    own = findings(window((30, 30, 30, 30), (80, 60, 60), missing=80), baseline={"x": (100, 100, 100, 100)})
    assert own["missing:x"].p_value == pytest.approx(chi_square((400, 0), (120, 80)), rel=1e-12)
    assert own["x"].p_value == 1.0


def test_a_share_that_is_zero_on_both_sides_is_no_finding_and_one_that_ended_is():
    clean = window((50, 50, 50, 50), (80, 60, 60))
    assert set(findings(clean)) == {"x", "output.label"}
    usual = window((50, 50, 50, 50), (80, 60, 60), missing=50, out_of_range=50)
    assert set(findings(clean, baseline=counts_of(usual))) == {"x", "output.label", "missing:x", "out_of_range"}


def test_counts_of_a_window_are_those_of_every_feature_and_both_shares():
    seen = window((30, 40, 60, 70), (80, 60, 60), missing=10, out_of_range=3)
    assert counts_of(seen) == {
        "x": (30, 40, 60, 70),
        "missing:x": (200, 10),
        "output.label": (80, 60, 60),
        "missing:output.label": (210, 0),
        "out_of_range": (207, 3),
    }
    assert comparisons_of(REFERENCE) == 5


def test_the_smallest_window_that_is_tested_has_as_many_samples_as_the_plan_says():
    assert set(findings(window((0, 0, 0, 49), (20, 20, 9)))) == set()
    assert set(findings(window((0, 0, 0, 50), (20, 20, 10)))) == {"x", "output.label"}


def test_an_effect_at_the_minimum_counts_and_one_below_it_does_not():
    seen = window((30, 40, 60, 70), (80, 60, 60))
    settings = {"slice": "fleet", "look": 1, "comparisons": 5, "rng": np.random.default_rng(0)}
    (effect,) = [f.js_bits for f in test_window(REFERENCE, seen, PLAN, **settings) if f.feature == "x"]
    for minimum, drifted in ((effect, True), (math.nextafter(effect, 1), False)):
        plan = replace(PLAN, minimum_effect_js=minimum)
        (found,) = [f for f in test_window(REFERENCE, seen, plan, **settings) if f.feature == "x"]
        assert found.drifted == drifted
        assert found.p_value < found.threshold


def test_a_p_value_at_the_threshold_is_no_drift():
    """Of the same shares, which have a p-value of 1, at a level that is one for the first look."""
    plan = replace(PLAN, alpha=math.pi**2 / 6, minimum_effect_js=0.0)
    seen, rng = window((50, 50, 50, 50), (80, 60, 60)), np.random.default_rng(0)
    found = test_window(REFERENCE, seen, plan, slice="fleet", look=1, comparisons=1, rng=rng)
    assert [(f.p_value, f.threshold, f.drifted) for f in found] == [(1.0, 1.0, False)] * 2


@pytest.mark.parametrize(
    ("alpha", "minimum", "samples", "consecutive", "mistakes"),
    [
        (1e-9, 0.0, 1, 1, 0),
        (0.999, 0.999, 1, 1, 0),
        (0.0, 0.1, 1, 1, 1),
        (1.0, 0.1, 1, 1, 1),
        (0.5, 1.0, 1, 1, 1),
        (0.5, -0.1, 1, 1, 1),
        (0.5, 0.1, 0, 1, 1),
        (0.5, 0.1, 1, 0, 1),
    ],
)
def test_a_plan_is_right_up_to_its_bounds(alpha, minimum, samples, consecutive, mistakes):
    assert len(DriftPlan(alpha, minimum, samples, consecutive).mistakes()) == mistakes


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("slice", "x" * 129),
        ("feature", "x" * 161),
        ("samples", -1),
        ("p_value", 1.5),
        ("threshold", -0.1),
        ("js_bits", -0.1),
        ("wasserstein_bins", -0.1),
        ("psi", "much"),
        ("drifted", 1),
        ("more", 1),
    ],
)
def test_a_finding_out_of_bounds_is_refused_and_one_at_its_bounds_is_not(name, value):
    edge = Finding("x" * 128, "x" * 160, 0, 1.0, 0.0, 0.0, -1.0, 0.0, drifted=True)
    assert Finding.from_fields(Fields(edge.to_record(), "finding")) == edge
    with pytest.raises(DecodeError, match=name):
        Finding.from_fields(Fields({**edge.to_record(), name: value}, "finding"))


def test_a_reference_that_holds_nothing_finds_nothing_and_one_that_holds_one_sample_is_compared():
    def with_counts(*counts):
        reference = Reference((FeatureReference("x", (1.0,), counts),))
        seen = replace(window((50, 50), ()), features={"x": FeatureCounts((50, 50))}, out_of_range=40)
        found = test_window(reference, seen, PLAN, slice="fleet", look=1, comparisons=1, rng=np.random.default_rng(0))
        return {finding.feature for finding in found}

    assert with_counts(0, 0) == set()
    assert with_counts(1, 0) == {"x", "out_of_range"}
