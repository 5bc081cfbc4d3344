from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from hedgerow.decode import decode_json, encode_json
from hedgerow.partition import Partition
from hedgerow.server.cohort.clients import ClientSlices, DrawnClients
from hedgerow.server.errors import NotEnoughDevicesError
from hedgerow.server.simulation.availability import DiurnalAvailability
from hedgerow.server.simulation.battery import Battery
from hedgerow.server.simulation.deadlines import DeviceWork, RoundPolicy, device_times
from hedgerow.server.simulation.population import DeviceKind, Network, Population
from hedgerow.server.simulation.traces import TraceAvailability, decode_trace
from hedgerow.task import load_task

if TYPE_CHECKING:
    from hedgerow.server.simulation.timed_grid import TimedGrid

pytestmark = pytest.mark.heavy

DIGITS = Path(__file__).parents[3] / "examples" / "digits" / "task.py"
# Device i has 10 (i + 1) samples; a pass over 10 takes 3 s, and 7 s go with connecting and transfers.
EVEN = Population(
    5,
    kinds={DeviceKind("even", 1e9, 2.0): 1.0},
    speed_sigma=0.0,
    network=Network(down_bits_per_s=4e6, up_bits_per_s=2e6, sigma=0.0, setup_s=1.0),
)
WORK = DeviceWork(down_bytes=1_000_000, up_bytes=1_000_000, flops_per_sample=3e8)


def samples(devices: np.ndarray) -> np.ndarray:
    return 10 * (devices + 1)


@pytest.fixture
def make_grid() -> Callable[..., "TimedGrid"]:
    """Return a maker of timed grids whose nodes add their epochs to the weights and tell them as a metric."""
    from flwr.app import Message, MetricRecord, RecordDict

    from hedgerow.server.flower import array_record, numpy_arrays
    from hedgerow.server.grids.in_process import InProcessGrid
    from hedgerow.server.simulation.timed_grid import TimedGrid

    def answer(message: Any, context: Any) -> Any:
        config = next(iter(message.content.config_records.values()))
        epochs = int(config.get("epochs", 1))
        arrays = numpy_arrays(next(iter(message.content.array_records.values())))
        new = array_record({name: array + epochs for name, array in arrays.items()})
        metrics = MetricRecord({"num-examples": 1, "loss": 0.5, "epochs": epochs})
        return Message(RecordDict({"arrays": new, "metrics": metrics}), reply_to=message)

    def make(population: Population = EVEN, **options: Any) -> TimedGrid:
        inner = InProcessGrid(answer, population.devices)
        return TimedGrid(inner, population, **{"work": WORK, "samples": samples, **options})

    return make


def send(grid: "TimedGrid", epochs: int = 1, number: int = 1, kind: str = "train") -> dict[int, Any]:
    """Send a message to every node that is there, and return the replies by device."""
    from flwr.app import ConfigRecord, Message, RecordDict

    from hedgerow.server.flower import array_record

    config = ConfigRecord({"epochs": epochs, "server-round": number, "learning-rate": 0.5})
    content = RecordDict({"arrays": array_record({"w": np.zeros(2, np.float32)}), "config": config})
    messages = [Message(content, node, kind) for node in grid.get_node_ids()]
    return {reply.metadata.src_node_id - 1: reply for reply in grid.send_and_receive(messages)}


def epochs_of(reply: Any) -> int:
    return int(next(iter(reply.content.metric_records.values()))["epochs"])


def test_a_round_without_a_policy_waits_for_all(make_grid):
    grid = make_grid()
    replies = send(grid, epochs=2)
    assert [epochs_of(replies[device]) for device in range(5)] == [2] * 5
    assert grid.clock.now_s == 7 + 2 * 15
    assert [(r.round, r.started_s, r.ended_s) for r in grid.rounds] == [(1, 0.0, 37.0)]
    assert grid.kind == "in-process, timed"
    assert grid.node_name(3) == "2"


def test_late_devices_get_error_replies_and_the_clock_stands_at_the_deadline(make_grid):
    grid = make_grid(policy=RoundPolicy(deadline_s=14.0))
    replies = send(grid)
    assert [replies[device].has_error() for device in range(5)] == [False, False, True, True, True]
    from hedgerow.server.grids.judging import reply_kind

    assert replies[2].error.reason == "it was not done when the round ended"
    assert reply_kind(replies[2]) == "late"
    assert grid.clock.now_s == 14.0
    assert grid.rounds[0].counts == {"done": 2, "partial": 0, "late": 3, "dropped": 0, "unavailable": 0}


def test_stragglers_do_fewer_epochs(make_grid):
    grid = make_grid(policy=RoundPolicy(deadline_s=20.0, keep_partial=True))
    replies = send(grid, epochs=4)
    assert [epochs_of(replies[device]) for device in range(4)] == [4, 2, 1, 1]
    assert replies[4].has_error()
    arrays = next(iter(replies[1].content.array_records.values()))
    assert arrays["w"].numpy().tolist() == [2.0, 2.0]


def test_evaluations_take_no_time(make_grid):
    grid = make_grid(policy=RoundPolicy(deadline_s=1.0))
    assert not any(reply.has_error() for reply in send(grid, kind="evaluate").values())
    assert grid.clock.now_s == 0.0
    assert grid.rounds == ()


def test_only_devices_that_are_there_are_listed_and_time_passes_until_there_are_enough(make_grid):
    trace = decode_trace(b"device,start_s,end_s\na,100,1000\nb,0,50\nc,200,300\nd,0,0.001\ne,999,1000\n", "trace")
    population = replace(EVEN, availability=TraceAvailability(trace))
    grid = make_grid(population)
    assert grid.get_node_ids() == [2, 4]
    grid = make_grid(population, minimum_nodes=2)
    grid.clock.advance_to(40.0)
    assert grid.get_node_ids() == [1, 3]
    assert grid.clock.now_s == 200.0
    replies = send(grid)
    assert sorted(replies) == [0, 2]


def test_nobody_for_a_year_is_said(make_grid):
    trace = decode_trace(b"device,at_s,available\na,100,false\n", "trace")
    grid = make_grid(replace(EVEN, availability=TraceAvailability(trace)))
    with pytest.raises(NotEnoughDevicesError):
        grid.get_node_ids()


def test_empty_batteries_are_not_listed_until_they_are_charged(make_grid):
    # Device i computes for 3 (i + 1) s at 2 W, which leaves at most 0.4 of 10 J.
    battery = Battery(capacity_j=10.0, daily_use=(0.0, 0.0), charge_from_h=22.0, charging_h=8.0)
    grid = make_grid(replace(EVEN, battery=battery), policy=RoundPolicy(minimum_battery=0.5))
    grid.clock.advance_to(10 * 3600.0)
    assert grid.get_node_ids() == [1, 2, 3, 4, 5]
    send(grid)
    assert len(grid.get_node_ids()) > 0
    assert 20 * 3600.0 < grid.clock.now_s < 24.5 * 3600.0


def test_a_draw_of_many_devices_is_uniform_and_repeatable(make_grid):
    population = Population(2000, seed=1, availability=DiurnalAvailability(seed=1))
    grid, again = make_grid(population, listed=50), make_grid(population, listed=50)
    listed = grid.get_node_ids()
    assert listed == again.get_node_ids() == sorted(set(listed))
    assert len(listed) == 50
    assert population.availability.is_available(np.array(listed) - 1, 0.0).all()
    assert 700 < np.mean(listed) < 1300
    # More than there are at noon: all of them are listed.
    grid = make_grid(population, listed=500)
    grid.clock.advance_to(14 * 3600.0)
    everybody = np.flatnonzero(population.availability.is_available(np.arange(2000), grid.clock.now_s)) + 1
    assert grid.get_node_ids() == everybody.tolist()


def test_a_resumed_grid_goes_on_where_it_was(make_grid):
    population = replace(EVEN, battery=Battery(capacity_j=1000.0), drop_out=0.3)
    straight, first, second = make_grid(population), make_grid(population), make_grid(population)
    for grid in (straight, first, second):
        grid.clock.advance_to(10 * 3600.0)
    for number in range(1, 5):
        send(straight, number=number)
    for number in range(1, 3):
        send(first, number=number)
    second.restore(decode_json(encode_json(first.state()), "state", limit_bytes=10**5))
    for number in range(3, 5):
        send(second, number=number)
    assert second.rounds == straight.rounds
    assert second.state() == straight.state()


def test_a_grid_of_another_size_is_refused(make_grid):
    from hedgerow.server.grids.in_process import InProcessGrid
    from hedgerow.server.simulation.timed_grid import TimedGrid

    inner = InProcessGrid(lambda message, context: message, 4)
    with pytest.raises(ValueError, match="5 nodes"):
        TimedGrid(inner, EVEN, work=WORK, samples=10)
    with pytest.raises(ValueError, match="minimum_nodes"):
        make_grid(minimum_nodes=6)
    with pytest.raises(ValueError, match="at least 1 sample"):
        make_grid(samples=0)


def test_sizes_of_a_client_index_are_asked_for_at_once():
    from hedgerow.server.simulation.timed_grid import sizes_of

    assert sizes_of(DrawnClients(100, 1000, 7))(np.array([3, 99])).tolist() == [7, 7]


def test_a_strategy_runs_on_it_unchanged(make_grid):
    from flwr.app import ConfigRecord
    from flwr.serverapp.strategy import FedAvg

    from hedgerow.server.flower import array_record, numpy_arrays

    grid = make_grid(replace(EVEN, devices=5, drop_out=0.3), policy=RoundPolicy(deadline_s=20.0))
    strategy = FedAvg(fraction_train=1.0, fraction_evaluate=0.0, min_available_nodes=1, min_train_nodes=1)
    result = strategy.start(
        grid, array_record({"w": np.zeros(2, np.float32)}), num_rounds=3, train_config=ConfigRecord({"epochs": 1})
    )
    assert numpy_arrays(result.arrays)["w"].tolist() == [3.0, 3.0]
    assert [timed.round for timed in grid.rounds] == [1, 2, 3]
    assert all(timed.counts["late"] + timed.counts["dropped"] > 0 for timed in grid.rounds)


def test_a_cohort_grid_does_the_stragglers_epochs(tiny_task):
    from flwr.app import ConfigRecord, Message, RecordDict

    from hedgerow.server.cohort.sequential import SequentialEngine
    from hedgerow.server.flower import array_record
    from hedgerow.server.grids.cohort import CohortGrid
    from hedgerow.server.simulation.timed_grid import TimedGrid, sizes_of
    from hedgerow.server.training import initial_weights

    data = tiny_task.load_data()
    clients = DrawnClients(5, len(data.train), 10)
    engine = SequentialEngine(tiny_task, data.train, clients)
    content = RecordDict(
        {
            "arrays": array_record(initial_weights(tiny_task, 0)),
            "config": ConfigRecord({"epochs": 4, "server-round": 1}),
        }
    )

    def answers(policy: RoundPolicy, samples_of: Any) -> list[Any]:
        inner = CohortGrid(tiny_task, data, clients, engine)
        grid = TimedGrid(inner, EVEN, work=WORK, samples=samples_of, policy=policy)
        messages = [Message(content, node, "train") for node in grid.get_node_ids()]
        return [reply.content["arrays"]["weight"].numpy() for reply in grid.send_and_receive(messages)]

    def plain(epochs: int) -> list[Any]:
        inner = CohortGrid(tiny_task, data, clients, engine)
        config = ConfigRecord({"epochs": epochs, "server-round": 1})
        work = RecordDict({"arrays": content["arrays"], "config": config})
        messages = [Message(work, node, "train") for node in range(1, 6)]
        return [reply.content["arrays"]["weight"].numpy() for reply in inner.send_and_receive(messages)]

    everybody = answers(RoundPolicy(), sizes_of(clients))
    assert all(np.array_equal(one, other) for one, other in zip(everybody, plain(4), strict=True))
    cut = answers(RoundPolicy(deadline_s=25.0, keep_partial=True), samples)
    whole, by_epochs = plain(4), {epochs: plain(epochs) for epochs in (1, 2, 3)}
    assert np.array_equal(cut[0], whole[0])
    for device, epochs in ((1, 3), (2, 2), (3, 1), (4, 1)):
        assert np.array_equal(cut[device], by_epochs[epochs][device])


def test_partial_work_learns_where_nine_of_ten_devices_are_late():
    """The setting of FedProx (arXiv 1812.06127, section 5.2): two labels a client, 90 % stragglers."""
    import random

    from flwr.app import ConfigRecord
    from flwr.serverapp.strategy import FedAvg, FedProx

    from hedgerow.server.cohort.sequential import SequentialEngine
    from hedgerow.server.evaluation import Evaluator
    from hedgerow.server.flower import array_record, numpy_arrays
    from hedgerow.server.grids.cohort import CohortGrid
    from hedgerow.server.local_steps import torch_threads
    from hedgerow.server.simulation.timed_grid import TimedGrid, sizes_of
    from hedgerow.server.training import initial_weights

    task = load_task(f"{DIGITS}:task")
    data = task.load_data()
    shards = Partition("shards").split(data.train.target_values, 50, np.random.default_rng(0))
    clients = ClientSlices.of_shards(shards)
    engine, evaluator = SequentialEngine(task, data.train, clients), Evaluator(task, data.held_out)
    population, work = Population(50, speed_sigma=0.5), replace(WORK, flops_per_sample=1e9, epochs=8)
    everybody = np.arange(50)
    total_s = device_times(population, everybody, work, sizes_of(clients)(everybody)).total_s(work.epochs)
    deadline_s = float(np.quantile(total_s, 0.1))
    sampled = {"fraction_train": 1e-9, "fraction_evaluate": 0.0, "min_train_nodes": 10, "min_available_nodes": 10}

    def accuracy(strategy: Any, keep_partial: bool) -> float:
        inner = CohortGrid(task, data, clients, engine)
        policy = RoundPolicy(deadline_s=deadline_s, keep_partial=keep_partial)
        grid = TimedGrid(inner, population, work=work, samples=sizes_of(clients), policy=policy)
        before = random.getstate()
        random.seed(1)
        with torch_threads(1):
            result = strategy.start(
                grid,
                array_record(initial_weights(task, 0)),
                num_rounds=16,
                train_config=ConfigRecord({"epochs": work.epochs, "learning-rate": 0.1, "batch-size": 8}),
            )
            random.setstate(before)
            assert sum(timed.counts["done"] for timed in grid.rounds) < 0.25 * 160
            return evaluator.measure(numpy_arrays(result.arrays))["accuracy"]

    dropped = accuracy(FedAvg(**sampled), keep_partial=False)
    kept = accuracy(FedProx(proximal_mu=0.1, **sampled), keep_partial=True)
    assert kept > dropped + 0.2
