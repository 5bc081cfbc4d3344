import pytest

from hedgerow.fleet.drift.baselines import (
    device_baselines,
    grown_baseline,
    normal_before,
    reference_counts,
    without_outputs,
)
from hedgerow.fleet.records import StoredWindow
from hedgerow.reference import FeatureReference, Reference
from tests.fleet.virtual_fleet import make_window


def stored(device, received_at, x):
    return StoredWindow(device=device, received_at=received_at, window=make_window("toy@1", x=x))


WINDOWS = [stored("a", 1, (50, 50)), stored("b", 2, (40, 60)), stored("a", 10, (90, 10)), stored("a", 11, (80, 20))]


def test_a_devices_baseline_is_what_it_saw_since_then_or_last_before():
    baselines = device_baselines(WINDOWS, since=5)
    assert baselines["a"]["x"] == (170, 30)
    assert baselines["b"]["x"] == (40, 60)


def test_a_baseline_says_nothing_of_the_model_before():
    names = set(device_baselines(WINDOWS, since=5)["a"])
    assert names == {"x", "missing:x", "out_of_range"}


def test_the_reference_of_a_retrained_release_is_what_the_whole_fleet_saw():
    assert reference_counts(WINDOWS, since=5) == {"x": (210, 90)}
    assert reference_counts([], since=5) == {}


@pytest.mark.parametrize("since", [0, 5, 100])
def test_every_device_that_sent_a_window_counts(since):
    assert set(device_baselines(WINDOWS, since)) == {"a", "b"}


def test_the_outputs_of_a_retrained_model_are_first_counted_on_the_device():
    own = device_baselines(WINDOWS, since=5)["a"]
    window = make_window("toy@2", x=(1, 99))
    grown = grown_baseline(own, window, samples=200)
    assert grown["x"] == (170, 30), "it was complete"
    assert grown["output.confidence"] == (20, 80)
    again = grown_baseline(grown, window, samples=200)
    assert again["output.confidence"] == (40, 160)
    assert grown_baseline(again, window, samples=200) == again


def test_a_device_that_joined_later_is_its_own_baseline():
    assert grown_baseline({}, make_window("toy@2", x=(7, 93)), samples=200)["x"] == (7, 93)


def test_what_came_before_gives_the_inputs_and_the_model_itself_its_outputs():
    before = Reference(
        (FeatureReference("x", (0.0,), (500, 500)), FeatureReference("output.confidence", (0.8,), (200, 800)))
    )
    own = Reference((FeatureReference("x", (0.0,), (9, 1)), FeatureReference("output.confidence", (0.8,), (5, 5))))
    normal = normal_before(own, before)
    assert {feature.name: feature.counts for feature in normal.features} == {
        "x": (500, 500),
        "output.confidence": (5, 5),
    }


def test_counts_in_other_bins_are_not_taken_over():
    before = Reference((FeatureReference("x", (1.0,), (500, 500)),))
    own = Reference((FeatureReference("x", (0.0,), (9, 1)), FeatureReference("y", (0.0,), (3, 4))))
    assert normal_before(own, before) == own


def test_baselines_of_another_model_are_taken_without_its_outputs():
    own = grown_baseline({}, make_window("toy@1"), samples=200)
    assert set(without_outputs({"a": own})["a"]) == {"x", "missing:x", "out_of_range"}
