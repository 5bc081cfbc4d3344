from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hedgerow.server.errors import NotEnoughDevicesError
from hedgerow.server.simulation.arrivals import BufferedPlan, BufferedStep, buffered_steps
from hedgerow.server.simulation.availability import AlwaysAvailable, DiurnalAvailability
from hedgerow.server.simulation.battery import Battery
from hedgerow.server.simulation.deadlines import DeviceWork
from hedgerow.server.simulation.population import DeviceKind, Network, Population
from hedgerow.server.simulation.traces import TraceAvailability, decode_trace

WORK = DeviceWork(down_bytes=1_000_000, up_bytes=1_000_000, flops_per_sample=3e8, epochs=2)
EVEN = Population(
    100,
    kinds={DeviceKind("even", 1e9, 2.0): 1.0},
    speed_sigma=0.0,
    network=Network(down_bits_per_s=4e6, up_bits_per_s=2e6, sigma=0.0, setup_s=1.0),
)


def ten(devices: np.ndarray) -> np.ndarray:
    return np.full(len(devices), 10)


def play(population: Population, plan: BufferedPlan, steps: int = 20, work: DeviceWork = WORK) -> list[BufferedStep]:
    return list(islice(buffered_steps(population, work, plan, samples=ten), steps))


def test_even_devices_come_in_waves():
    steps = play(EVEN, BufferedPlan(concurrency=4, buffer=2), 4)
    assert [step.version for step in steps] == [1, 2, 3, 4]
    assert [step.at_s for step in steps] == [13.0, 13.0, 26.0, 26.0]
    assert [[arrival.staleness for arrival in step.arrivals] for step in steps] == [[0, 0], [1, 1], [2, 1], [2, 1]]
    assert [len(step.starts) for step in steps] == [5, 2, 2, 2]


def test_a_buffer_of_all_devices_at_work_is_never_stale_but_for_those_that_went_on():
    plan = BufferedPlan(concurrency=1, buffer=1)
    steps = play(EVEN, plan, 5)
    assert [arrival.staleness for step in steps for arrival in step.arrivals] == [0] * 5
    assert [step.at_s for step in steps] == [13.0, 26.0, 39.0, 52.0, 65.0]


def test_stale_updates_weigh_less():
    plan = BufferedPlan()
    assert [plan.weight(staleness) for staleness in (0, 3, 8)] == pytest.approx([1.0, 0.5, 1 / 3])
    assert replace(plan, staleness_exponent=0.0).weight(100) == 1.0


populations = st.builds(
    lambda devices, seed, sigma, drop_out, diurnal: Population(
        devices,
        seed=seed,
        speed_sigma=sigma,
        drop_out=drop_out,
        availability=DiurnalAvailability(seed=seed) if diurnal else AlwaysAvailable(),
        battery=Battery(seed=seed) if diurnal else None,
    ),
    st.sampled_from([1, 7, 200]),
    st.integers(0, 2**32),
    st.floats(0, 2),
    st.sampled_from([0.0, 0.4]),
    st.booleans(),
)
plans = st.builds(BufferedPlan, concurrency=st.integers(1, 12), buffer=st.integers(1, 8))


@settings(max_examples=25)
@given(populations, plans)
def test_every_run_obeys_the_rules(population: Population, plan: BufferedPlan):
    steps = play(population, plan, 8)
    started, arrived = {}, {}
    for before, step in zip([None, *steps], steps, strict=False):
        assert step.at_s >= (before.at_s if before else 0)
        assert len(step.arrivals) == plan.buffer
        for start in step.starts:
            assert start.version == step.version - 1
            assert start.arrives
            started[start.number] = start
        for arrival in step.arrivals:
            assert started[arrival.start.number] == arrival.start
            assert arrival.start.number not in arrived
            assert arrival.start.at_s < arrival.start.ends_at_s <= step.at_s
            assert arrival.staleness == step.version - 1 - arrival.start.version >= 0
            arrived[arrival.start.number] = arrival
    moments = [start.at_s for start in started.values()]
    for moment in moments:
        at_work = [s.device for s in started.values() if s.at_s <= moment < s.ends_at_s]
        assert len(at_work) == len(set(at_work)) <= plan.concurrency
    assert len({(s.device, s.version, s.repeat) for s in started.values()}) == len(started)


@settings(max_examples=10)
@given(populations, plans)
def test_the_same_run_comes_again(population: Population, plan: BufferedPlan):
    assert play(population, plan, 4) == play(population, plan, 4)


def test_lost_devices_are_counted_and_replaced():
    steps = play(replace(EVEN, drop_out=0.5), BufferedPlan(concurrency=10, buffer=5), 40)
    lost = sum(step.lost for step in steps)
    assert 120 < lost < 300  # as many as arrive: 200


def test_a_timeout_gives_slow_devices_up():
    mixed = replace(EVEN, kinds={DeviceKind("fast", 1e9): 1.0, DeviceKind("slow", 1e7): 1.0})
    steps = play(mixed, BufferedPlan(concurrency=10, buffer=5, timeout_s=20.0), 20)
    assert all(arrival.start.ends_at_s - arrival.start.at_s == 13.0 for step in steps for arrival in step.arrivals)
    assert sum(step.lost for step in steps) > 20


def test_time_passes_until_somebody_is_there():
    trace = decode_trace(b"device,start_s,end_s\na,100,120\nb,500,1000\n", "trace")
    population = replace(EVEN, devices=2, availability=TraceAvailability(trace))
    steps = play(population, BufferedPlan(concurrency=2, buffer=1), 3)
    assert [(step.at_s, step.arrivals[0].start.device) for step in steps] == [(113.0, 0), (513.0, 1), (526.0, 1)]
    assert [step.lost for step in steps] == [0, 1, 0]


def test_nobody_for_ever_is_said():
    trace = decode_trace(b"device,at_s,available\na,100,false\n", "trace")
    population = replace(EVEN, devices=2, availability=TraceAvailability(trace))
    with pytest.raises(NotEnoughDevicesError):
        play(population, BufferedPlan(), 1)


def test_an_empty_battery_is_not_started():
    # A work of 6 s at 2 W takes 12 J of 100 J; at most six of them leave a fifth.
    battery = Battery(capacity_j=100.0, daily_use=(0.0, 0.0), charge_from_h=0.0, charging_h=1.0)
    population = replace(EVEN, devices=1, battery=battery)
    steps = list(islice(buffered_steps(population, WORK, BufferedPlan(buffer=1), samples=ten, now_s=8 * 3600.0), 8))
    gaps = np.diff([step.at_s for step in steps])
    assert gaps[:6].tolist() == [13.0] * 6
    assert gaps[6] > 10 * 3600


@pytest.mark.parametrize(
    "changes", [{"concurrency": 0}, {"buffer": 0}, {"server_learning_rate": 0.0}, {"staleness_exponent": -1.0}]
)
def test_impossible_plans_are_refused(changes: dict):
    with pytest.raises(ValueError, match="expected"):
        BufferedPlan(**changes)
