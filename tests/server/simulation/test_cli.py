"""Tests of hedgerow.server.simulation.cli, through the real command."""

import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from hedgerow.checkpoint import load_checkpoint
from hedgerow.cli import main

pytestmark = pytest.mark.heavy


def test_the_last_line_is_one_json_object(tiny_reference, tmp_path, capsys):
    command = ["simulate", "--task", tiny_reference, "--clients", "20", "--cohort", "4", "--rounds", "3"]
    assert main([*command, "--partition", "dirichlet:0.5", "--out", str(tmp_path), "--json"]) == 0
    record = json.loads(capsys.readouterr().out.splitlines()[-1])

    assert record["rounds"] == 3
    assert record["engine"] == "vectorized"
    assert record["engine_reason"]
    assert record["history"] == str(tmp_path / "rounds.jsonl")
    assert record["metrics"]["accuracy"] > 0
    assert record["clients_per_s"] > 0
    assert json.loads((tmp_path / "summary.json").read_text()) == record


def test_a_summary_is_shown_and_the_same_command_goes_on(tiny_reference, tmp_path, capsys):
    command = ["simulate", "--task", tiny_reference, "--clients", "20", "--out", str(tmp_path), "--rounds"]
    assert main([*command, "2"]) == 0
    assert main([*command, "3", "--population", "phones"]) == 1
    assert "expected a run with the same settings" in capsys.readouterr().err
    assert main([*command, "3"]) == 0
    out = capsys.readouterr().out
    assert "points: 3 rounds of fedavg, 10 of 20 clients each, iid; accuracy" in out
    assert "engine vectorized on cpu: " in out
    assert f"checkpoint: {tmp_path / 'checkpoint'}" in out


def test_a_sweep_is_a_table(tiny_reference, tmp_path, capsys):
    command = ["simulate", "--task", tiny_reference, "--clients", "20", "--rounds", "2", "--out", str(tmp_path)]
    vary = ["--vary", "learning-rate=0.1,0.5", "--vary", "seed=0..1"]
    assert main([*command, *vary]) == 0
    out = capsys.readouterr().out
    assert "learning-rate" in out
    assert "best: learning-rate" in out
    assert main([*command, *vary, "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out.splitlines()[-1])["trials"]) == 2


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--cohort", "101"], "expected a cohort of at most the 100 clients that there are, found 101"),
        (["--partition", "dirichet:1"], "did you mean 'dirichlet'?"),
        (["--partition", "dirichlet:-1"], "expected the partition as dirichlet:ALPHA"),
        (["--partition", "column:user"], "expected a column 'user' in the data, found half"),
        (["--deadline", "5"], "expected a device model for --deadline, found none; add --population phones"),
        (["--population", "phones", "--deadline", "0"], "a deadline above 0 seconds"),
        (["--population", "raspberry-pi-44"], "did you mean 'raspberry-pi-4'?"),
        (["--population", "phones:x"], "names and shares like"),
        (["--trace", "none.csv"], "expected a file with a trace of availability, found none"),
        (["--strategy", "fedavgg"], "did you mean 'fedavg'?"),
        (["--engine", "worker"], "did you mean 'workers'?"),
        (["--learning-rate", "-1"], "learning_rate must lie between"),
        (["--momentum", "2"], "a momentum of at least 0"),
        (["--samples", "999"], "1 to 200 samples for each client"),
        (["--trials", "3"], "settings to vary"),
        (["--vary", "speed=1"], "no setting that can be varied is called 'speed'"),
        (["--vary", "strategy=fedavg,nope"], "no strategy is called 'nope'"),
        (["--vary", "deadline=1,2"], "a device model whose deadline can be varied"),
        (["--task", "nowhere.py:task"], "there is no such file"),
    ],
)
def test_a_wrong_argument_gets_one_sentence(arguments, sentence, tiny_reference, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["simulate", "--task", tiny_reference, "--engine", "sequential", *arguments]) == 1
    error = capsys.readouterr().err
    assert sentence in error
    assert len(error.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_gpu_that_is_not_there_is_one_sentence(tiny_reference, tmp_path, capsys):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert main(["simulate", "--task", tiny_reference, "--device", "cuda", "--out", str(tmp_path)]) == 1
    assert "expected a CUDA GPU that torch can use, found torch" in capsys.readouterr().err


def test_an_interrupt_leaves_a_folder_that_goes_on(tiny_reference, tmp_path):
    command = [sys.executable, "-m", "hedgerow.cli", "simulate", "--task", tiny_reference, "--out", str(tmp_path)]
    command += ["--checkpoint-every", "5", "--rounds"]
    rounds = tmp_path / "rounds"
    # A shell may have started the tests with interrupts ignored; the command must see them.
    with subprocess.Popen(
        [*command, "1000000"],
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509
    ) as process:
        try:
            deadline = time.monotonic() + 60
            while process.poll() is None and time.monotonic() < deadline and not list(rounds.glob("[0-9]*")):
                time.sleep(0.05)
            process.send_signal(signal.SIGINT)
            _out, error = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130
    assert f"stopped; {tmp_path} holds the last checkpoint, the same command goes on from there" in error
    assert "Traceback" not in error

    saved = max(int(path.name) for path in rounds.iterdir() if path.name.isdecimal())
    done = subprocess.run([*command, str(saved + 1), "--json"], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["rounds"] == saved + 1


def test_a_sweep_in_which_no_trial_comes_to_its_end_is_an_error(tiny_reference, tmp_path, capsys):
    command = ["simulate", "--task", tiny_reference, "--clients", "20", "--rounds", "2", "--population", "phones"]
    command += ["--drop-out", "1", "--vary", "epochs=1,2", "--out", str(tmp_path), "--json"]
    assert main(command) == 1
    out, err = capsys.readouterr()
    assert [trial["state"] for trial in json.loads(out.splitlines()[-1])["trials"]] == ["failed", "failed"]
    assert "expected a trial that came to its end, found 2 failed; see" in err


def test_a_simulation_without_updates_is_an_error_with_the_reasons_by_kind(tiny_reference, tmp_path, capsys):
    command = ["simulate", "--task", tiny_reference, "--clients", "20", "--rounds", "2", "--population", "phones"]
    assert main([*command, "--drop-out", "1", "--out", str(tmp_path), "--json"]) == 1
    out, err = capsys.readouterr()
    record = json.loads(out.splitlines()[-1])
    assert (record["round"], record["refused"]) == (2, {"dropped out": 20})
    assert record["error"] in err


def test_a_private_simulation_says_what_it_promises_and_clipping_is_not_called_privacy(
    tiny_reference, tmp_path, capsys
):
    command = ["simulate", "--task", tiny_reference, "--clients", "50", "--rounds", "2"]
    assert main([*command, "--strategy", "fedavg+server-fixed:noise=4", "--out", str(tmp_path / "a")]) == 0
    assert "privacy: epsilon " in capsys.readouterr().out
    clipped = [*command, "--strategy", "fedavg+server-fixed:noise=0", "--out", str(tmp_path / "b")]
    assert main(clipped) == 0
    shown = capsys.readouterr().out
    assert "clipping: updates were clipped" in shown
    assert "epsilon" not in shown
    assert main([*clipped, "--json"]) == 0
    record = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert record["privacy"] == {
        "mechanism": "server-fixed", "clip": 1.0, "noise": 0.0, "kind": "clipping", "rounds": 2,
    }  # fmt: skip


def test_a_strategy_and_a_partition_of_a_users_own_run_by_their_files(tiny_reference, tmp_path, capsys):
    (tmp_path / "own.py").write_text(
        "from flwr.serverapp.strategy import FedAvg\n"
        "class Mine(FedAvg):\n"
        "    pass\n"
        "def dealt(labels, clients, rng, columns):\n"
        "    order = rng.permutation(len(labels))\n"
        "    return [order[client::clients] for client in range(clients)]\n"
    )
    command = ["simulate", "--task", tiny_reference, "--clients", "8", "--cohort", "4", "--rounds", "2", "--json"]
    own = ["--strategy", f"{tmp_path}/own.py:Mine", "--partition", f"{tmp_path}/own.py:dealt"]
    assert main([*command, *own, "--out", str(tmp_path / "own")]) == 0
    held = json.loads((tmp_path / "own" / "run.json").read_text())
    assert held["strategy"] == f"{tmp_path}/own.py:Mine"
    assert held["more"]["partition"] == f"{tmp_path}/own.py:dealt"

    # It samples and averages as its parent does; the even deal is the one of iid with another order.
    assert main([*command, "--out", str(tmp_path / "fedavg"), "--partition", f"{tmp_path}/own.py:dealt"]) == 0
    runs = [load_checkpoint(tmp_path / name / "checkpoint").weights for name in ("own", "fedavg")]
    for key, array in runs[0].items():
        np.testing.assert_allclose(array, runs[1][key], rtol=1e-5, atol=1e-6)
    capsys.readouterr()
    assert main([*command, "--partition", f"{tmp_path}/own.py:nothing", "--out", str(tmp_path / "none")]) == 1
    assert "the partition" in (said := capsys.readouterr().err)
    assert "has no 'nothing'" in said
