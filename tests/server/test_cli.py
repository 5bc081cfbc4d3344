"""Tests of hedgerow.server.cli, through the real command."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hedgerow.checkpoint import load_checkpoint
from hedgerow.cli import main

pytestmark = pytest.mark.heavy

OUTPUT_TASKS = Path(__file__).parents[1] / "output_tasks.py"


def test_train_prints_one_json_object(tiny_reference, tmp_path, capsys):
    assert main(["train", tiny_reference, "--rounds", "3", "--clients", "4", "--out", str(tmp_path), "--json"]) == 0
    record = json.loads(capsys.readouterr().out.splitlines()[-1])

    assert record["rounds"] == 3
    assert record["checkpoint"] == str(tmp_path / "checkpoint")
    assert record["metrics"]["accuracy"] == record["history"][-1]["accuracy"]


def test_train_says_where_the_checkpoint_is_and_goes_on(tiny_reference, tmp_path, capsys):
    assert main(["train", tiny_reference, "--rounds", "2", "--out", str(tmp_path)]) == 0
    assert main(["train", tiny_reference, "--rounds", "3", "--out", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "points: 3 rounds of fedavg over 8 clients; accuracy" in out
    assert "updates: 24 used, 0 refused" in out
    assert f"checkpoint: {tmp_path / 'checkpoint'}" in out


@pytest.mark.parametrize(
    ("name", "score", "more"),
    [
        ("values", "worth of the values", "r2 "),
        ("reconstruction", "share of right flags", "auc "),
        ("several", "score", ""),
    ],
)
def test_the_score_is_shown_under_its_name_with_what_is_reached_without_looking_at_the_input(
    name, score, more, tmp_path, capsys
):
    reference = f"{OUTPUT_TASKS}:{name}"
    assert main(["train", reference, "--rounds", "1", "--clients", "2", "--out", str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    first, second, *_rest = out.splitlines()
    assert f"over 2 clients; {score} 0." in first
    assert "accuracy" not in first + err
    assert f"{score} 0." in err
    assert second.startswith("held out: ")
    assert more in second
    assert f"without looking at the input {score} 0." in second

    assert main(["task", "check", reference, "--clients", "2"]) == 0
    assert f"{score} 0." in " ".join(capsys.readouterr().out.split())


def test_a_run_without_updates_is_an_error_with_the_reasons_by_kind_and_compiles_to_nothing(
    tiny_reference, tmp_path, capsys, monkeypatch
):
    from hedgerow.server import training

    def app(*_args, **_settings):
        def fail(message, context):
            raise OSError("no data")

        return fail

    monkeypatch.setattr(training, "make_client_app", app)
    command = ["train", tiny_reference, "--rounds", "2", "--clients", "3", "--out", str(tmp_path)]
    assert main([*command, "--json"]) == 1
    out, err = capsys.readouterr()
    record = json.loads(out.splitlines()[-1])
    assert (record["round"], record["refused"]) == (2, {"raised": 6})
    assert record["error"] in err
    assert "6 raised; 0: OSError: no data" in err
    assert not (tmp_path / "checkpoint").exists()

    build = tmp_path / "build"
    for folder in (tmp_path, tmp_path / "checkpoint", tmp_path / "rounds" / "000001"):
        arguments = ["compile", str(folder), "--task", tiny_reference, "--out", str(build), "--target", "x86-gateway"]
        assert main(arguments) == 1
        assert "expected a checkpoint of a run that succeeded" in capsys.readouterr().err
    assert not build.exists() or not list(build.glob("*/*"))


def test_another_seed_needs_another_folder_or_fresh(tiny_reference, tmp_path, capsys):
    command = ["train", tiny_reference, "--rounds", "1", "--out", str(tmp_path)]
    assert main(command) == 0
    assert main([*command, "--seed", "1"]) == 1
    assert "seed 0 instead of 1; choose another folder or start with --fresh" in capsys.readouterr().err
    assert main([*command, "--seed", "1", "--fresh"]) == 0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["train", "nowhere.py:task"], "there is no such file"),
        (["train", "TINY", "--strategy", "fedavgg"], "did you mean 'fedavg'?"),
        (["train", "TINY", "--clients", "999"], "use fewer clients"),
        (["task", "check", "TINY", "--clients", "999"], "use fewer clients"),
    ],
)
def test_a_wrong_argument_gets_one_sentence(arguments, sentence, tiny_reference, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([tiny_reference if argument == "TINY" else argument for argument in arguments]) == 1
    error = capsys.readouterr().err
    assert sentence in error
    assert len(error.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_check_shows_tables(tiny_reference, capsys):
    assert main(["task", "check", tiny_reference]) == 0
    out = capsys.readouterr().out
    assert all(text in out for text in ("n x 2", "top", "probabilities", "all 9 parameters", "no mistakes found"))


def test_check_prints_one_json_object(tiny_reference, capsys):
    assert main(["task", "check", tiny_reference, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["parameters"] == 9


def test_an_interrupt_keeps_the_finished_rounds_and_says_so(tiny_reference, tmp_path):
    command = [sys.executable, "-m", "hedgerow.cli", "train", tiny_reference, "--out", str(tmp_path), "--rounds"]
    lines = tmp_path / "rounds.jsonl"
    # A shell may have started the tests with interrupts ignored; the command must see them.
    with subprocess.Popen(
        [*command, "100000"],
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509
    ) as process:
        try:
            deadline = time.monotonic() + 60
            while process.poll() is None and time.monotonic() < deadline:
                if lines.exists() and lines.read_bytes().count(b"\n") >= 3:
                    break
                time.sleep(0.05)
            process.send_signal(signal.SIGINT)
            _out, error = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130
    assert f"finished rounds are in {tmp_path}, the same command goes on from there" in error
    assert "Traceback" not in error

    finished = lines.read_bytes().count(b"\n")
    assert finished >= 3
    assert subprocess.run([*command, str(finished + 1)], check=False, capture_output=True).returncode == 0


def test_a_strategy_of_a_users_own_trains_by_its_file(tiny_reference, tmp_path, capsys):
    (tmp_path / "mine.py").write_text("from flwr.serverapp.strategy import FedAvg\nclass Mine(FedAvg):\n    pass\n")
    command = ["train", tiny_reference, "--rounds", "2", "--json"]
    assert main([*command, "--strategy", f"{tmp_path}/mine.py:Mine", "--out", str(tmp_path / "mine")]) == 0
    assert main([*command, "--out", str(tmp_path / "fedavg")]) == 0
    mine, theirs = (load_checkpoint(tmp_path / name / "checkpoint") for name in ("mine", "fedavg"))
    assert mine.strategy == f"{tmp_path}/mine.py:Mine"
    assert all((mine.weights[name] == array).all() for name, array in theirs.weights.items())
    capsys.readouterr()

    assert main([*command, "--strategy", f"{tmp_path}/mine.py:Yours", "--out", str(tmp_path / "none")]) == 1
    assert "has no 'Yours'; it has FedAvg, Mine" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()
