import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgerow.server.simulation.availability import AlwaysAvailable, DiurnalAvailability
from hedgerow.server.simulation.clock import LocalTime

DEVICES = np.arange(50_000)
IN_STEP = LocalTime(habit_h=0)

models = st.builds(
    lambda seed, low, span, peak: DiurnalAvailability(
        seed=seed, low=low, high=min(1.0, low + span), peak_hour=peak, local=LocalTime(seed=seed, utc_offsets_h=(-5, 3))
    ),
    st.integers(0, 2**32),
    st.floats(0, 0.9),
    st.floats(0.01, 1.0),
    st.floats(0, 23.9),
)


def test_always_available_devices_are_always_available():
    devices = np.arange(3)
    assert AlwaysAvailable().is_available(devices, 1.0).all()
    assert np.isinf(AlwaysAvailable().until(devices, 1.0)).all()
    assert AlwaysAvailable().next_start(devices, 1.0).tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("hour", [0.0, 2.0, 5.0, 8.0, 14.0, 20.0, 50.0])
def test_the_share_of_available_devices_follows_the_profile(hour: float):
    model = DiurnalAvailability(low=0.1, high=0.5, peak_hour=2.0, local=IN_STEP)
    expected = 0.1 + 0.4 * (1 + np.cos(2 * np.pi * (hour - 2) / 24)) / 2
    share = float(model.is_available(DEVICES, hour * 3600).mean())
    assert abs(share - expected) < 4 * np.sqrt(0.25 / len(DEVICES))


def test_time_zones_smooth_the_profile():
    offsets = tuple(float(hour) for hour in range(-12, 12))
    model = DiurnalAvailability(low=0.0, high=0.5, local=LocalTime(utc_offsets_h=offsets))
    shares = [float(model.is_available(DEVICES, hour * 3600.0).mean()) for hour in range(0, 24, 6)]
    assert max(shares) - min(shares) < 0.02


@given(models, st.floats(0, 1e7))
def test_a_window_goes_on_until_its_end_and_no_further(model: DiurnalAvailability, at_s: float):
    devices = np.arange(64)
    here = devices[model.is_available(devices, at_s)]
    ends = model.until(here, at_s)
    assert (ends > at_s).all()
    for share in (0.3, 0.7, 0.999):
        assert model.is_available(here, at_s + share * (np.minimum(ends, at_s + 1e6) - at_s)).all()
    ended = ends < at_s + 300 * 86400
    assert not model.is_available(here[ended], ends[ended] + 0.01).any()


@given(models, st.floats(0, 1e7))
def test_the_next_start_is_the_first_available_moment(model: DiurnalAvailability, at_s: float):
    devices = np.arange(64)
    starts = model.next_start(devices, at_s)
    here = model.is_available(devices, at_s)
    assert (starts[here] == at_s).all()
    coming = ~here & np.isfinite(starts)
    assert model.is_available(devices[coming], starts[coming]).all()
    for share in (0.01, 0.5, 0.99):
        between = at_s + share * (starts[coming] - 1.0 - at_s)
        assert not model.is_available(devices[coming], np.maximum(between, at_s)).any()
    gone = devices[~here]
    assert (model.until(gone, at_s) == at_s).all()


def test_availability_is_the_same_in_any_company():
    model = DiurnalAvailability()
    chosen = np.array([5, 40_000, 7])
    assert model.is_available(chosen, 9e5).tolist() == model.is_available(DEVICES, 9e5)[chosen].tolist()


def test_a_fleet_that_is_always_there_never_leaves():
    model = DiurnalAvailability(low=1.0, high=1.0)
    assert model.is_available(DEVICES, 12 * 3600.0).all()
    assert (model.until(DEVICES[:10], 0.0) > 300 * 86400).all()


@pytest.mark.parametrize(
    "changes", [{"low": -0.1}, {"low": 0.5, "high": 0.4}, {"low": 0, "high": 0}, {"peak_hour": 24}]
)
def test_impossible_profiles_are_refused(changes: dict):
    with pytest.raises(ValueError, match="expected"):
        DiurnalAvailability(**changes)
