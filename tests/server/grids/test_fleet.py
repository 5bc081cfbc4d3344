"""Tests of hedgerow.server.grids.fleet: Flower's FedAvg over simulated devices, by hand-computed numbers."""

import logging
from dataclasses import replace

import numpy as np
import pytest

from hedgerow.local_work import LocalWork
from hedgerow.server.errors import LocalTermError
from hedgerow.server.flower import array_record
from hedgerow.server.grids.fleet import FleetGrid, device_node_id
from hedgerow.server.grids.judging import reply_kind
from hedgerow.server.grids.transport import DeviceUpdate, RoundWork, SimulatedTransport

pytestmark = pytest.mark.heavy


def done(values, examples=1, **metrics):
    """Return a device that answers with *values*."""

    def step(work: RoundWork, device: str) -> DeviceUpdate:
        weights = {"w": np.array(values, np.float32)}
        return DeviceUpdate(device=device, state="done", examples=examples, metrics=metrics, weights=weights)

    return step


def answers(state, reason=""):
    return lambda work, device: DeviceUpdate(device=device, state=state, reason=reason)


def fedavg(steps, rounds=1, strategy=None, **settings):
    """Run FedAvg from zeros; return (aggregated weights or None, Flower's result, the transport)."""
    from flwr.app import ConfigRecord
    from flwr.serverapp.strategy import FedAvg

    transport = SimulatedTransport(steps)
    grid = FleetGrid(transport, **settings)
    result = (strategy or FedAvg()).start(
        grid, array_record({"w": np.zeros(3, np.float32)}), num_rounds=rounds, train_config=ConfigRecord()
    )
    return (result.arrays["w"].numpy().tolist() if result.arrays else None), result, transport


def test_fedavg_weighs_devices_by_their_examples():
    weights, result, _transport = fedavg({"a": done([1, 0, 4], 1, loss=2.0), "b": done([5, 4, 0], 3, loss=6.0)})
    assert weights == [4, 3, 1]
    assert result.train_metrics_clientapp[1]["loss"] == 5.0


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (answers("declined", "battery is low"), "declined: battery is low"),
        (answers("failed", "out of memory"), "failed: out of memory"),
        (answers("timed out"), "no answer within 600 s"),
        (lambda work, device: None, "no answer within 600 s"),
        (done([np.nan, 0, 0]), "NaN or infinity"),
        (done([1, 2]), "float32(3,)"),
        (done([9, 9, 9], examples=0), "whole number of samples from 1 to 100000, found 0"),
        (answers("done"), "expected one record of arrays, found 0"),
        (
            lambda work, device: DeviceUpdate(
                device=device, state="done", examples=1, weights={"v": np.zeros(3, np.float32)}
            ),
            "unknown ['v']",
        ),
        (
            lambda work, device: DeviceUpdate(device=device, state="done", examples=1, weights={"w": np.zeros(3)}),
            "float64(3,)",
        ),
    ],
)
def test_an_update_that_cannot_be_used_is_left_out_and_the_reason_logged(bad, reason, caplog):
    with caplog.at_level(logging.WARNING, "hedgerow"):
        weights, _result, _transport = fedavg({"a": done([2, 4, 6]), "bad": bad, "c": done([4, 6, 8])})
    assert weights == [3, 5, 7]
    assert any("the update of bad is not used" in line and reason in line for line in caplog.messages)


def test_a_round_without_usable_updates_changes_nothing():
    weights, _result, _transport = fedavg({"a": answers("declined"), "b": answers("failed")})
    assert weights is None


def test_replies_come_in_the_order_of_node_ids():
    from flwr.app import ConfigRecord, Message, RecordDict

    steps = {f"device-{i}": done([i, i, i]) for i in range(12)}
    grid = FleetGrid(SimulatedTransport(steps))
    content = RecordDict({"arrays": array_record({"w": np.zeros(3, np.float32)}), "config": ConfigRecord()})
    messages = [Message(content, node, "train") for node in reversed(grid.get_node_ids())]

    replies = grid.send_and_receive(messages)
    nodes = [reply.metadata.src_node_id for reply in replies]

    assert nodes == sorted(device_node_id(name) for name in steps)
    asked = {message.metadata.message_id for message in messages}
    assert {reply.metadata.reply_to_message_id for reply in replies} == asked


def test_the_work_carries_the_defaults_of_the_grid_and_the_round():
    steps = {"a": done([1, 1, 1]), "b": done([1, 1, 1])}
    work = LocalWork(epochs=3, learning_rate=0.25, batch_size=8, seed=9, minimum_samples=16)
    _weights, _result, transport = fedavg(steps, 2, run="digits-1", work=work, deadline_s=30)
    first, second = transport.rounds
    assert (first.round, second.round) == (1, 2)
    assert first.devices == ("a", "b")
    assert second.weights["w"].tolist() == [1, 1, 1]
    assert (first.run, first.deadline_s) == ("digits-1", 30)
    assert (first.local, second.local) == (work, replace(work, round=2))


def test_weights_of_server_side_optimizers_reach_devices_as_float32():
    from flwr.serverapp.strategy import FedAdam

    _weights, _result, transport = fedavg({"a": done([1, 1, 1]), "b": done([1, 1, 1])}, 2, FedAdam())
    assert transport.rounds[1].weights["w"].dtype == np.float32


def test_a_device_that_reports_other_metrics_than_agents_do_is_refused(caplog):
    with caplog.at_level(logging.WARNING, "hedgerow"):
        weights, result, _transport = fedavg(
            {
                "a": done([1, 1, 1], loss=1.0),
                "b": done([5, 5, 5], loss=1.0, joules=3.0),
                "c": done([5, 5, 5], loss=float("nan")),
                "d": done([3, 3, 3], loss=3.0),
            }
        )
    assert weights == [2, 2, 2]
    assert dict(result.train_metrics_clientapp[1]) == {"loss": 2.0}
    assert any("of b is not used: expected no metrics but loss, seconds, found joules" in m for m in caplog.messages)
    assert any("of c is not used: expected a finite number as loss, found nan" in m for m in caplog.messages)


@pytest.mark.parametrize("examples", [-5, 100_001, 10**15, 2.5, True, float("nan")])
def test_a_device_that_miscounts_its_samples_is_refused(examples):
    weights, _result, _transport = fedavg({"a": done([2, 4, 6], 2), "bad": done([9, 9, 9], examples)})
    assert weights == [2, 4, 6]


def test_a_device_whose_update_is_absurd_is_refused():
    weights, _result, _transport = fedavg({"a": done([2, 4, 6]), "bad": done([1e20, 0, 0]), "c": done([2, 4, 6])})
    assert weights == [2, 4, 6]


def test_a_transport_that_raises_costs_the_round_and_not_the_run():
    from flwr.app import ConfigRecord, Message, RecordDict

    class Broken(SimulatedTransport):
        def run_round(self, work):
            if not self.rounds:
                self.rounds.append(work)
                raise ConnectionResetError("the broker is gone")
            return super().run_round(work)

    grid = FleetGrid(Broken({"a": done([1, 2, 3]), "b": done([1, 2, 3])}))
    content = RecordDict({"arrays": array_record({"w": np.zeros(3, np.float32)}), "config": ConfigRecord()})

    def ask():
        return grid.send_and_receive([Message(content, node, "train") for node in grid.get_node_ids()])

    first, second = ask(), ask()
    assert [reply.error.reason for reply in first] == [
        "the transport raised ConnectionResetError: the broker is gone"
    ] * 2
    assert [reply_kind(reply) for reply in first] == ["transport", "transport"]
    assert all(reply.has_content() for reply in second)


def test_fedprox_is_refused_because_train_graphs_take_plain_steps():
    from flwr.serverapp.strategy import FedProx

    with pytest.raises(LocalTermError, match=r"proximal-mu 0\.5"):
        fedavg({"a": done([1, 1, 1]), "b": done([1, 1, 1])}, strategy=FedProx(proximal_mu=0.5))


@pytest.mark.parametrize("term", ["momentum", "weight-decay"])
def test_other_terms_that_train_graphs_lack_are_refused_rather_than_left_out(term):
    from flwr.app import ConfigRecord, Message, RecordDict

    grid = FleetGrid(SimulatedTransport({"a": done([1, 1, 1])}))
    arrays = array_record({"w": np.zeros(3, np.float32)})
    content = RecordDict({"arrays": arrays, "config": ConfigRecord({term: 0.5})})
    with pytest.raises(LocalTermError, match=rf"{term} 0\.5"):
        grid.send_and_receive([Message(content, node, "train") for node in grid.get_node_ids()])


def test_a_device_that_vanishes_within_a_round_does_not_make_flower_wait():
    class Flaky(SimulatedTransport):
        def devices(self):
            names = super().devices()
            self.steps.pop("b", None)
            return names

    transport = Flaky({"a": done([1, 1, 1]), "b": done([1, 1, 1])})
    grid = FleetGrid(transport)
    assert len(grid.get_node_ids()) == 2
    assert len(grid.get_node_ids()) == 2


def test_messages_can_be_pushed_and_pulled():
    from flwr.app import ConfigRecord, Message, RecordDict

    grid = FleetGrid(SimulatedTransport({"a": done([1, 2, 3])}))
    content = RecordDict({"arrays": array_record({"w": np.zeros(3, np.float32)}), "config": ConfigRecord()})
    ids = grid.push_messages([Message(content, node, "train") for node in grid.get_node_ids()])

    (reply,) = grid.pull_messages(ids)
    assert reply.content["arrays"]["w"].numpy().tolist() == [1, 2, 3]
    assert grid.pull_messages(ids) == []


def test_an_answer_of_a_device_that_was_not_asked_is_ignored(caplog):
    def step(work, device):
        return DeviceUpdate(device="stranger", state="done", examples=100, weights={"w": np.ones(3, np.float32)})

    with caplog.at_level(logging.WARNING, "hedgerow"):
        weights, _result, _transport = fedavg({"a": done([2, 2, 2]), "b": step})
    assert weights == [2, 2, 2]
    assert "round 1: stranger answered without being asked" in caplog.messages


def test_a_transport_that_cannot_name_devices_is_asked_again_and_its_trouble_kept():
    class Deaf(SimulatedTransport):
        broken = True

        def devices(self):
            if self.broken:
                raise TimeoutError("no broker")
            return super().devices()

    transport = Deaf({"a": done([1, 1, 1])})
    grid = FleetGrid(transport)
    assert list(grid.get_node_ids()) == []
    assert grid.trouble == "the transport raised TimeoutError: no broker"
    transport.broken = False
    assert list(grid.get_node_ids()) == [device_node_id("a")]
    assert grid.trouble == ""


def test_a_trouble_that_lasts_is_logged_once_and_again_when_it_comes_back(caplog):
    class Deaf(SimulatedTransport):
        words = ""

        def devices(self):
            if self.words:
                raise TimeoutError(self.words)
            return super().devices()

    transport = Deaf({"a": done([1, 2, 3])})
    grid = FleetGrid(transport)
    counts = []
    for words in ("no broker", "no broker", "no broker", "no route", "", "no route"):
        transport.words = words
        grid.get_node_ids()
        counts.append(caplog.messages.count("the transport raised"))
    assert counts == [1, 1, 1, 2, 2, 3]
