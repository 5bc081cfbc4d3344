"""Tests of hedgerow.server.grids.in_process: unmodified ClientApps."""

import logging

import numpy as np
import pytest

from hedgerow.server.flower import array_record
from hedgerow.server.grids.in_process import InProcessGrid

pytestmark = pytest.mark.heavy


def stock_app(change):
    """Return a ClientApp as Flower's documentation writes it; *change* makes new weights of (weights, partition)."""
    from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
    from flwr.clientapp import ClientApp

    app = ClientApp()

    @app.train()
    def train(msg, context):
        record = msg.content["arrays"]
        (weights,) = record.to_numpy_ndarrays(keep_input=False)  # empties what it received
        partition = context.node_config["partition-id"]
        context.state["calls"] = MetricRecord({"n": 1 + context.state.get("calls", {"n": 0})["n"]})
        metrics = {"num-examples": partition + 1, "calls": context.state["calls"]["n"]}
        arrays = ArrayRecord([change(weights, partition)])
        return Message(RecordDict({"arrays": arrays, "metrics": MetricRecord(metrics)}), reply_to=msg)

    @app.evaluate()
    def evaluate(msg, context):
        (weights,) = msg.content["arrays"].to_numpy_ndarrays()
        metrics = MetricRecord({"num-examples": 1, "sum": float(weights.sum())})
        return Message(RecordDict({"metrics": metrics}), reply_to=msg)

    return app


def fedavg(app, nodes=3, rounds=1, **settings):
    from flwr.serverapp.strategy import FedAvg

    grid = InProcessGrid(app, nodes, **settings)
    return FedAvg().start(grid, array_record({"0": np.zeros(2, np.float32)}), num_rounds=rounds)


@pytest.mark.parametrize("workers", [1, 3])
def test_an_unmodified_app_trains_and_evaluates(workers):
    result = fedavg(stock_app(lambda weights, partition: weights + partition), rounds=2, workers=workers)
    # Each round adds (0 * 1 + 1 * 2 + 2 * 3) / 6.
    np.testing.assert_allclose(result.arrays["0"].numpy(), [8 / 3, 8 / 3], rtol=1e-6)
    assert result.evaluate_metrics_clientapp[2]["sum"] == pytest.approx(16 / 3)


def test_each_node_keeps_its_own_state_between_rounds():
    result = fedavg(stock_app(lambda weights, partition: weights), rounds=3)
    assert [result.train_metrics_clientapp[r]["calls"] for r in (1, 2, 3)] == [1, 2, 3]


def test_an_app_that_raises_becomes_an_error_reply(caplog):
    def change(weights, partition):
        if partition == 1:
            raise RuntimeError("no disk")
        return weights + 1

    with caplog.at_level(logging.WARNING, "hedgerow"):
        result = fedavg(stock_app(change))
    assert result.arrays["0"].numpy().tolist() == [1, 1]
    assert any("the update of 1 is not used: RuntimeError: no disk" in line for line in caplog.messages)


@pytest.mark.parametrize(
    "bad", [np.array([np.nan, 0], np.float32), np.array([np.inf, 0], np.float32), np.zeros(3, np.float32)]
)
def test_weights_that_do_not_match_become_an_error_reply(bad, caplog):
    result = fedavg(stock_app(lambda weights, partition: bad if partition == 0 else weights + 1))
    assert result.arrays["0"].numpy().tolist() == [1, 1]


def test_an_app_that_returns_no_message_becomes_an_error_reply():
    from flwr.app import Message, RecordDict

    grid = InProcessGrid(lambda message, context: None, 1)
    (reply,) = grid.send_and_receive([Message(RecordDict(), 1, "train")])
    assert reply.error.reason == "the ClientApp returned NoneType instead of a Message"


def test_an_unknown_node_is_unavailable():
    from flwr.app import Message, RecordDict

    grid = InProcessGrid(stock_app(lambda weights, partition: weights), 1)
    (reply,) = grid.send_and_receive([Message(RecordDict(), 99, "train")])
    assert reply.error.code == 5


def test_a_grid_needs_a_node():
    with pytest.raises(ValueError, match="at least 1"):
        InProcessGrid(lambda message, context: message, 0)


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("leaves", [SystemExit(3), GeneratorExit()])
def test_a_client_that_exits_is_its_own_failure(workers, leaves):
    def change(weights, partition):
        if partition == 1:
            raise leaves
        return weights + 1

    result = fedavg(stock_app(change), workers=workers)
    assert result.arrays["0"].numpy().tolist() == [1, 1]


def test_an_interrupt_of_the_main_thread_ends_the_run():
    def change(weights, partition):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fedavg(stock_app(change), workers=1)


def test_a_client_in_another_thread_cannot_interrupt_the_run():
    def change(weights, partition):
        if partition == 1:
            raise KeyboardInterrupt
        return weights + 1

    assert fedavg(stock_app(change), workers=3).arrays["0"].numpy().tolist() == [1, 1]


def test_a_client_cannot_claim_more_samples_than_it_has():
    result = fedavg(stock_app(lambda weights, partition: weights + partition), samples=[1, 2, 2])
    # The third of partition + 1 = 3 samples is refused: (0 * 1 + 1 * 2) / 3.
    np.testing.assert_allclose(result.arrays["0"].numpy(), [2 / 3, 2 / 3], rtol=1e-6)
