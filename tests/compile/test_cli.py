import json
from pathlib import Path

import pytest

from hedgerow.cli import main
from hedgerow.compile import Budget
from hedgerow.compile.cli import _parse_recipes, _print_outcome
from hedgerow.compile.errors import CompileError
from hedgerow.compile.outcome import Outcome
from hedgerow.compile.refused import RefusedTarget
from hedgerow.compile.search import TriedRecipe
from hedgerow.compile.train_graph.options import StepOptions
from tests.compile.outcomes import outcome
from tests.extras import needs_torch


def test_help_names_every_option(capsys):
    assert main(["compile", "--help"]) == 0
    out = capsys.readouterr().out
    assert all(
        option in out
        for option in (
            "--task", "--target", "--all-targets", "--max-drop", "--prefer", "--out", "--no-cache", "--jobs",
            "--recipe", "--json", "--min-snr", "--min-agreement", "--time-limit", "--train-graph",
        )
    )  # fmt: skip


def test_a_recipe_is_given_by_target():
    assert _parse_recipes(("a=b", "c=d")) == {"a": "b", "c": "d"}
    for wrong in ("a", "a=", "=b"):
        with pytest.raises(CompileError, match="expected TARGET=NAME"):
            _parse_recipes((wrong,))


@needs_torch
def test_a_missing_checkpoint_is_one_sentence_and_exit_code_1(tmp_path, capsys):
    arguments = ["compile", str(tmp_path / "none"), "--task", "t.py:task", "--target", "x86-gateway"]
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("hedgerow: expected a checkpoint folder")
    assert captured.err.count("\n") == 1


@needs_torch
def test_an_unknown_target_is_one_sentence_and_exit_code_1(tmp_path, capsys):
    assert main(["compile", str(tmp_path), "--task", "t.py:task", "--target", "raspberry-pi-9"]) == 1
    assert capsys.readouterr().err == "hedgerow: no target is called 'raspberry-pi-9'; did you mean 'raspberry-pi-5'?\n"


@needs_torch
def test_usage_errors_exit_with_2(capsys):
    assert main(["compile", "x", "--task", "t.py:task"]) == 2
    assert main(["compile", "x", "--task", "t.py:task", "--target", "x86-gateway", "--all-targets"]) == 2
    assert main(["compile", "x", "--task", "t.py:task", "--target", "x86-gateway", "--prefer", "beauty"]) == 2
    assert main(["compile", "x", "--target", "x86-gateway"]) == 2
    assert main(["compile", "x", "--artifact", "model.tflite", "--target", "cortex-m4"]) == 2
    assert main(["compile", "x", "--task", "t", "--target", "x86-gateway", "--max-drop", "101"]) == 2
    assert main(["compile", "x", "--task", "t", "--target", "x86-gateway", "--jobs", "0"]) == 2
    assert main(["compile", "x", "--task", "t", "--target", "x86-gateway", "--min-snr", "-1"]) == 2
    assert main(["compile", "x", "--task", "t", "--target", "x86-gateway", "--time-limit", "0"]) == 2


def outcome_with(check: str, details: str = "") -> Outcome:
    refusal = RefusedTarget(target="x86-gateway", recipe="onnx-float", check=check, reason="why", details=details)
    return Outcome(build=None, refused=(refusal,), trials=(), recipes={}, cached=(), latencies={}, seconds=1.0)


@pytest.mark.parametrize(("check", "details", "code"), [("accuracy", "", 1), ("internal", "Traceback: here", 70)])
@needs_torch
def test_a_bug_of_ours_has_its_own_exit_code_and_a_traceback(check, details, code, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("hedgerow.compile.cli.compile_targets", lambda *_, **__: outcome_with(check, details))
    arguments = ["compile", str(tmp_path), "--task", "t.py:task", "--target", "x86-gateway"]
    assert main(arguments) == code
    captured = capsys.readouterr()
    assert "refused: x86-gateway: why" in captured.out
    assert captured.err == (f"{details}\n" if details else "")
    assert main([*arguments, "--json"]) == code
    [refused] = json.loads(capsys.readouterr().out.splitlines()[-1])["refused"]
    assert refused.get("details", "") == details


@needs_torch
def test_what_was_refused_and_what_was_taken_instead_is_printed_with_its_cost(capsys):
    before = TriedRecipe(
        target="raspberry-pi-4",
        recipe="onnx-int8-u8s8-reduced",
        state="refused",
        check="accuracy",
        reason="too coarse",
        metrics={"bytes": 700.0, "accuracy": 0.5},
    )
    found = outcome(instead_of={"raspberry-pi-4": (before,)})
    _print_outcome(found, Path("out"), searched=False)
    lines = capsys.readouterr().out.splitlines()
    place = lines.index("raspberry-pi-4: onnx-int8-u8s8-reduced was refused: too coarse")
    assert lines[place + 1] == (
        "raspberry-pi-4: onnx-int8-s8s8 passes and is taken: 100 bytes instead of 700, accuracy 90.0% instead of 50.0%"
    )
    assert "refused: cortex-m4: too | large (refused, too: tflite-pruned-int8-full (memory))" in lines


@needs_torch
@pytest.mark.parametrize(
    ("options", "budget"),
    [
        ((), Budget()),
        (("--max-drop", "2"), Budget(max_drop=0.02)),
        (("--min-snr", "7.5", "--min-agreement", "80", "--time-limit", "60"), Budget(
            minimum_snr_db=7.5, minimum_agreement=0.8, limit_s=60.0)),
    ],
)  # fmt: skip
def test_the_options_of_the_budget_reach_it(options, budget, tmp_path, monkeypatch):
    taken = []

    def compile_nothing(*_arguments, budget, train_options, **_options):
        taken.append((budget, train_options))
        return outcome_with("accuracy", "")

    monkeypatch.setattr("hedgerow.compile.cli.compile_targets", compile_nothing)
    main(["compile", str(tmp_path), "--task", "t.py:task", "--target", "x86-gateway", *options])
    assert taken == [(budget, StepOptions())]
    chosen = ("--train-graph", "optimizer=momentum", "--train-graph", "dropout=yes")
    main(["compile", str(tmp_path), "--task", "t.py:task", "--target", "x86-gateway", *options, *chosen])
    assert taken[1:] == [(budget, StepOptions(optimizer="momentum", dropout=True))]
