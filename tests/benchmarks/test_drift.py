"""A tenth of the simulated windows of docs/statistics.md, with the same seed."""

import pytest
from benchmarks.drift import WORLDS, alerts_without_change, simulate

pytestmark = pytest.mark.heavy


@pytest.mark.parametrize("world", WORLDS)
def test_an_unchanged_input_of_any_kind_looks_changed_at_most_about_as_often_as_the_level_says(world):
    found = simulate(world, samples=500, reference_samples=5000, windows=400, seed=1)

    # Two standard errors of a share of 0.05 among 400 are 0.022, of one of 0.01 0.01.
    assert found.below[0.05] <= 0.05 + 0.022
    assert found.below[0.01] <= 0.01 + 0.01
    assert found.found <= 2


def test_no_device_of_ten_raises_an_alert_over_twenty_windows():
    assert alerts_without_change(runs=10, windows=20, samples=200, reference_samples=2000, seed=1) == 0
