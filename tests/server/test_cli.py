"""Tests of hedgerow.server.cli, through the real command."""

import json

import pytest

from hedgerow.cli import main

pytestmark = pytest.mark.heavy


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
    assert f"checkpoint: {tmp_path / 'checkpoint'}" in out


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
