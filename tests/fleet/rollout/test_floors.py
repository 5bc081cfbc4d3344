"""The floor is what the user asked for, or what was measured, with its uncertainty, less the margin."""

from dataclasses import replace

import pytest

from hedgerow.fleet.rollout.floors import Floor, floor_of, measured_floor
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
