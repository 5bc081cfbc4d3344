from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hedgerow.local_work import LocalWork
from hedgerow.partition import Partition
from hedgerow.server.cohort.clients import ClientSlices, DrawnClients
from hedgerow.server.cohort.engine import CohortUpdate
from hedgerow.server.simulation.arrivals import BufferedPlan, buffered_steps
from hedgerow.server.simulation.deadlines import DeviceWork, schedule_round
from hedgerow.server.simulation.population import Population
from hedgerow.server.simulation.traces import TraceAvailability, decode_trace
from hedgerow.task import Task, load_task

pytestmark = pytest.mark.heavy

DIGITS = Path(__file__).parents[3] / "examples" / "digits" / "task.py"
WORK = DeviceWork(down_bytes=1000, up_bytes=1000, flops_per_sample=1e9)
LOCAL = LocalWork(round=1, seed=0, epochs=1, learning_rate=0.1, batch_size=8)


class CountingEngine:
    """Adds the client's number to the float weights and one to the others, and notes what it was asked."""

    name = "counting"

    def __init__(self, slice_size: int = 2) -> None:
        self.slice_size = slice_size
        self.calls: list[tuple[int, int, tuple[int, ...]]] = []

    def close(self) -> None:
        """Nothing is to be ended."""

    def train(
        self, weights: Any, clients: Sequence[int], work: LocalWork, *, each: bool, corrections: Any = None
    ) -> Iterator[CohortUpdate]:
        import torch

        assert each
        assert corrections is None
        self.calls.append((work.round, work.seed, tuple(clients)))
        for begin in range(0, len(clients), self.slice_size):
            part = tuple(clients[begin : begin + self.slice_size])
            rows = torch.tensor(part, dtype=torch.float32)
            stacked = {"w": weights["w"] + rows[:, None], "steps": weights["steps"] + torch.ones_like(rows).long()}
            ones = np.ones(len(part))
            yield CohortUpdate(part, np.array(part) + 1, ones, ones, each=stacked)


def start_weights() -> dict[str, Any]:
    import torch

    return {"w": torch.zeros(2), "steps": torch.tensor(7)}


def equal(devices: np.ndarray) -> np.ndarray:
    return np.full(len(devices), 10)


@pytest.mark.parametrize("weigh_examples", [False, True])
def test_weights_follow_algorithm_1_of_the_paper(weigh_examples: bool):
    from hedgerow.server.simulation.buffered import run_buffered

    plan = BufferedPlan(concurrency=4, buffer=3, server_learning_rate=0.5, weigh_examples=weigh_examples)
    population = Population(20, seed=2, speed_sigma=1.0)
    engine, first = CountingEngine(), start_weights()
    rounds = list(islice(run_buffered(engine, first, population, WORK, LOCAL, plan=plan, samples=equal), 10))
    expected = 0.0
    for made, step in zip(rounds, buffered_steps(population, WORK, plan, samples=equal), strict=False):
        # A device's update is its number, whenever it started.
        devices = np.array([arrival.start.device for arrival in step.arrivals])
        shares = (devices + 1.0) if weigh_examples else np.ones(3)
        stale = np.array([(1 + arrival.staleness) ** -0.5 for arrival in step.arrivals])
        expected += 0.5 * float((shares * stale * devices).sum() / shares.sum())
        assert made.weights["w"].tolist() == pytest.approx([expected] * 2, rel=1e-5)
        assert (made.version, made.at_s, made.devices) == (step.version, step.at_s, tuple(devices))
        assert made.examples == int((devices + 1).sum())
    assert first["w"].tolist() == [0.0, 0.0]
    assert max(max(made.staleness) for made in rounds) > 0


def test_whole_numbers_stay_whole():
    import torch

    from hedgerow.server.simulation.buffered import run_buffered

    plan = BufferedPlan(concurrency=2, buffer=2, staleness_exponent=0.0)
    rounds = run_buffered(CountingEngine(), start_weights(), Population(9), WORK, LOCAL, plan=plan, samples=equal)
    counted = [made.weights["steps"] for made in islice(rounds, 3)]
    assert [value.item() for value in counted] == [8, 9, 10]
    assert counted[0].dtype == torch.int64


def test_devices_of_one_version_are_trained_together_and_once():
    from hedgerow.server.simulation.buffered import run_buffered

    engine = CountingEngine(slice_size=3)
    plan = BufferedPlan(concurrency=8, buffer=4)
    population = Population(200, seed=5, speed_sigma=1.0, drop_out=0.2)
    list(islice(run_buffered(engine, start_weights(), population, WORK, LOCAL, plan=plan, samples=equal), 6))
    assert [number for number, seed, _clients in engine.calls] == [1, 2, 3, 4, 5, 6]
    steps = list(islice(buffered_steps(population, WORK, plan, samples=equal), 6))
    assert [clients for _round, _seed, clients in engine.calls] == [
        tuple(sorted(start.device for start in step.starts)) for step in steps
    ]


def test_a_device_that_starts_twice_from_one_version_gets_another_order_of_samples():
    from hedgerow.server.simulation.buffered import run_buffered

    engine = CountingEngine()
    plan = BufferedPlan(concurrency=1, buffer=3)
    list(islice(run_buffered(engine, start_weights(), Population(1), WORK, LOCAL, plan=plan, samples=equal), 1))
    assert engine.calls == [(1, 0, (0,)), (1, 1, (0,)), (1, 2, (0,))]


def test_the_same_run_has_the_same_weights(tiny_task: Task):
    import torch

    from hedgerow.server.cohort.sequential import SequentialEngine
    from hedgerow.server.simulation.buffered import run_buffered
    from hedgerow.server.training import initial_weights

    data = tiny_task.load_data()
    clients = DrawnClients(30, len(data.train), 16)
    engine = SequentialEngine(tiny_task, data.train, clients)
    weights = {name: torch.from_numpy(array) for name, array in initial_weights(tiny_task, 0).items()}
    population = Population(30, speed_sigma=1.0)
    runs = [list(islice(run_buffered(engine, weights, population, WORK, LOCAL, samples=equal), 5)) for _ in range(2)]
    for one, other in zip(*runs, strict=True):
        assert one.loss == other.loss
        assert all(torch.equal(one.weights[name], other.weights[name]) for name in weights)
    assert runs[0][-1].loss < runs[0][0].loss


def test_an_update_that_is_not_finite_is_left_out():
    from hedgerow.server.simulation.buffered import run_buffered

    class Diverging(CountingEngine):
        def train(self, weights: Any, clients: Sequence[int], work: LocalWork, **rest: Any) -> Iterator[CohortUpdate]:
            for update in super().train(weights, clients, work, **rest):
                bad = np.array(update.clients) % 2 == 1
                rows = update.each["w"].clone()
                rows[bad] = np.nan
                yield replace(
                    update,
                    norms=np.where(bad, np.nan, 1.0),
                    losses=np.where(bad, np.nan, 2.0),
                    each={**update.each, "w": rows},
                )

    first = start_weights()
    plan = BufferedPlan(concurrency=4, buffer=4, staleness_exponent=0.0)
    made = next(run_buffered(Diverging(), first, Population(20), WORK, LOCAL, plan=plan, samples=equal))
    even = [device for device in made.devices if device % 2 == 0]
    assert 0 < len(even) < 4
    assert made.refused == {device: "not finite" for device in made.devices if device % 2}
    assert made.weights["w"].tolist() == pytest.approx([np.mean(even)] * 2)
    assert made.loss == 2.0
    only_bad = BufferedPlan(concurrency=1, buffer=1)
    trace = decode_trace(b"device,start_s,end_s\na,1,2\nb,0,1000\n", "trace")
    odd = Population(2, availability=TraceAvailability(trace))
    made = next(run_buffered(Diverging(), first, odd, WORK, LOCAL, plan=only_bad, samples=equal))
    assert (made.devices, made.refused) == ((1,), {1: "not finite"})
    assert made.weights["w"].tolist() == [0.0, 0.0]
    assert np.isnan(made.loss)


def test_a_run_goes_on_after_any_of_its_rounds():
    import torch

    from hedgerow.server.simulation.buffered import run_buffered

    plan, population = BufferedPlan(concurrency=6, buffer=2), Population(30, seed=3, speed_sigma=1.5)
    make = partial(run_buffered, population=population, work=WORK, local=LOCAL, plan=plan, samples=equal)
    straight = list(islice(make(CountingEngine(), start_weights()), 12))
    assert straight[4].waiting
    engine = CountingEngine()
    resumed = list(islice(make(engine, start_weights(), after=straight[4]), 7))
    assert [made.version for made in resumed] == list(range(6, 13))
    for one, other in zip(straight[5:], resumed, strict=True):
        assert (one.at_s, one.devices, one.loss) == (other.at_s, other.devices, other.loss)
        assert all(torch.equal(one.weights[name], other.weights[name]) for name in one.weights)
    assert min(number for number, _seed, _clients in engine.calls) == 6


def test_asynchronous_runs_reach_an_accuracy_in_half_the_time_when_some_devices_are_very_slow():
    """Ten devices at work in both; log-normal speeds, so that the slowest of ten takes several times the median."""
    import torch

    from hedgerow.server.cohort.sequential import SequentialEngine
    from hedgerow.server.evaluation import Evaluator
    from hedgerow.server.local_steps import torch_threads
    from hedgerow.server.simulation.buffered import run_buffered
    from hedgerow.server.simulation.timed_grid import sizes_of
    from hedgerow.server.training import initial_weights

    task = load_task(f"{DIGITS}:task")
    data = task.load_data()
    clients = ClientSlices.of_shards(Partition("iid").split(data.train.target_values, 50, np.random.default_rng(0)))
    engine, evaluator = SequentialEngine(task, data.train, clients), Evaluator(task, data.held_out)
    population, samples = Population(50, seed=0, speed_sigma=1.0), sizes_of(clients)
    first = {name: torch.from_numpy(array) for name, array in initial_weights(task, 0).items()}

    def good(weights: Any) -> bool:
        return evaluator.measure({name: tensor.numpy() for name, tensor in weights.items()})["accuracy"] >= 0.8

    local = replace(LOCAL, batch_size=task.local.batch_size)
    with torch_threads(1):
        rng, weights, synchronous_s = np.random.default_rng(0), first, 0.0
        for number in range(1, 200):
            chosen = np.sort(rng.choice(50, 10, replace=False))
            synchronous_s = schedule_round(
                population, chosen, WORK, samples=samples(chosen), now_s=synchronous_s, round_number=number
            ).ends_at_s
            (update,) = engine.train(weights, chosen.tolist(), replace(local, round=number), each=False)
            weights = update.mean
            if good(weights):
                break
        assert good(weights)
        asynchronous_s = next(
            made.at_s
            for made in islice(run_buffered(engine, first, population, WORK, local, samples=samples), 400)
            if good(made.weights)
        )
    assert synchronous_s > 2 * asynchronous_s
