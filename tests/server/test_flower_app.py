"""Tests of hedgerow.server.flower_app: what stock Flower would call."""

import pytest

from hedgerow.checkpoint import load_checkpoint
from hedgerow.server.flower_app import client_app, server_app
from hedgerow.server.grids.in_process import InProcessGrid
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
