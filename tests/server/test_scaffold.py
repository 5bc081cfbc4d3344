"""Tests of hedgerow.server.scaffold."""

import numpy as np
import pytest

from hedgerow import Dataset, TaskData
from hedgerow.partition import Partition
from hedgerow.server.cohort.clients import ClientSlices
from hedgerow.server.cohort.sequential import SequentialEngine
from hedgerow.server.evaluation import Evaluator
from hedgerow.server.flower import array_record, numpy_arrays
from hedgerow.server.grids.cohort import CohortGrid
from hedgerow.server.local_steps import torch_threads
from hedgerow.server.scaffold import Scaffold
from hedgerow.server.strategies import build_strategy, restore_state, strategy_state
from hedgerow.server.training import initial_weights

pytestmark = pytest.mark.heavy


class Reply:
    """What a strategy reads of a reply."""

    def __init__(self, node, weights, steps):
        from flwr.app import MetricRecord, RecordDict

        metrics = MetricRecord({"num-examples": 10 * node, "loss": 1.0, "steps": steps})
        self.content = RecordDict({"arrays": array_record(weights), "metrics": metrics})
        self.metadata = type("Metadata", (), {"src_node_id": node})

    def has_error(self):
        return False


class Nodes:
    def get_node_ids(self):
        return [1, 2, 3, 4]


def asked(strategy, weights, **config):
    from flwr.app import ConfigRecord

    messages = strategy.configure_train(1, array_record(weights), ConfigRecord(config), Nodes())
    return {m.metadata.dst_node_id: numpy_arrays(m.content["correction"])["w"].tolist() for m in messages}


def test_controls_and_weights_follow_the_paper():
    strategy = Scaffold(learning_rate=0.5, fraction_train=1.0)
    start = {"w": np.array([1.0], np.float32), "count": np.array(3)}
    assert asked(strategy, start) == {1: [0], 2: [0], 3: [0], 4: [0]}
    # (x - y) / (K lr): client 1 (1 - 0) / (2 * 0.5) = 1, client 2 (1 - 2) / (1 * 0.5) = -2.
    replies = [
        Reply(1, {"w": np.array([0.0], np.float32), "count": np.array(4)}, steps=2),
        Reply(2, {"w": np.array([2.0], np.float32), "count": np.array(6)}, steps=1),
    ]
    arrays, metrics = strategy.aggregate_train(1, replies)
    assert {name: value.tolist() for name, value in numpy_arrays(arrays).items()} == {"w": [1.0], "count": 5.0}
    assert metrics["loss"] == 1.0
    # c = (1 - 2) / 4
    assert asked(strategy, {**start, "w": np.array([1.0], np.float32)}) == {
        1: [-1.25],
        2: [1.75],
        3: [-0.25],
        4: [-0.25],
    }
    # Client 1 again: c_1 = c_1 - c + (1 - 0.5) / (1 * 0.25) = 1.25 + 2; c += (3.25 - 1) / 4.
    asked(strategy, start, **{"learning-rate": 0.25})
    strategy.aggregate_train(2, [Reply(1, {"w": np.array([0.5], np.float32), "count": np.array(4)}, steps=1)])
    assert strategy.controls["common/w"].tolist() == [-0.25 + 2.25 / 4]
    assert strategy.controls["1/w"].tolist() == [3.25]
    assert "3/w" not in strategy.controls


def test_the_server_step_scales_the_update():
    strategy = Scaffold(learning_rate=1.0, server_learning_rate=0.5)
    asked(strategy, {"w": np.array([1.0], np.float32)})
    arrays, _metrics = strategy.aggregate_train(1, [Reply(1, {"w": np.array([0.0], np.float32)}, steps=1)])
    assert numpy_arrays(arrays)["w"].tolist() == [0.5]


def test_controls_are_saved_and_restored():
    strategy = build_strategy("scaffold", clients=2, learning_rate=1.0)
    assert strategy_state("scaffold", strategy) == {}
    asked(strategy, {"w": np.array([1.0], np.float32)})
    strategy.aggregate_train(1, [Reply(2, {"w": np.array([0.0], np.float32)}, steps=1)])
    other = build_strategy("scaffold", clients=2, learning_rate=1.0)
    restore_state("scaffold", other, strategy_state("scaffold", strategy))
    assert asked(other, {"w": np.array([1.0], np.float32)}) == {1: [0.25], 2: [-0.75], 3: [0.25], 4: [0.25]}


def overlapping(samples, seed):
    """Return points round three corners that no line separates, so that there is one best model."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, samples)
    corners = np.array([[0.0, 1.0], [1.0, -1.0], [-1.0, -1.0]])
    return Dataset({"point": (corners[labels] + rng.normal(0, 0.8, (samples, 2))).astype(np.float32)}, labels)


def test_corrections_beat_the_plain_mean_where_clients_are_unlike(make_task):
    """With Dirichlet(0.1) labels and many local steps FedAvg stays off the best model, SCAFFOLD does not."""
    from flwr.app import ConfigRecord

    dataset = overlapping(400, 1)
    task = make_task(data=lambda: TaskData(train=dataset, held_out=dataset))
    shards = Partition("dirichlet", alpha=0.1).split(dataset.target_values, 5, np.random.default_rng(0))
    clients = ClientSlices.of_shards(shards)
    losses = {}
    with torch_threads(1):
        grid = CohortGrid(task, dataset, clients, SequentialEngine(task, dataset, clients))
        for name in ("fedavg", "scaffold"):
            strategy, weights = build_strategy(name, clients=5, learning_rate=0.3), initial_weights(task, 0)
            for number in range(1, 21):
                config = ConfigRecord({"epochs": 10, "learning-rate": 0.3})
                messages = strategy.configure_train(number, array_record(weights), config, grid)
                arrays, _metrics = strategy.aggregate_train(number, grid.send_and_receive(messages))
                weights = {key: value.astype(np.float32) for key, value in numpy_arrays(arrays).items()}
            losses[name] = Evaluator(task, dataset).measure(weights)["loss"]
    assert losses["fedavg"] > 0.45
    assert losses["scaffold"] == pytest.approx(0.395, abs=0.005)
