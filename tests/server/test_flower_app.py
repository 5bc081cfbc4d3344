"""Tests of hedgerow.server.flower_app: what stock Flower would call."""

import numpy as np
import pytest

from hedgerow.checkpoint import load_checkpoint
from hedgerow.server.errors import NoUpdateError, RoundFailedError
from hedgerow.server.flower import array_record, numpy_arrays
from hedgerow.server.flower_app import client_app, server_app
from hedgerow.server.grids.in_process import InProcessGrid
from hedgerow.server.strategies import build_strategy
from hedgerow.server.training import train_task

pytestmark = pytest.mark.heavy


def test_the_server_app_runs_on_a_grid_and_equals_our_run(tiny_task, tiny_reference, tmp_path):
    from flwr.app import Context, RecordDict

    config = {"task": tiny_reference, "num-server-rounds": 3, "seed": 2, "out": str(tmp_path / "flower")}
    context = Context(run_id=5, node_id=1, node_config={}, state=RecordDict(), run_config=config)
    server_app(InProcessGrid(client_app, 4, run_config=config), context)
    theirs = load_checkpoint(tmp_path / "flower" / "checkpoint")
    ours = train_task(tiny_task, tmp_path / "ours", rounds=3, clients=4, seed=2).checkpoint

    assert (theirs.grid, theirs.run, theirs.round) == ("flower", "flower-5", 3)
    assert theirs.metrics["accuracy"] == pytest.approx(ours.metrics["accuracy"])
    assert {name: value.tolist() for name, value in theirs.weights.items()} == {
        name: value.tolist() for name, value in ours.weights.items()
    }


def run_app(reference, app, out, *, strategy="fedavg", rounds=4, nodes=3):
    """Run the ServerApp as Flower does, on a grid whose nodes are *app*."""
    from flwr.app import Context, RecordDict

    config = {"task": reference, "num-server-rounds": rounds, "strategy": strategy, "out": str(out)}
    context = Context(run_id=5, node_id=1, node_config={}, state=RecordDict(), run_config=config)
    server_app(InProcessGrid(app, nodes, run_config=config), context)


def test_a_run_whose_strategy_makes_nothing_of_the_updates_fails(tiny_reference, tmp_path):
    def app(message, context):
        if context.node_id > 2:
            raise ValueError("gone")
        return client_app(message, context)

    with pytest.raises(NoUpdateError, match="6 strategy, 3 raised") as caught:
        run_app(tiny_reference, app, tmp_path, strategy="bulyan")  # needs three updates
    assert (caught.value.round_number, caught.value.rounds) == (3, 3)
    assert caught.value.kinds == {"strategy": 6, "raised": 3}
    assert not (tmp_path / "checkpoint").exists()


def test_three_rounds_without_updates_end_a_run_and_one_does_not(tiny_reference, tmp_path):
    def app(silent):
        def call(message, context):
            for record in message.content.config_records.values():
                if record.get("server-round") in silent and message.metadata.message_type.startswith("train"):
                    raise ValueError("gone")
            return client_app(message, context)

        return call

    run_app(tiny_reference, app({2}), tmp_path / "one")
    assert load_checkpoint(tmp_path / "one" / "checkpoint").round == 4
    with pytest.raises(NoUpdateError, match="none in the last 3 rounds") as caught:
        run_app(tiny_reference, app({2, 3, 4}), tmp_path / "three", rounds=9)
    assert caught.value.round_number == 4
    assert caught.value.kinds == {"raised": 9}
    with pytest.raises(NoUpdateError):
        run_app(tiny_reference, app({4}), tmp_path / "last")
    assert not (tmp_path / "last" / "checkpoint").exists()


def test_weights_that_are_no_numbers_are_no_result(tiny_reference, tmp_path, monkeypatch):
    from hedgerow.server import flower_app

    def built(*arguments, **options):
        strategy = build_strategy(*arguments, **options)
        aggregate = strategy.aggregate_train

        def broken(number, replies):
            arrays, metrics = aggregate(number, replies)
            weights = {name: array * np.nan for name, array in numpy_arrays(arrays).items()}
            return array_record(weights), metrics

        strategy.aggregate_train = broken
        return strategy

    monkeypatch.setattr(flower_app, "build_strategy", built)
    with pytest.raises(RoundFailedError, match="NaN in the aggregated weights"):
        run_app(tiny_reference, client_app, tmp_path)
    assert not (tmp_path / "checkpoint").exists()
