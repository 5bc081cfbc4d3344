import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from benchmarks.zoo import Cell, cells_of, document, zoo_table_command
from click.testing import CliRunner

from hedgerow.compile.build import Build
from hedgerow.compile.errors import VerificationError
from hedgerow.compile.outcome import Outcome
from hedgerow.compile.refused import RefusedTarget
from hedgerow.compile.search import TriedRecipe
from hedgerow.errors import UnknownNameError
from hedgerow.examples.zoo import ZOO
from hedgerow.manifest.artifact import Artifact
from hedgerow.manifest.content import Blob
from hedgerow.model_schema import ModelSchema

TARGETS = ("raspberry-pi-5", "cortex-m7")


def artifact(target: str, size_bytes: int, **metrics: float) -> Artifact:
    return Artifact(
        target=target,
        format="onnx",
        runtime="onnxruntime",
        blob=Blob("ab" * 32, size_bytes),
        inputs=(),
        outputs=(),
        recipe=(),
        golden=None,
        golden_tolerance=0.0,
        metrics=metrics,
        checks={"size": "passed", "accuracy": "passed" if metrics else "not run"},
    )


def outcome(artifacts=(), refused=(), recipes=None) -> Outcome:
    build = Build(
        task="t",
        model_schema=ModelSchema((), ()),
        artifacts=tuple(artifacts),
        train_graphs=(),
        reference=Blob("", 0),
        checkpoint_sha256="",
        run="",
        data_fingerprint="",
        metrics={},
        parent=None,
    )
    return Outcome(
        build=build if artifacts else None,
        refused=tuple(refused),
        trials=(),
        recipes=recipes or {},
        cached=(),
        latencies={},
        seconds=1.0,
    )


def refusal(target: str) -> RefusedTarget:
    error = VerificationError(target, "operators", "operators in the target's table", "also TANH")
    return RefusedTarget(target=target, recipe="tflite-int8-full", check="operators", reason=str(error))


PASSED = artifact("raspberry-pi-5", 900, accuracy=0.9, float_accuracy=0.91)


def test_a_cell_is_an_artifact_or_names_what_was_in_the_way():
    default = outcome([PASSED], [refusal("cortex-m7")], {"raspberry-pi-5": "onnx-int8-s8s8"})
    passed, refused = cells_of("mlp", TARGETS, default, outcome(refused=[refusal("cortex-m7")]))
    assert (passed.recipe, passed.bytes, passed.accuracy, passed.default_refused) == ("onnx-int8-s8s8", 900, 0.9, "")
    assert refused.bytes is None
    assert refused.recipe == "tflite-int8-full"
    assert refused.default_refused == "operators: expected operators in the targets table, found also TANH"


def test_where_the_default_is_refused_the_search_decides_and_the_reason_stays():
    default = outcome([], [refusal("raspberry-pi-5")])
    search = outcome([PASSED], [], {"raspberry-pi-5": "onnx-fp16"})
    (cell,) = cells_of("mlp", TARGETS[:1], default, search)
    assert (cell.recipe, cell.bytes) == ("onnx-fp16", 900)
    assert "TANH" in cell.default_refused


def test_a_float_artifact_in_place_of_the_default_names_why():
    reason = "the artifact for raspberry-pi-5 failed the check 'size': expected a, found b; choose a float recipe"
    trial = TriedRecipe(target="raspberry-pi-5", recipe="onnx-int8-s8s8", state="refused", check="size", reason=reason)
    default = replace(outcome([PASSED], [], {"raspberry-pi-5": "onnx-float"}), trials=(trial,))
    (cell,) = cells_of("mlp", TARGETS[:1], default, None)
    assert (cell.recipe, cell.default_refused) == ("onnx-float", "size: expected a, found b")


def test_the_page_says_how_it_was_made_and_names_checks_that_were_not_run():
    default = outcome(
        [PASSED, artifact("cortex-m7", 12_345)],
        [],
        {"raspberry-pi-5": "onnx-int8-s8s8", "cortex-m7": "tflite-int8-full"},
    )
    page = document(cells_of("mlp", TARGETS, default, None), made_by="the command", versions={"Hedgerow": "1.2.3"})
    assert "Made by `the command` with Hedgerow 1.2.3" in page
    assert "## mlp\n\n3,426 parameters, float accuracy 91.0%." in page
    assert "| raspberry-pi-5 | onnx-int8-s8s8 | 900 | 90.0% |  |" in page
    assert "| cortex-m7 | tflite-int8-full | 12,345 | not run | not run here: accuracy |" in page
    assert "2 of 2 cells hold an artifact" in page


@pytest.mark.heavy
def test_an_unknown_model_is_told_before_any_work():
    result = CliRunner().invoke(zoo_table_command, ["--model", "resnet9"])
    assert isinstance(result.exception, UnknownNameError)
    assert "did you mean 'resnet8'?" in str(result.exception)


@pytest.mark.heavy
def test_models_that_the_file_of_cells_has_are_not_made_again(tmp_path: Path):
    cells = [Cell(model=name, target="raspberry-pi-5", recipe="r", bytes=7, not_run=("latency",)) for name in ZOO]
    (tmp_path / "cells.json").write_text(json.dumps([asdict(cell) for cell in cells]))
    arguments = ["--target=raspberry-pi-5", "--cells", str(tmp_path / "cells.json"), "--json"]
    result = CliRunner().invoke(zoo_table_command, arguments)
    assert result.exception is None
    assert json.loads(result.stdout.splitlines()[-1]) == {"cells": json.loads(json.dumps(list(map(asdict, cells))))}


@pytest.mark.heavy
# Converters and their dependencies call deprecated parts of each other.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_small_model_compiles_for_a_target_of_each_format(tmp_path: Path):
    targets = [f"--target={name}" for name in ("raspberry-pi-5", "cortex-m7", "iphone-15")]
    arguments = ["--model=cnn1d", *targets, "--json", "--write", str(tmp_path / "zoo.md")]
    result = CliRunner().invoke(zoo_table_command, arguments)
    assert result.exception is None
    cells = json.loads(result.stdout.splitlines()[-1])["cells"]
    assert len(cells) == 3
    for cell in cells:
        assert cell["bytes"] is not None, cell
        assert cell["accuracy"] is None or cell["accuracy"] > cell["float_accuracy"] - 0.015
    assert "## cnn1d" in (tmp_path / "zoo.md").read_text()
