"""Tests of hedgerow.server.training."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace

import numpy as np
import pytest
from torch import nn

from hedgerow.checkpoint import load_checkpoint
from hedgerow.errors import CheckpointError, CheckpointMismatchError, PartitionError, TaskError, UnknownNameError
from hedgerow.server.errors import (
    NotEnoughDevicesError,
    NoUpdateError,
    RoundFailedError,
    RunFolderError,
    RunMismatchError,
)
from hedgerow.server.evaluation import Evaluator
from hedgerow.server.flower import array_record, numpy_arrays
from hedgerow.server.grids.fleet import FleetGrid
from hedgerow.server.grids.in_process import InProcessGrid
from hedgerow.server.grids.transport import DeviceUpdate, SimulatedTransport
from hedgerow.server.training import data_fingerprint, initial_weights, train_task

pytestmark = pytest.mark.heavy


def same(a, b) -> bool:
    return set(a) == set(b) and all(np.array_equal(a[name], b[name]) for name in a)


def test_a_run_learns_and_leaves_a_checkpoint(tiny_task, tmp_path):
    seen = []
    result = train_task(tiny_task, tmp_path / "run", rounds=5, clients=4, report=seen.append)

    assert result.checkpoint.metrics["accuracy"] > 0.95
    assert load_checkpoint(result.checkpoint_folder).metrics == result.checkpoint.metrics
    assert [record.round for record in result.history] == [1, 2, 3, 4, 5]
    assert result.history[0].participants == ("0", "1", "2", "3")
    assert result.history[0].examples == 200
    assert result.history[-1].train_loss < result.history[0].train_loss
    assert [(p.work, p.done, p.total) for p in seen][-1] == ("train points", 5, 5)
    assert seen[-1].note == f"accuracy {result.history[-1].score:.3f}"


def test_the_same_seed_gives_the_same_bits_whatever_the_number_of_workers(tiny_task, tmp_path):
    one = train_task(tiny_task, tmp_path / "one", rounds=3, workers=1)
    three = train_task(tiny_task, tmp_path / "three", rounds=3, workers=3)
    other = train_task(tiny_task, tmp_path / "other", rounds=3, seed=1)

    assert same(one.checkpoint.weights, three.checkpoint.weights)
    assert not same(one.checkpoint.weights, other.checkpoint.weights)


def test_a_resumed_run_ends_with_the_same_bits_also_when_clients_are_sampled(tiny_task, tmp_path):
    whole = train_task(tiny_task, tmp_path / "whole", rounds=6, fraction=0.5)
    for rounds in (2, 3, 6):
        parts = train_task(tiny_task, tmp_path / "parts", rounds=rounds, fraction=0.5)

    assert same(whole.checkpoint.weights, parts.checkpoint.weights)
    assert [r.participants for r in whole.history] == [r.participants for r in parts.history]
    assert len({r.participants for r in whole.history}) > 1
    assert [r.score for r in whole.history] == [r.score for r in parts.history]


def test_a_killed_run_goes_on_and_ends_with_the_same_bits(tiny_task, tiny_reference, tmp_path):
    program = textwrap.dedent(f"""
        import os, signal
        from pathlib import Path
        from hedgerow.task import load_task
        from hedgerow.server.training import train_task

        def kill(progress):
            if progress.done == 3:
                os.kill(os.getpid(), signal.SIGKILL)

        train_task(load_task({tiny_reference!r}), Path({str(tmp_path / "killed")!r}), strategy="fedadam", rounds=5,
                   report=kill)
    """)
    done = subprocess.run([sys.executable, "-c", program], check=False, env=dict(os.environ))
    assert done.returncode == -signal.SIGKILL

    resumed = train_task(tiny_task, tmp_path / "killed", strategy="fedadam", rounds=5)
    whole = train_task(tiny_task, tmp_path / "whole", strategy="fedadam", rounds=5)
    assert same(whole.checkpoint.weights, resumed.checkpoint.weights)


def test_our_rounds_are_those_of_flowers_own_loop(tiny_task, tmp_path):
    from flwr.app import ConfigRecord
    from flwr.serverapp.strategy import FedAvg

    from hedgerow.server.client_app import make_client_app

    ours = train_task(tiny_task, tmp_path / "ours", rounds=3, clients=4)
    app = make_client_app(tiny_task, tiny_task.load_data(), seed=0)
    theirs = FedAvg().start(
        InProcessGrid(app, 4),
        array_record(initial_weights(tiny_task, 0)),
        num_rounds=3,
        train_config=ConfigRecord({"seed": 0}),
    )
    assert same(ours.checkpoint.weights, numpy_arrays(theirs.arrays))


def test_a_finished_run_is_not_trained_again(tiny_task, tmp_path):
    first = train_task(tiny_task, tmp_path, rounds=2)
    seen = []
    again = train_task(tiny_task, tmp_path, rounds=2, report=seen.append)
    assert seen == []
    assert same(first.checkpoint.weights, again.checkpoint.weights)
    assert again.checkpoint == replace(first.checkpoint, weights=again.checkpoint.weights)


def test_a_folder_of_another_run_is_refused_and_untouched(tiny_task, tmp_path):
    first = train_task(tiny_task, tmp_path, rounds=2)
    with pytest.raises(RunMismatchError, match="strategy 'fedavg' instead of 'fedadam'"):
        train_task(tiny_task, tmp_path, rounds=2, strategy="fedadam")
    with pytest.raises(RunMismatchError, match="rounds 2 instead of 1"):
        train_task(tiny_task, tmp_path, rounds=1)
    assert load_checkpoint(tmp_path / "checkpoint").run == first.checkpoint.run


def test_a_run_can_start_from_a_checkpoint(tiny_task, tmp_path):
    first = train_task(tiny_task, tmp_path / "first", rounds=5)
    second = train_task(tiny_task, tmp_path / "second", rounds=1, initial=first.checkpoint, parent="points@1")
    assert second.checkpoint.parent == "points@1"
    assert second.history[0].score > 0.9


def test_a_checkpoint_of_another_model_is_refused(tiny_task, make_task, tmp_path):
    first = train_task(tiny_task, tmp_path / "first", rounds=1)
    bigger = make_task(model=lambda: nn.Sequential(nn.Linear(2, 4), nn.Linear(4, 3)))
    with pytest.raises(CheckpointMismatchError):
        train_task(bigger, tmp_path / "second", initial=first.checkpoint)
    assert not (tmp_path / "second").exists()


def test_wrong_settings_are_refused_before_anything_is_written(tiny_task, make_task, tmp_path):
    def broken():
        raise RuntimeError("no such layer")

    with pytest.raises(UnknownNameError):
        train_task(tiny_task, tmp_path / "a", strategy="nope")
    with pytest.raises(PartitionError):
        train_task(tiny_task, tmp_path / "b", clients=201)
    with pytest.raises(TaskError, match=r"model\(\) raised RuntimeError: no such layer"):
        train_task(make_task(model=broken), tmp_path / "c")
    with pytest.raises(ValueError, match="rounds"):
        train_task(tiny_task, tmp_path / "d", rounds=0)
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_diverges_says_so(make_task, tmp_path):
    from hedgerow.task import LocalTraining

    diverging = make_task(
        loss=lambda logits, labels: (logits**4).mean(), local=LocalTraining(learning_rate=900, epochs=3)
    )
    with pytest.raises(NoUpdateError, match="NaN") as caught:
        train_task(diverging, tmp_path, rounds=5)
    assert caught.value.kinds == {"not finite": 24}


def test_a_model_that_draws_random_numbers_is_reproducible_too(make_task, tmp_path):
    noisy = make_task(model=lambda: nn.Sequential(nn.Dropout(0.3), nn.Linear(2, 3)))
    one = train_task(noisy, tmp_path / "one", rounds=3)
    two = train_task(noisy, tmp_path / "two", rounds=3, workers=4)
    assert same(one.checkpoint.weights, two.checkpoint.weights)


def test_buffers_keep_their_types(make_task, tmp_path):
    normed = make_task(model=lambda: nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 3)))
    result = train_task(normed, tmp_path, rounds=2)
    assert result.checkpoint.weights["0.num_batches_tracked"].dtype == np.int64


def device(task, seed):
    """Return a device that trains like a client, on samples of its own."""
    from hedgerow.local_work import LocalWork
    from hedgerow.server.local_steps import LocalTrainer

    trainer = LocalTrainer(task)
    samples = task.data().train.take(range(seed * 20, seed * 20 + 20))

    def step(work, name):
        local = LocalWork(
            epochs=work.local.epochs,
            learning_rate=work.local.learning_rate,
            batch_size=8,
            seed=work.local.seed,
            round=work.round,
            client=name,
        )
        weights, loss = trainer.train(work.weights, samples, local)
        return DeviceUpdate(device=name, state="done", examples=20, metrics={"loss": loss}, weights=weights)

    return step


def test_a_fleet_trains_resumes_and_reports_who_did_not_help(tiny_task, tmp_path):
    steps = {f"device-{i}": device(tiny_task, i) for i in range(4)}
    steps["sleepy"] = lambda work, name: DeviceUpdate(device=name, state="declined", reason="battery is low")
    transport = SimulatedTransport(steps)
    settings = {"minimum_samples": 16, "round_timeout_s": 30.0, "seed": 3}

    whole = train_task(tiny_task, tmp_path / "whole", rounds=4, grid=FleetGrid(SimulatedTransport(steps)), **settings)
    train_task(tiny_task, tmp_path / "parts", rounds=1, grid=FleetGrid(transport), **settings)
    parts = train_task(tiny_task, tmp_path / "parts", rounds=4, grid=FleetGrid(transport), **settings)

    assert same(whole.checkpoint.weights, parts.checkpoint.weights)
    assert whole.checkpoint.grid == "fleet"
    assert whole.checkpoint.data_fingerprint == ""
    assert whole.checkpoint.metrics["accuracy"] > 0.9
    assert whole.history[0].participants == ("device-0", "device-1", "device-2", "device-3")
    assert whole.history[0].failures == {"sleepy": "declined: battery is low"}
    work = transport.rounds[0]
    assert (work.run, work.round, work.local.seed, work.local.minimum_samples, work.deadline_s) == (
        parts.checkpoint.run, 1, 3, 16, 30.0,
    )  # fmt: skip
    assert (work.local.epochs, work.local.learning_rate) == (1, 0.3)


def test_a_fleet_run_without_the_data_on_the_server_is_not_evaluated(make_task, tiny_task, tmp_path):
    def absent():
        raise FileNotFoundError("no data here")

    grid = FleetGrid(SimulatedTransport({f"device-{i}": device(tiny_task, i) for i in range(2)}))
    result = train_task(make_task(data=absent), tmp_path, rounds=2, grid=grid)
    assert result.history[-1].score is None
    assert result.history[-1].train_loss is not None


def test_too_few_devices_end_the_wait(tiny_task, tmp_path):
    grid = FleetGrid(SimulatedTransport({"only": device(tiny_task, 0)}))
    with pytest.raises(NotEnoughDevicesError, match="at least 2 devices that can train, found 1"):
        train_task(tiny_task, tmp_path, rounds=2, grid=grid, wait_s=0.0)


def test_too_few_devices_for_a_transport_that_raises_name_that_as_the_reason(tiny_task, tmp_path):
    class Deaf(SimulatedTransport):
        def devices(self):
            raise TimeoutError("no broker")

    with pytest.raises(NotEnoughDevicesError, match=r"after 0 s \(the transport raised TimeoutError: no broker"):
        train_task(tiny_task, tmp_path, rounds=2, grid=FleetGrid(Deaf({})), wait_s=0.0)


def test_a_transport_that_raises_in_every_round_ends_the_run_with_that_reason(tiny_task, tmp_path):
    class Broken(SimulatedTransport):
        def run_round(self, _work):
            raise ConnectionError("the broker is gone")

    grid = FleetGrid(Broken({name: device(tiny_task, 0) for name in "ab"}))
    with pytest.raises(NoUpdateError, match="the broker is gone") as caught:
        train_task(tiny_task, tmp_path, rounds=9, grid=grid)
    assert caught.value.kinds == {"transport": 6}


def test_three_rounds_in_a_row_without_updates_end_a_run(tiny_task, tmp_path):
    refuse = lambda work, name: DeviceUpdate(device=name, state="failed", reason="no runtime")  # noqa: E731
    transport = SimulatedTransport({"a": refuse, "b": refuse})
    with pytest.raises(RoundFailedError, match=r"round 3.*6 raised; a: failed: no runtime"):
        train_task(tiny_task, tmp_path, rounds=9, grid=FleetGrid(transport))
    assert len(transport.rounds) == 3


def test_one_bad_round_keeps_the_weights_and_the_run_goes_on(tiny_task, tmp_path):
    good = device(tiny_task, 0)

    def step(work, name):
        return None if work.round == 2 else good(work, name)

    grid = FleetGrid(SimulatedTransport({"a": step, "b": step}))
    result = train_task(tiny_task, tmp_path, rounds=3, grid=grid)
    assert result.history[1].participants == ()
    assert result.history[1].score == result.history[0].score
    assert result.history[2].participants == ("a", "b")


def until(last_round, task):
    """Return an app whose clients train in the first rounds only."""
    from hedgerow.server.client_app import make_client_app

    honest = make_client_app(task, task.load_data())

    def app(message, context):
        if next(iter(message.content.config_records.values()))["server-round"] > last_round:
            raise ValueError("gone")
        return honest(message, context)

    return app


@pytest.mark.parametrize(
    ("trained", "rounds", "empty"), [(0, 1, 1), (0, 2, 2), (1, 2, 1), (1, 3, 2), (3, 9, 3), (0, 9, 3)]
)
def test_a_run_that_ends_without_updates_fails_with_the_reasons_and_leaves_no_result(
    trained, rounds, empty, tiny_task, tmp_path
):
    grid = InProcessGrid(until(trained, tiny_task), 3)
    with pytest.raises(NoUpdateError, match="gone") as caught:
        train_task(tiny_task, tmp_path, rounds=rounds, grid=grid, minimum_devices=3)
    assert (caught.value.round_number, caught.value.rounds) == (trained + empty, empty)
    assert caught.value.kinds == {"raised": 3 * empty}
    assert not (tmp_path / "checkpoint").exists()
    failure = json.loads((tmp_path / "failed.json").read_text())
    assert (failure["round"], failure["refused"]) == (trained + empty, {"raised": 3 * empty})


def test_a_failed_run_goes_on_when_the_cause_is_gone_and_ends_as_one_that_skipped_the_bad_rounds(tiny_task, tmp_path):
    with pytest.raises(NoUpdateError):
        train_task(tiny_task, tmp_path / "a", rounds=3, grid=InProcessGrid(until(1, tiny_task), 3), minimum_devices=3)
    assert [json.loads(line)["round"] for line in (tmp_path / "a" / "rounds.jsonl").read_text().splitlines()] == [1, 2]
    result = train_task(
        tiny_task, tmp_path / "a", rounds=3, grid=InProcessGrid(until(9, tiny_task), 3), minimum_devices=3
    )
    assert [record.used for record in result.history] == [3, 0, 3]
    assert (result.updates, result.refused) == (6, {"raised": 3})
    assert not (tmp_path / "a" / "failed.json").exists()
    assert load_checkpoint(result.checkpoint_folder).round == 3


def test_a_private_run_counts_all_its_rounds_or_says_that_it_cannot(tiny_task, tmp_path):
    pytest.importorskip("dp_accounting")

    def train(rounds):
        return train_task(tiny_task, tmp_path, rounds=rounds, clients=3, strategy="fedavg+server-fixed:noise=3")

    first, more = train(2).privacy, train(4).privacy
    assert (first.rounds, more.rounds) == (2, 4)
    assert more.epsilon > first.epsilon > 0
    lines = (tmp_path / "rounds.jsonl").read_text().splitlines()
    (tmp_path / "rounds.jsonl").write_text("\n".join([lines[0], *lines[2:]]) + "\n")
    with pytest.raises(RunFolderError, match="found none of round 2"):
        train(5)
    forgotten = json.loads(lines[1])
    del forgotten["privacy"]
    (tmp_path / "rounds.jsonl").write_text("\n".join([lines[0], json.dumps(forgotten), *lines[2:]]) + "\n")
    unknown = train(5).privacy
    assert unknown.epsilon is None
    assert unknown.line().startswith("privacy: epsilon unknown (what round 2 gave away was not recorded)")


def test_a_result_of_fewer_rounds_is_none_any_more_when_the_longer_run_fails(tiny_task, tmp_path):
    def train(last, rounds):
        grid = InProcessGrid(until(last, tiny_task), 3)
        return train_task(tiny_task, tmp_path, rounds=rounds, grid=grid, minimum_devices=3)

    train(9, 2)
    with pytest.raises(NoUpdateError):
        train(2, 3)
    for folder in (tmp_path, tmp_path / "checkpoint", tmp_path / "rounds" / "000002"):
        with pytest.raises(CheckpointError, match=r"a run that succeeded.*round 3: expected at least one update"):
            load_checkpoint(folder)
    assert train(9, 3).checkpoint.round == 3
    assert load_checkpoint(tmp_path / "checkpoint").round == 3


def test_a_run_that_an_older_version_ended_without_updates_is_no_success_either(tiny_task, tmp_path):
    good = InProcessGrid(until(9, tiny_task), 3)
    train_task(tiny_task, tmp_path, rounds=2, grid=good, minimum_devices=3)
    lines = (tmp_path / "rounds.jsonl").read_text().splitlines()
    last = {**json.loads(lines[1]), "participants": [], "examples": 0, "failures": {"0": "gone"}}
    (tmp_path / "rounds.jsonl").write_text(f"{lines[0]}\n{json.dumps(last)}\n")
    with pytest.raises(NoUpdateError, match="0: gone"):
        train_task(tiny_task, tmp_path, rounds=2, grid=good, minimum_devices=3)


def test_a_client_of_an_own_grid_cannot_claim_more_samples_than_its_part_has(tiny_task, tmp_path, monkeypatch):
    from flwr.app import MetricRecord

    from hedgerow.server import training

    made = training.make_client_app

    def lying(*args, **settings):
        app = made(*args, **settings)

        def answer(message, context):
            reply = app(message, context)
            if context.node_id == 1:
                reply.content["metrics"] = MetricRecord({**reply.content["metrics"], "num-examples": 26})
            return reply

        return answer

    monkeypatch.setattr(training, "make_client_app", lying)
    record = train_task(tiny_task, tmp_path, rounds=1, clients=8).history[0]
    assert (record.used, record.examples, record.refused) == (7, 175, {"count": 1})
    assert "from 1 to 25, which it declared, found 26" in record.failures["0"]


def test_the_fingerprint_depends_on_every_value(tiny_task):
    data = tiny_task.data()
    before = data_fingerprint(data)
    assert data_fingerprint(tiny_task.data()) == before
    data.train.inputs["point"][7, 1] += 1
    assert data_fingerprint(data) != before


def test_metrics_are_shown_for_each_subgroup(make_task, tmp_path):
    task = make_task(subgroup="half", metrics={"share": lambda probabilities, labels: float(len(labels))})
    data = task.load_data()
    measured = Evaluator(task, data.held_out).measure(initial_weights(task, 0))
    halves = [measured["share[half=0]"], measured["share[half=1]"]]
    assert sum(halves) == measured["share"] == 100
    assert set(measured) >= {"loss", "accuracy", "accuracy[half=0]", "accuracy[half=1]"}
