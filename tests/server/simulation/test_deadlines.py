from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgerow.server.simulation.availability import AlwaysAvailable, DiurnalAvailability
from hedgerow.server.simulation.battery import Battery
from hedgerow.server.simulation.clock import LocalTime
from hedgerow.server.simulation.deadlines import (
    DeviceOutcome,
    DeviceWork,
    RoundPolicy,
    RoundSchedule,
    device_times,
    schedule_round,
)
from hedgerow.server.simulation.population import DeviceKind, Network, Population
from hedgerow.server.simulation.traces import TraceAvailability, decode_trace

# Every device needs 1 s to connect, 2 s to download, 3 s an epoch of 10 samples, 4 s to upload.
EVEN = Population(
    100,
    kinds={DeviceKind("even", 1e9, 2.0): 1.0},
    speed_sigma=0.0,
    network=Network(down_bits_per_s=4e6, up_bits_per_s=2e6, sigma=0.0, setup_s=1.0),
)
WORK = DeviceWork(down_bytes=1_000_000, up_bytes=1_000_000, flops_per_sample=3e8, epochs=2)
TEN = np.full(3, 10)
THREE = np.array([4, 2, 9])

populations = st.builds(
    lambda seed, sigma, drop_out, diurnal: Population(
        1000,
        seed=seed,
        speed_sigma=sigma,
        drop_out=drop_out,
        availability=DiurnalAvailability(seed=seed, low=0.3, high=0.9) if diurnal else AlwaysAvailable(),
    ),
    st.integers(0, 2**32),
    st.floats(0, 2),
    st.sampled_from([0.0, 0.3]),
    st.booleans(),
)
cohorts = st.lists(st.integers(0, 999), min_size=1, max_size=30, unique=True).map(np.array)
deadlines = st.sampled_from([0.5, 1.0, 2.0, 4.0, 8.0, 20.0, 100.0, np.inf])
policies = st.builds(
    RoundPolicy, deadline_s=deadlines, wanted=st.none() | st.integers(1, 30), keep_partial=st.booleans()
)
DAYS = DeviceWork(down_bytes=100_000, up_bytes=100_000, flops_per_sample=1e8, epochs=3)


def play(population: Population, devices: np.ndarray, policy: RoundPolicy, now_s: float = 7200.0) -> RoundSchedule:
    samples = 20 + devices % 80
    return schedule_round(population, devices, DAYS, samples=samples, now_s=now_s, round_number=1, policy=policy)


def test_a_round_lasts_as_long_as_its_slowest_device():
    schedule = schedule_round(EVEN, THREE, WORK, samples=np.array([10, 20, 10]), now_s=100.0, round_number=1)
    assert schedule.outcomes.tolist() == [DeviceOutcome.DONE] * 3
    assert schedule.settled_at_s.tolist() == [113.0, 119.0, 113.0]
    assert (schedule.starts_at_s, schedule.ends_at_s) == (100.0, 119.0)
    assert schedule.epochs.tolist() == [2, 2, 2]
    assert schedule.energy_j.tolist() == [12.0, 24.0, 12.0]
    assert schedule.counts() == {"done": 3, "partial": 0, "late": 0, "dropped": 0, "unavailable": 0}


def test_a_deadline_ends_the_round():
    policy = RoundPolicy(deadline_s=15.0)
    schedule = schedule_round(
        EVEN, THREE, WORK, samples=np.array([10, 20, 10]), now_s=100.0, round_number=1, policy=policy
    )
    assert schedule.outcomes.tolist() == [DeviceOutcome.DONE, DeviceOutcome.LATE, DeviceOutcome.DONE]
    assert schedule.ends_at_s == 115.0
    assert schedule.epochs.tolist() == [2, 0, 2]
    assert schedule.energy_j.tolist() == [12.0, 24.0, 12.0]  # the late one has computed for nothing


def test_stragglers_may_send_what_they_have():
    policy = RoundPolicy(deadline_s=15.0, keep_partial=True)
    schedule = schedule_round(
        EVEN, THREE, WORK, samples=np.array([10, 20, 30]), now_s=100.0, round_number=1, policy=policy
    )
    assert schedule.outcomes.tolist() == [DeviceOutcome.DONE, DeviceOutcome.PARTIAL, DeviceOutcome.LATE]
    assert schedule.epochs.tolist() == [2, 1, 0]
    assert schedule.settled_at_s.tolist() == [113.0, 113.0, 115.0]
    assert schedule.counts_update.tolist() == [True, True, False]


def test_the_first_k_of_n_end_the_round_and_equal_times_go_by_number():
    schedule = schedule_round(EVEN, THREE, WORK, samples=TEN, now_s=0.0, round_number=1, policy=RoundPolicy(wanted=2))
    assert dict(zip(THREE.tolist(), schedule.outcomes.tolist(), strict=True)) == {
        2: DeviceOutcome.DONE,
        4: DeviceOutcome.DONE,
        9: DeviceOutcome.LATE,
    }
    assert schedule.ends_at_s == 13.0


def test_a_round_that_gets_too_few_ends_when_nobody_is_left():
    everyone_drops = replace(EVEN, drop_out=1.0)
    schedule = schedule_round(
        everyone_drops, THREE, WORK, samples=TEN, now_s=50.0, round_number=1, policy=RoundPolicy(wanted=2)
    )
    assert schedule.outcomes.tolist() == [DeviceOutcome.DROPPED] * 3
    assert 50.0 < schedule.ends_at_s == schedule.settled_at_s.max() < 63.0


def test_who_is_not_there_does_not_begin_and_who_leaves_does_not_finish():
    trace = decode_trace(b"device,start_s,end_s\na,0,1000\nb,0,55\nc,60,100\n", "trace")
    population = replace(EVEN, availability=TraceAvailability(trace))
    schedule = schedule_round(population, np.arange(3), WORK, samples=TEN, now_s=50.0, round_number=1)
    assert schedule.outcomes.tolist() == [DeviceOutcome.DONE, DeviceOutcome.DROPPED, DeviceOutcome.UNAVAILABLE]
    assert schedule.settled_at_s.tolist() == [63.0, 55.0, 50.0]
    assert schedule.energy_j.tolist() == [12.0, 4.0, 0.0]


def test_a_round_of_nobody_takes_no_time():
    schedule = schedule_round(EVEN, np.array([], dtype=int), WORK, samples=np.array([]), now_s=7.0, round_number=1)
    assert schedule.ends_at_s == 7.0


def test_a_low_battery_does_not_take_part():
    battery = Battery(daily_use=(0.5, 0.5), capacity_j=1000.0, local=LocalTime(habit_h=0))
    population = replace(EVEN, battery=battery)
    noon_s = 14 * 3600.0  # the level is 3/4
    schedule = schedule_round(
        population, THREE, WORK, samples=TEN, now_s=noon_s, round_number=1, used_j=np.array([0.0, 540.0, 560.0])
    )
    assert schedule.outcomes.tolist() == [DeviceOutcome.DONE, DeviceOutcome.DONE, DeviceOutcome.UNAVAILABLE]


def test_dropping_out_is_drawn_anew_in_each_round():
    population = replace(EVEN, devices=1000, drop_out=0.5)
    devices = np.arange(1000)
    outcomes = [
        schedule_round(population, devices, WORK, samples=np.full(1000, 10), now_s=0.0, round_number=number).outcomes
        for number in (1, 1, 2)
    ]
    assert (outcomes[0] == outcomes[1]).all()
    assert 400 < (outcomes[0] != outcomes[2]).sum() < 600


@given(populations, cohorts, policies, st.integers(0, 2**32))
def test_the_order_of_devices_does_not_matter(
    population: Population, devices: np.ndarray, policy: RoundPolicy, shuffle: int
):
    order = np.random.default_rng(shuffle).permutation(len(devices))
    one, other = play(population, devices, policy), play(population, devices[order], policy)
    assert one.ends_at_s == other.ends_at_s
    for name in ("devices", "outcomes", "epochs", "settled_at_s", "energy_j"):
        assert getattr(one, name)[order].tolist() == getattr(other, name).tolist()


@given(populations, cohorts, policies)
def test_outcomes_times_and_epochs_fit_each_other(population: Population, devices: np.ndarray, policy: RoundPolicy):
    schedule = play(population, devices, policy)
    assert sum(schedule.counts().values()) == len(devices)
    assert schedule.counts_update.sum() <= (policy.wanted or len(devices))
    assert schedule.starts_at_s <= schedule.ends_at_s <= schedule.starts_at_s + policy.deadline_s
    assert np.isfinite(schedule.ends_at_s)
    assert (schedule.settled_at_s <= schedule.ends_at_s).all()
    assert ((schedule.epochs > 0) == schedule.counts_update).all()
    assert (schedule.epochs[schedule.outcomes == DeviceOutcome.DONE] == DAYS.epochs).all()
    assert (schedule.epochs[schedule.outcomes == DeviceOutcome.PARTIAL] < DAYS.epochs).all()
    assert (schedule.energy_j >= 0).all()
    if schedule.counts_update.sum() == policy.wanted:
        assert schedule.ends_at_s == schedule.settled_at_s[schedule.counts_update].max()


@given(populations, cohorts, deadlines, deadlines, st.none() | st.integers(1, 30))
def test_a_longer_deadline_ends_no_round_earlier_and_loses_no_update(
    population: Population, devices: np.ndarray, one_s: float, other_s: float, wanted: int | None
):
    short_s, long_s = sorted([one_s, other_s])
    short = play(population, devices, RoundPolicy(deadline_s=short_s, wanted=wanted))
    long = play(population, devices, RoundPolicy(deadline_s=long_s, wanted=wanted))
    assert short.ends_at_s <= long.ends_at_s
    assert (short.counts_update <= long.counts_update).all()


@given(populations, cohorts, deadlines, deadlines)
def test_a_longer_deadline_leaves_time_for_more_epochs(
    population: Population, devices: np.ndarray, one_s: float, other_s: float
):
    there = replace(population, availability=AlwaysAvailable(), drop_out=0.0)
    short_s, long_s = sorted([one_s, other_s])
    short = play(there, devices, RoundPolicy(deadline_s=short_s, keep_partial=True))
    long = play(there, devices, RoundPolicy(deadline_s=long_s, keep_partial=True))
    assert (short.epochs <= long.epochs).all()


def test_times_are_bytes_over_rates_and_operations_over_speed():
    times = device_times(EVEN, THREE, WORK, TEN)
    assert (times.before_s.tolist(), times.epoch_s.tolist()) == ([3.0] * 3, [3.0] * 3)
    assert times.total_s(2).tolist() == [13.0] * 3


@pytest.mark.parametrize(
    "make",
    [
        lambda: DeviceWork(down_bytes=-1, up_bytes=0, flops_per_sample=1.0),
        lambda: DeviceWork(down_bytes=0, up_bytes=0, flops_per_sample=float("inf")),
        lambda: DeviceWork(down_bytes=0, up_bytes=0, flops_per_sample=1.0, epochs=0),
        lambda: RoundPolicy(deadline_s=0.0),
        lambda: RoundPolicy(wanted=0),
        lambda: RoundPolicy(minimum_battery=2.0),
    ],
)
def test_impossible_work_and_policies_are_refused(make):
    with pytest.raises(ValueError, match="expected"):
        make()
