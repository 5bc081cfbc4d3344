"""Tests of ``hedgerow checkpoint import`` and of weights that runs start from, through the real commands."""

import json
from pathlib import Path

import numpy as np
import pytest

from hedgerow.checkpoint import load_checkpoint
from hedgerow.cli import main
from hedgerow.task import load_task

pytestmark = pytest.mark.heavy


@pytest.fixture
def trained(tiny_reference, tmp_path) -> Path:
    """Train the tiny task's model in plain torch, as a user would, and save it."""
    import torch

    data = load_task(tiny_reference).load_data().train
    torch.manual_seed(0)
    model = torch.nn.Linear(2, 3)
    optimizer = torch.optim.SGD(model.parameters(), 0.5)
    for _ in range(200):
        optimizer.zero_grad()
        given = model(torch.from_numpy(data.inputs["point"]))
        torch.nn.functional.cross_entropy(given, torch.from_numpy(data.target_values)).backward()
        optimizer.step()
    torch.save({"epoch": 200, "model_state_dict": model.state_dict()}, tmp_path / "model.pt")
    return tmp_path / "model.pt"


def accuracy_by_hand(path, reference) -> float:
    import torch

    held_out = load_task(reference).load_data().held_out
    state = torch.load(path, weights_only=True)["model_state_dict"]
    given = held_out.inputs["point"] @ state["weight"].numpy().T + state["bias"].numpy()
    return float((given.argmax(axis=1) == held_out.target_values).mean())


def imported(trained, reference, out, *more) -> int:
    return main(["checkpoint", "import", str(trained), "--task", reference, "-o", str(out), *more])


def test_a_trained_file_becomes_a_checkpoint_with_its_accuracy_in_the_record(trained, tiny_reference, tmp_path, capsys):
    assert imported(trained, tiny_reference, tmp_path / "out") == 0
    out = capsys.readouterr().out

    found = load_checkpoint(tmp_path / "out")
    accuracy = accuracy_by_hand(trained, tiny_reference)
    assert accuracy > 0.9
    assert found.metrics["accuracy"] == pytest.approx(accuracy)
    assert {"loss", "accuracy", "baseline_accuracy", "precision", "recall", "f1"} == set(found.metrics)
    assert (found.task, found.strategy, found.grid, found.round) == ("points", "imported", "imported", 0)
    held_out = load_task(tiny_reference).load_data().held_out.target_values
    train = load_task(tiny_reference).load_data().train.target_values
    common = int(np.bincount(train).argmax())
    assert out.splitlines() == [
        "taken from the entry 'model_state_dict' of the file",
        (
            f"points: 2 tensors, 9 values; accuracy {accuracy:.3f} on 100 held-out samples; "
            f"always {('top', 'right', 'left')[common]!r}, the most frequent class: {(held_out == common).mean():.3f}"
        ),
        f"checkpoint: {tmp_path / 'out'}",
    ]


def test_json_says_the_same_and_the_same_file_gives_the_same_checkpoint(trained, tiny_reference, tmp_path, capsys):
    for out in ("one", "two"):
        assert imported(trained, tiny_reference, tmp_path / out, "--json") == 0
    record = json.loads(capsys.readouterr().out.splitlines()[-1])

    assert record["checkpoint"] == str(tmp_path / "two")
    assert record["beats_baseline"] is True
    assert record["held_out_samples"] == 100
    assert record["metrics"]["accuracy"] == pytest.approx(accuracy_by_hand(trained, tiny_reference))
    assert record["notes"] == ["taken from the entry 'model_state_dict' of the file"]
    for name in ("weights.safetensors", "checkpoint.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_weights_that_beat_nothing_are_imported_and_said(tiny_reference, tmp_path, capsys):
    import torch

    torch.save({"weight": torch.zeros(3, 2), "bias": torch.tensor([0.0, 1.0, 0.0])}, tmp_path / "m.pt")

    assert imported(tmp_path / "m.pt", tiny_reference, tmp_path / "out") == 0
    assert "held-out samples, which beats nothing (always " in (out := capsys.readouterr().out)
    assert "look at preprocess, at the order of the outputs, and whether these weights are of this model" in out


def test_an_earlier_import_is_replaced_and_nothing_else(trained, tiny_reference, tmp_path, capsys):
    out = tmp_path / "out"
    assert imported(trained, tiny_reference, out) == 0
    assert imported(trained, tiny_reference, out) == 0
    whole = (out / "checkpoint.json").read_bytes()
    (out / "checkpoint.json").unlink()  # as a kill leaves it
    (out / ".checkpoint.json.x.part").touch()
    assert imported(trained, tiny_reference, out) == 0
    assert (out / "checkpoint.json").read_bytes() == whole
    (out / "notes.txt").touch()
    assert imported(trained, tiny_reference, out) == 1
    assert f"expected a new folder, an empty one or an imported checkpoint at {out}, found 'notes.txt' in it" in (
        capsys.readouterr().err
    )
    assert main(["train", tiny_reference, "--rounds", "1", "--out", str(tmp_path / "run")]) == 0
    before = (tmp_path / "run" / "checkpoint" / "checkpoint.json").read_bytes()
    assert imported(trained, tiny_reference, tmp_path / "run" / "checkpoint") == 1
    assert "found the checkpoint of the run points-" in capsys.readouterr().err
    assert imported(trained, tiny_reference, trained) == 1
    assert "found a file; choose another with --out" in capsys.readouterr().err
    assert (tmp_path / "run" / "checkpoint" / "checkpoint.json").read_bytes() == before


def test_a_refused_file_leaves_nothing_behind(tiny_reference, tmp_path, capsys):
    import torch

    torch.save({"weight": torch.zeros(3, 2)}, tmp_path / "m.pt")
    assert imported(tmp_path / "m.pt", tiny_reference, tmp_path / "out") == 1
    assert "found others: 1 missing (bias); give the weights" in capsys.readouterr().err
    torch.save({"weight": torch.full((3, 2), 3e38), "bias": torch.zeros(3)}, tmp_path / "m.pt")
    assert imported(tmp_path / "m.pt", tiny_reference, tmp_path / "out") == 1
    assert f"with the weights of {tmp_path / 'm.pt'} the model gives NaN or infinity on held-out samples" in (
        capsys.readouterr().err
    )
    assert not (tmp_path / "out").exists()


def first_weights(run) -> dict:
    """Return what the rounds of a run began with: a step of no length leaves it as it was."""
    return load_checkpoint(run / "checkpoint").weights


@pytest.fixture
def still_reference(tmp_path) -> str:
    """Name the tiny task with a learning rate of nearly nothing."""
    (tmp_path / "still.py").write_text(
        "from hedgerow import LocalTraining\nfrom hedgerow.task import load_attribute\n"
        f"make_task = load_attribute({str(Path(__file__).parents[1] / 'tiny_task.py')!r} + ':make_task')\n"
        "task = make_task(local=LocalTraining(learning_rate=1e-12))\n"
    )
    return f"{tmp_path / 'still.py'}:task"


@pytest.mark.parametrize("form", ["file", "checkpoint"])
@pytest.mark.parametrize("command", ["train", "simulate"])
def test_a_run_starts_from_the_weights_that_are_given(trained, still_reference, tmp_path, capsys, command, form):
    import torch

    start = trained
    if form == "checkpoint":
        assert imported(trained, still_reference, tmp_path / "start") == 0
        start = tmp_path / "start"
    out = tmp_path / "run"
    reference = (
        [still_reference] if command == "train" else ["--task", still_reference, "--clients", "4", "--cohort", "4"]
    )
    arguments = [command, *reference, "--rounds", "1", "--out", str(out)]

    assert main([*arguments, "--from", str(start)]) == 0
    wanted = torch.load(trained, weights_only=True)["model_state_dict"]
    for name, value in first_weights(out).items():
        np.testing.assert_allclose(value, wanted[name].numpy(), atol=1e-6)
    capsys.readouterr()
    # Another start is another run.
    assert main(arguments) == 1
    assert "initial_sha256" in capsys.readouterr().err


def test_weights_of_another_model_start_no_run(tiny_reference, tmp_path, capsys):
    import torch

    torch.save({"weight": torch.zeros(4, 2), "bias": torch.zeros(3)}, tmp_path / "m.pt")
    run = ["train", tiny_reference, "--rounds", "1", "--out", str(tmp_path / "run")]

    assert main([*run, "--from", str(tmp_path / "m.pt")]) == 1
    assert "1 of another shape (weight is [3, 2], here [4, 2])" in capsys.readouterr().err
    assert main([*run, "--from", str(tmp_path / "nowhere")]) == 1
    assert f"expected a file of weights in {tmp_path / 'nowhere'}, found no such file" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_the_privacy_of_a_run_says_nothing_of_its_first_weights(trained, tiny_reference, tmp_path, capsys):
    private = ["train", tiny_reference, "--rounds", "1", "--strategy", "fedavg+server-fixed:clip=1,noise=1"]

    assert main([*private, "--out", str(tmp_path / "run"), "--from", str(trained)]) == 0
    lines = capsys.readouterr().out.splitlines()
    [place] = [number for number, line in enumerate(lines) if line.startswith("privacy: epsilon")]
    assert lines[place + 1] == "privacy: nothing is said of the data that the first weights were trained on"
