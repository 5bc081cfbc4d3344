"""Tests of hedgerow.server.grids.processes: unmodified ClientApps in worker processes."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest

from hedgerow.server.errors import WorkerStartError
from hedgerow.server.flower import array_record
from hedgerow.server.grids.in_process import InProcessGrid
from hedgerow.server.grids.processes import ProcessGrid
from hedgerow.task import load_attribute

pytestmark = pytest.mark.heavy

APP = Path(__file__).with_name("process_app.py")


@pytest.fixture(scope="module")
def shared():
    """Return a grid of two workers; they take a second to start."""
    with ProcessGrid(f"{APP}:app", 5, workers=2, run_config={"rate": 0.5}) as grid:
        yield grid


def messages(nodes, kind="train", weights=(0.0, 0.0), **config):
    from flwr.app import ConfigRecord, Message, RecordDict

    record = RecordDict({"arrays": array_record({"0": np.array(weights)}), "config": ConfigRecord(config)})
    return [Message(record, node, kind) for node in nodes]


def outcome(replies):
    return {
        reply.metadata.src_node_id - 1: reply.error.reason
        if reply.has_error()
        else reply.content["arrays"]["0"].numpy().tolist()
        for reply in replies
    }


def workers_of(grid):
    return [worker.child.process_id for worker in grid._workers]


def test_strategies_give_what_they_give_in_process():
    from flwr.serverapp.strategy import FedAvg

    app = load_attribute(f"{APP}:app")
    start = array_record({"0": np.zeros(2, np.float32)})
    with ProcessGrid(f"{APP}:app", 3, workers=2) as processes:
        found, wanted = (FedAvg().start(grid, start, num_rounds=2) for grid in (processes, InProcessGrid(app, 3)))
    np.testing.assert_array_equal(found.arrays["0"].numpy(), wanted.arrays["0"].numpy())
    assert found.evaluate_metrics_clientapp[2] == wanted.evaluate_metrics_clientapp[2]
    assert [found.train_metrics_clientapp[r]["calls"] for r in (1, 2)] == [1, 2]
    assert processes.kind == "processes"


def test_nodes_receive_messages_of_their_own_and_the_run_configuration(shared):
    assert outcome(shared.send_and_receive(messages(range(1, 6)))) == {i: [float(i)] * 2 for i in range(5)}
    replies = shared.send_and_receive(messages([1, 2], "evaluate", weights=(2.0, 1.0)))
    assert [dict(reply.content["metrics"]) for reply in replies] == [{"num-examples": 1, "sum": 3.0, "rate": 0.5}] * 2


def test_two_messages_to_one_node_see_its_state_one_after_the_other(shared):
    (before,) = shared.send_and_receive(messages([4]))
    replies = shared.send_and_receive([*messages([4]), *messages([4])])
    counts = sorted(reply.content["metrics"]["calls"] for reply in replies)
    assert counts == [before.content["metrics"]["calls"] + 1, before.content["metrics"]["calls"] + 2]


@pytest.mark.parametrize(
    ("mischief", "reason"),
    [
        ("raise", "RuntimeError: no disk"),
        ("nothing", "the ClientApp returned NoneType instead of a Message"),
        ("unpicklable", "its reply cannot be sent"),
        ("nan", "finite numbers"),
        ("die", "the worker process that played it ended with 7"),
        ("exit", "SystemExit: 3"),
    ],
)
def test_a_client_that_fails_becomes_an_error_reply_and_the_others_go_on(mischief, reason, shared):
    found = outcome(shared.send_and_receive(messages(range(1, 6), **{"partition-2": mischief})))
    assert reason in found[2]
    assert {node: value for node, value in found.items() if node != 2} == {i: [float(i)] * 2 for i in (0, 1, 3, 4)}
    assert outcome(shared.send_and_receive(messages([3]))) == {2: [2.0, 2.0]}


def test_the_state_of_a_call_that_raised_is_forgotten(shared):
    (before,) = shared.send_and_receive(messages([1]))
    shared.send_and_receive(messages([1], **{"partition-0": "raise"}))
    (after,) = shared.send_and_receive(messages([1]))
    assert after.content["metrics"]["calls"] == before.content["metrics"]["calls"] + 1


def test_a_worker_that_is_killed_between_rounds_is_replaced(shared):
    shared.send_and_receive(messages([1, 2]))
    killed = workers_of(shared)[0]
    os.kill(killed, signal.SIGKILL)
    found = outcome(shared.send_and_receive(messages(range(1, 6))))
    failed = [node for node, value in found.items() if isinstance(value, str)]
    assert len(failed) == 1
    assert "ended with -9" in found[failed[0]]
    assert outcome(shared.send_and_receive(messages(range(1, 6)))) == {i: [float(i)] * 2 for i in range(5)}
    assert len(workers_of(shared)) == 2
    assert killed not in workers_of(shared)


def test_what_is_not_answered_in_time_is_late(shared):
    found = outcome(shared.send_and_receive(messages([1, 2], **{"partition-0": "sleep"}), timeout=1.0))
    assert found == {0: "no answer in time", 1: [1.0, 1.0]}
    assert outcome(shared.send_and_receive(messages([1]))) == {0: [0.0, 0.0]}


def test_states_that_do_not_fit_are_refused_and_the_old_ones_kept():
    with ProcessGrid(f"{APP}:app", 2, workers=1, state_limit_bytes=50_000) as grid:
        grid.send_and_receive(messages([1]))
        (refused,) = grid.send_and_receive(messages([1], **{"partition-0": "state"}))
        assert "does not fit" in refused.error.reason
        (after,) = grid.send_and_receive(messages([1]))
        assert after.content["metrics"]["calls"] == 2


def test_an_unknown_node_is_unavailable(shared):
    (reply,) = shared.send_and_receive(messages([99]))
    assert reply.error.code == 5


def test_closing_leaves_no_process_and_no_open_file():
    me = psutil.Process()
    with ProcessGrid(f"{APP}:app", 2, workers=1) as first:  # what Python keeps for all spawned processes is there now
        first.send_and_receive(messages([1]))
    before = me.num_fds(), {child.pid for child in me.children()}
    with ProcessGrid(f"{APP}:app", 4, workers=2) as grid:
        grid.send_and_receive(messages([1, 2, 3], **{"partition-1": "die"}))
        started = workers_of(grid)
        assert started
    assert (me.num_fds(), {child.pid for child in me.children()}) == before
    assert not any(psutil.pid_exists(pid) for pid in started)


def test_a_factory_makes_the_app_and_one_that_fails_is_named(monkeypatch):
    monkeypatch.syspath_prepend(str(APP.parent))
    import process_app

    with ProcessGrid(process_app.make_app, 1, workers=1) as grid:
        assert outcome(grid.send_and_receive(messages([1]))) == {0: [0.0, 0.0]}
    with ProcessGrid(process_app.broken, 1, workers=1) as grid, pytest.raises(WorkerStartError, match="no data"):
        grid.send_and_receive(messages([1]))
    with ProcessGrid(f"{APP}:absent", 1, workers=1) as grid, pytest.raises(WorkerStartError, match="absent"):
        grid.send_and_receive(messages([1]))
    sys.modules.pop("process_app")


SCRIPT = """
import numpy as np
from hedgerow.server.grids.processes import ProcessGrid
from tests.server.grids.test_processes import messages, outcome
from tests.server.grids import process_app

def make_app():
    return process_app.app

{guard}
    with ProcessGrid(make_app, 1, workers=1) as grid:
        print(outcome(grid.send_and_receive(messages([1]))))
"""


@pytest.mark.parametrize(
    ("guard", "code", "said"),
    [("if __name__ == '__main__':", 0, "{0: [0.0, 0.0]}"), ("if True:", 1, "WorkerStartError")],
)
def test_a_factory_of_a_script_is_found_when_its_main_part_is_guarded(guard, code, said, tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT.format(guard=guard))
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run(
        [sys.executable, str(tmp_path / "script.py")], env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, said in done.stdout + done.stderr) == (code, True), done.stderr


def test_a_worker_that_does_not_read_is_late():
    with ProcessGrid(f"{APP}:app", 1, workers=1) as grid:
        grid.send_and_receive(messages([1]))
        (stopped,) = workers_of(grid)
        os.kill(stopped, signal.SIGSTOP)
        found = outcome(grid.send_and_receive(messages([1], weights=[0.0] * 2**20), timeout=0.5))
        assert found == {0: "no answer in time"}
        assert workers_of(grid) == []


@pytest.mark.parametrize("where", ["in-process", "processes"])
def test_strategies_of_trees_run_on_grids_of_arbitrary_apps(where):
    from flwr.serverapp.strategy import FedXgbBagging, FedXgbCyclic

    boosted = load_attribute(f"{APP}:boosted_trees")
    if where == "processes":
        grid = ProcessGrid(f"{APP}:boosted_trees_app", 3, workers=1, check_updates=False)
    else:
        grid = InProcessGrid(boosted(), 3, check_updates=False)
    start = {"initial_arrays": array_record({"0": np.zeros(0, np.uint8)}), "num_rounds": 2}
    bagged = FedXgbBagging(fraction_evaluate=0.0).start(grid, **start)
    cycled = FedXgbCyclic(fraction_evaluate=0.0, fraction_train=1.0).start(grid, **start)
    if where == "processes":
        grid.close()

    def trees(result):
        return json.loads(bytes(result.arrays["0"].numpy()))["learner"]["gradient_booster"]["model"]["trees"]

    assert [tree["id"] for tree in trees(bagged)] == [0, 1, 2, 3, 4, 5]
    assert sorted(tree["leaf"] for tree in trees(bagged)) == [0, 0, 1, 1, 2, 2]
    assert [tree["after"] for tree in trees(cycled)] == [1]


def test_a_grid_needs_a_node_and_a_worker():
    with pytest.raises(ValueError, match="at least 1"):
        ProcessGrid(f"{APP}:app", 0)
    with pytest.raises(ValueError, match="at least 1"):
        ProcessGrid(f"{APP}:app", 1, workers=0)
