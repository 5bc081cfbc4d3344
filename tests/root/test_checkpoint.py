"""A checkpoint comes back as it was saved, or is refused with one sentence."""

import json

import numpy as np
import pytest

from hedgerow.checkpoint import (
    FAILURE_FILE,
    RECORD_FILE,
    WEIGHTS_FILE,
    Checkpoint,
    load_checkpoint,
    load_checkpoint_of,
    save_checkpoint,
)
from hedgerow.errors import CheckpointError, CheckpointMismatchError

CHECKPOINT = Checkpoint(
    weights={"w": np.arange(4, dtype=np.float32), "steps": np.array(3)},
    task="digits",
    run="run-1",
    round=5,
    strategy="fedavg",
    grid="in-process",
    seed=7,
    data_fingerprint="abc",
    parent="digits@1",
    metrics={"accuracy": 0.95},
)


def test_a_checkpoint_survives_the_disk(tmp_path):
    save_checkpoint(tmp_path / "checkpoint", CHECKPOINT)

    loaded = load_checkpoint(tmp_path / "checkpoint")

    assert {name: array.tolist() for name, array in loaded.weights.items()} == {"w": [0, 1, 2, 3], "steps": 3}
    for name in ("task", "run", "round", "strategy", "grid", "seed", "data_fingerprint", "parent", "metrics"):
        assert getattr(loaded, name) == getattr(CHECKPOINT, name)


def test_a_failed_run_refuses_its_own_checkpoints_by_any_path_and_nobody_elses(tmp_path):
    def saved(*folders):
        for folder in folders:
            save_checkpoint(tmp_path / folder, CHECKPOINT)

    saved("runs/checkpoint", "runs/rounds/000005", "runs/other/checkpoint", "runs/other/rounds/000005")
    (tmp_path / "runs" / FAILURE_FILE).write_text('{"reason":"nobody trained"}')
    (tmp_path / "latest").symlink_to(tmp_path / "runs" / "checkpoint")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")

    for refused in ("runs/checkpoint", "runs/rounds/000005", "latest", "runs/other/../checkpoint"):
        with pytest.raises(CheckpointError, match="one that failed: nobody trained"):
            load_checkpoint(tmp_path / refused)
    assert load_checkpoint(tmp_path / "runs/other/checkpoint").round == 5
    assert load_checkpoint(tmp_path / "runs/other/rounds/000005").round == 5
    with pytest.raises(CheckpointError, match="found none"):
        load_checkpoint(tmp_path / "loop")


def test_a_checkpoint_of_another_task_is_told_by_both_names(tmp_path):
    save_checkpoint(tmp_path, CHECKPOINT)

    assert load_checkpoint_of("digits", tmp_path).run == "run-1"
    with pytest.raises(CheckpointMismatchError) as caught:
        load_checkpoint_of("letters", tmp_path)
    assert str(caught.value) == (
        "expected a checkpoint of the task 'letters', found one of 'digits'; give the checkpoint that this task was "
        "trained to"
    )


def test_saving_again_replaces_it(tmp_path):
    save_checkpoint(tmp_path, CHECKPOINT)
    save_checkpoint(tmp_path, Checkpoint(weights={}, task="t", run="r", round=6, strategy="s", grid="g", seed=0))

    assert load_checkpoint(tmp_path).round == 6


def test_no_checkpoint_names_the_command_that_makes_one(tmp_path):
    with pytest.raises(CheckpointError, match=r"found none .*; make one with `hedgerow train`"):
        load_checkpoint(tmp_path / "nowhere")


def test_weights_without_their_record_are_no_checkpoint(tmp_path):
    save_checkpoint(tmp_path, CHECKPOINT)
    (tmp_path / RECORD_FILE).unlink()

    with pytest.raises(CheckpointError, match="found none"):
        load_checkpoint(tmp_path)


def test_weights_of_another_run_are_refused(tmp_path):
    save_checkpoint(tmp_path, CHECKPOINT)
    other = tmp_path / "other"
    save_checkpoint(
        other, Checkpoint(weights={"w": np.ones(4)}, task="t", run="r", round=1, strategy="s", grid="g", seed=0)
    )
    (tmp_path / WEIGHTS_FILE).write_bytes((other / WEIGHTS_FILE).read_bytes())

    with pytest.raises(CheckpointError, match=r"expected weights with SHA-256 .* found"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize(
    "damage", [lambda record: record[:-2], lambda record: b"[]", lambda record: record.replace(b'"seed"', b'"sead"')]
)
def test_a_damaged_record_is_refused(tmp_path, damage):
    save_checkpoint(tmp_path, CHECKPOINT)
    path = tmp_path / RECORD_FILE
    path.write_bytes(damage(path.read_bytes()))

    with pytest.raises(CheckpointError, match="is damaged"):
        load_checkpoint(tmp_path)


def test_cut_weights_are_refused(tmp_path):
    save_checkpoint(tmp_path, CHECKPOINT)
    path = tmp_path / WEIGHTS_FILE
    path.write_bytes(path.read_bytes()[:-1])

    with pytest.raises(CheckpointError, match="is damaged"):
        load_checkpoint(tmp_path)


def test_the_record_is_readable_json(tmp_path):
    save_checkpoint(tmp_path, CHECKPOINT)

    assert json.loads((tmp_path / RECORD_FILE).read_bytes())["metrics"] == {"accuracy": 0.95}
