import numpy as np
import pytest

from hedgerow.server.simulation.clock import LocalTime, VirtualClock


def test_a_clock_begins_at_zero_and_moves_to_events():
    clock = VirtualClock()
    clock.advance_to(5.0)
    clock.advance_to(5.0)
    assert clock.now_s == 5.0


@pytest.mark.parametrize("at_s", [4.9, float("inf"), float("nan")])
def test_a_clock_moves_neither_back_nor_to_no_time(at_s: float):
    clock = VirtualClock(5.0)
    with pytest.raises(ValueError, match="cannot move"):
        clock.advance_to(at_s)


def test_local_time_is_utc_where_nothing_is_said():
    assert LocalTime(habit_h=0).hours(np.arange(3), 7200.0).tolist() == [2.0, 2.0, 2.0]


def test_devices_are_spread_over_time_zones_and_habits():
    hours = LocalTime(utc_offsets_h=(-8.0, 0.0, 9.0), habit_h=0.5).hours(np.arange(3000), 0.0)
    zones = np.array([-8.0, 0.0, 9.0])
    nearest = np.abs(hours[:, None] - zones).argmin(axis=1)
    assert np.abs(hours - zones[nearest]).max() <= 0.5
    assert np.bincount(nearest).min() > 900


@pytest.mark.parametrize("changes", [{"utc_offsets_h": ()}, {"utc_offsets_h": (15.0,)}, {"habit_h": -1.0}])
def test_impossible_local_times_are_refused(changes: dict):
    with pytest.raises(ValueError, match="expected"):
        LocalTime(**changes)
