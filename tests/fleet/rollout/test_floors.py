"""The floor is what the user asked for, or what was measured, with its uncertainty, less the margin."""

from dataclasses import replace

import numpy as np
import pytest

from hedgerow.fleet.rollout.floors import BASELINE, Floor, floor_of, measured_floor
from hedgerow.outputs import Classes, Outputs, Reconstruction, Values
from hedgerow.server import outcome
from tests.fleet.virtual_fleet import make_manifest


def test_the_users_floor_goes_before_what_was_measured():
    floor = floor_of(make_manifest("toy@1"), ["raspberry-pi-4"], 0.8, 0.02, 0.025)

    assert floor == Floor(0.8, "which was asked for")


@pytest.mark.parametrize(
    ("right", "samples", "low"),
    # The lower 97.5 % Clopper-Pearson bounds of textbooks: 8 of 10, 95 of 100; 0 of 10 is 0; all of 10 is 0.025^(1/10).
    [(8, 10, 0.4439), (95, 100, 0.8872), (0, 10, 0.0), (10, 10, 0.025 ** (1 / 10))],
)
def test_the_measured_floor_is_the_lower_bound_less_the_margin(right, samples, low):
    floor = measured_floor(right / samples, samples, 0.02, 0.025)

    assert floor.score == pytest.approx(max(0.0, low - 0.02), abs=1e-4)
    assert floor.alpha == 0.025
    assert f"measured on {samples} samples before release less 2 points" in floor.origin


def test_a_measurement_on_an_unknown_number_of_samples_counts_as_exact():
    floor = measured_floor(0.95, 0, 0.02, 0.025)

    assert (floor.score, floor.alpha) == (pytest.approx(0.93), 0.0)


def test_the_lowest_floor_of_the_devices_targets_is_that_of_all():
    manifest = make_manifest("toy@1")
    pi, phone = manifest.artifacts
    manifest = replace(manifest, artifacts=(replace(pi, metrics={"accuracy": 0.9}), phone))

    assert floor_of(manifest, [pi.target, phone.target], None, 0.02, 0.025).score == pytest.approx(0.88)
    assert floor_of(manifest, [phone.target], None, 0.02, 0.025).score == pytest.approx(0.93)


def test_without_a_measurement_there_is_no_floor():
    manifest = make_manifest("toy@1")
    manifest = replace(manifest, artifacts=tuple(replace(a, metrics={}) for a in manifest.artifacts))

    assert floor_of(manifest, ["raspberry-pi-4"], None, 0.02, 0.025) is None
    assert floor_of(make_manifest("toy@1"), ["iphone-15"], None, 0.02, 0.025) is None
    assert floor_of(make_manifest("toy@1"), [], None, 0.02, 0.025) is None


@pytest.mark.parametrize("accuracy", [0.0, 0.5, 0.52])
def test_a_release_that_was_measured_at_chance_has_no_floor(accuracy):
    """Two classes: a coin is right on half of the samples."""
    assert floor_of(make_manifest("toy@1", accuracy=accuracy), ["raspberry-pi-4"], None, 0.02, 0.025) is None
    assert floor_of(make_manifest("toy@1", accuracy=accuracy), ["raspberry-pi-4"], 0.4, 0.02, 0.025).score == 0.4


def of_kind(outputs: Outputs, **metrics: float):
    """A release of such outputs, measured so."""
    made = make_manifest("toy@1")
    schema = replace(made.model_schema, outputs=outputs.tensors(), answers=outputs)
    return replace(made, model_schema=schema, artifacts=tuple(replace(a, metrics=metrics) for a in made.artifacts))


VALUES = Outputs.of(Values("level", tolerance=1.0))


def test_the_floor_of_any_kind_is_the_score_that_was_measured_under_its_name():
    assert floor_of(of_kind(VALUES, score=0.8), ["raspberry-pi-4"], None, 0.02, 0.025).score == pytest.approx(0.78)
    assert floor_of(of_kind(VALUES, accuracy=0.8), ["raspberry-pi-4"], None, 0.02, 0.025) is None


@pytest.mark.parametrize(("mean", "samples"), [(0.8, 200), (0.5, 50), (1.0, 100), (0.05, 400)])
def test_of_scores_between_nought_and_one_the_floor_is_the_end_of_hoeffdings_interval(mean, samples):
    """The least true mean whose bound of the tail is 2.5 %, found by halving."""
    low, high = 0.0, mean
    for _ in range(60):
        middle = (low + high) / 2
        distance = mean * np.log(mean / middle) + (0 if mean == 1 else (1 - mean) * np.log((1 - mean) / (1 - middle)))
        low, high = (middle, high) if samples * distance > -np.log(0.025) else (low, middle)

    floor = floor_of(of_kind(VALUES, score=mean, held_out_samples=samples), ["raspberry-pi-4"], None, 0.001, 0.025)

    assert floor.score == pytest.approx(max(0, low - 0.001), abs=1e-9)
    assert f"the {mean:.1%} (at least {low:.1%}) measured on {samples} samples" in floor.origin


def test_a_measured_floor_of_spread_scores_lies_above_the_truth_at_most_as_often_as_it_says():
    rng = np.random.default_rng(5)
    truth, above = 0.3, 0
    for _ in range(2000):
        scores = np.where(rng.random(60) < 0.4, rng.random(60) / 2 + 0.5, 0.0)
        above += measured_floor(float(scores.mean()), 60, 0.0, 0.05, is_all_or_nothing=False).score > truth

    assert above / 2000 <= 0.05


def test_flags_are_right_or_wrong_as_classes_are():
    floor = floor_of(
        of_kind(Outputs.of(Reconstruction(threshold=1.0)), score=0.95, held_out_samples=100),
        ["raspberry-pi-4"],
        None,
        0.02,
        0.025,
    )

    assert floor == measured_floor(0.95, 100, 0.02, 0.025)


def test_a_release_that_is_no_better_than_its_baseline_has_no_floor():
    """Nine of ten samples are of one class: who always answers it is right on 90 %."""
    assert BASELINE == outcome.BASELINE
    made = replace(of_kind(Outputs.of(Classes(("no", "yes"))), accuracy=0.92), metrics={f"{BASELINE}accuracy": 0.9})

    assert floor_of(made, ["raspberry-pi-4"], None, 0.03, 0.025) is None
    assert floor_of(made, ["raspberry-pi-4"], None, 0.01, 0.025).score == pytest.approx(0.91)
    assert floor_of(replace(made, metrics={}), ["raspberry-pi-4"], None, 0.03, 0.025).score == pytest.approx(0.89)
