import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from hedgerow.checkpoint import WEIGHTS_FILE, Checkpoint, load_checkpoint, save_checkpoint
from hedgerow.cli import main
from hedgerow.compile import Budget, CompileWorkers, compile_checkpoint, compile_targets, load_build
from hedgerow.compile.errors import (
    BadWeightsError,
    BuildFolderError,
    CompileError,
    RecipeMismatchError,
    VerificationError,
)
from hedgerow.compile.pipeline import toolchains
from hedgerow.compile.train_graph.options import StepOptions
from hedgerow.durable import sha256_of
from hedgerow.errors import CheckpointError, TaskError, UnknownNameError
from hedgerow.reference import Reference
from tests.compile.conftest import TARGETS


def unlike_weights(checkpoint):
    """Scale half of the hidden units down by 1,000 and up again: floats do not mind, int8 with one scale loses them."""
    weights = {name: np.array(values) for name, values in load_checkpoint(checkpoint).weights.items()}
    first, second = [name for name, values in weights.items() if values.ndim == 2][:2]
    weights[first][::2] /= 1000
    weights[first.replace("weight", "bias")][::2] /= 1000
    weights[second][:, ::2] *= 1000
    return weights


def write_checkpoint(folder: Path, weights, *, task: str = "digits") -> Path:
    save_checkpoint(
        folder,
        Checkpoint(weights=weights, task=task, run="r", round=1, strategy="fedavg", grid="in-process", seed=0),
    )
    return folder


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def checkpoint(tmp_path) -> Path:
    return write_checkpoint(tmp_path / "checkpoint", {"w": np.ones((2, 2), np.float32)})


def test_an_unknown_target_or_recipe_is_told_before_any_work(tmp_path, checkpoint):
    with pytest.raises(UnknownNameError, match="no target is called 'toaster'"):
        compile_checkpoint("t.py:task", checkpoint, ["toaster"], tmp_path / "out")
    with pytest.raises(UnknownNameError, match="no recipe is called 'int9'"):
        compile_checkpoint("t.py:task", checkpoint, ["x86-gateway"], tmp_path / "out", recipes={"x86-gateway": "int9"})
    assert left_in(tmp_path) == ["checkpoint"]


def test_a_recipe_of_another_format_is_refused(tmp_path, checkpoint):
    with pytest.raises(
        RecipeMismatchError, match="x86-gateway runs onnx files, but the recipe 'tflite-int8' makes tflite"
    ):
        compile_checkpoint(
            "t.py:task", checkpoint, ["x86-gateway"], tmp_path / "out", recipes={"x86-gateway": "tflite-int8"}
        )


def test_a_recipe_for_a_target_that_is_not_compiled_is_refused(tmp_path, checkpoint):
    with pytest.raises(CompileError, match="a recipe is given for iphone-15"):
        compile_checkpoint(
            "t.py:task", checkpoint, ["x86-gateway"], tmp_path / "out", recipes={"iphone-15": "coreml-int8-weights"}
        )


@pytest.mark.parametrize("targets", [[], ["x86-gateway", "x86-gateway"]])
def test_no_target_or_a_repeated_one_is_a_bug_of_the_caller(tmp_path, checkpoint, targets):
    with pytest.raises(ValueError, match="at least one target"):
        compile_checkpoint("t.py:task", checkpoint, targets, tmp_path / "out")


def test_a_missing_checkpoint_is_one_sentence(tmp_path):
    with pytest.raises(CheckpointError, match="expected a checkpoint folder"):
        compile_checkpoint("t.py:task", tmp_path / "none", ["x86-gateway"], tmp_path / "out")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_that_are_no_numbers_are_refused(tmp_path, bad):
    weights = {"a": np.ones(3, np.float32), "b": np.array([1, bad], np.float32)}
    with pytest.raises(BadWeightsError, match="expected finite weights, found NaN or infinity in b"):
        compile_checkpoint("t.py:task", write_checkpoint(tmp_path / "c", weights), ["x86-gateway"], tmp_path / "out")
    assert left_in(tmp_path) == ["c"]


def test_a_checkpoint_without_weights_is_refused(tmp_path):
    with pytest.raises(BadWeightsError, match="expected weights, found none"):
        compile_checkpoint("t.py:task", write_checkpoint(tmp_path / "c", {}), ["x86-gateway"], tmp_path / "out")


@pytest.mark.heavy
def test_a_task_that_cannot_be_imported_leaves_nothing_behind(tmp_path, checkpoint):
    with pytest.raises(TaskError, match="there is no such file"):
        compile_checkpoint(str(tmp_path / "no.py:task"), checkpoint, ["x86-gateway"], tmp_path / "deep" / "out")
    assert left_in(tmp_path) == ["checkpoint", "deep"]
    assert left_in(tmp_path / "deep") == []


def test_a_folder_with_something_else_is_not_touched(tmp_path, checkpoint):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("years of work")
    with pytest.raises(BuildFolderError, match="an earlier build"):
        compile_checkpoint("t.py:task", checkpoint, ["x86-gateway"], tmp_path / "out")
    assert (tmp_path / "out" / "thesis.txt").read_text() == "years of work"


@pytest.mark.heavy
def test_folders_of_killed_compiles_are_cleared_away(tmp_path, checkpoint):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    (tmp_path / f".out.{ended.pid}.abc.part").mkdir()
    (tmp_path / ".out.1.abc.part").mkdir()
    with pytest.raises(TaskError):
        compile_checkpoint(str(tmp_path / "no.py:task"), checkpoint, ["x86-gateway"], tmp_path / "out")
    assert left_in(tmp_path) == [".out.1.abc.part", "checkpoint"]


def test_toolchains_of_targets():
    assert toolchains(TARGETS) == ("coreml", "onnx", "tflite")
    assert toolchains(["x86-gateway"], {"x86-gateway": "onnx-int8-inc"}) == ("onnx",)


@pytest.fixture(scope="module")
def workers():
    with CompileWorkers() as pool:
        yield pool


@pytest.fixture(scope="module")
def build_folder(digits, digits_checkpoint, workers, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("compiled") / "build"
    compile_checkpoint(digits, digits_checkpoint, TARGETS, folder, workers=workers)
    return folder


@pytest.mark.heavy
def test_digits_compile_for_four_targets(build_folder, digits_checkpoint):
    build = load_build(build_folder)
    checkpoint = load_checkpoint(digits_checkpoint)
    assert [artifact.target for artifact in build.artifacts] == list(TARGETS)
    assert [artifact.format for artifact in build.artifacts] == ["onnx", "tflite", "onnx", "mlpackage"]
    assert build.metrics["accuracy"] == pytest.approx(checkpoint.metrics["accuracy"])
    assert (build.task, build.run, build.parent) == ("digits", "run-0", "digits@1")
    for artifact in build.artifacts[:3]:
        assert set(artifact.checks.values()) == {"passed"}
        assert artifact.checks["train graph"] == "passed"
        assert artifact.metrics["float_accuracy"] - artifact.metrics["accuracy"] <= 0.015
        assert artifact.metrics["bytes"] < artifact.metrics["float_bytes"] / 2
        assert artifact.metrics["train_difference"] <= 1e-5
        assert artifact.inputs[0].dtype == artifact.outputs[0].dtype == "float32"
    assert [graph.format for graph in build.train_graphs] == ["onnx", "tflite"]
    for graph in build.train_graphs:
        assert {tensor.name for tensor in graph.parameters} == set(checkpoint.weights)


@pytest.mark.heavy
def test_a_warm_compile_gives_the_same_bytes_as_a_cold_one(build_folder, digits, digits_checkpoint, workers, tmp_path):
    compile_checkpoint(digits, digits_checkpoint, TARGETS, tmp_path / "warm", workers=workers)
    compile_checkpoint(digits, digits_checkpoint, TARGETS, tmp_path / "cold", jobs=1)
    wanted = (build_folder / "build.json").read_bytes()
    assert (tmp_path / "warm" / "build.json").read_bytes() == wanted
    assert (tmp_path / "cold" / "build.json").read_bytes() == wanted
    assert left_in(tmp_path) == ["cold", "warm"]


@pytest.mark.heavy
def test_another_checkpoint_in_warm_workers_replaces_the_build_and_takes_the_devices_counts(
    build_folder, digits, digits_checkpoint, workers, tmp_path
):
    old = load_build(build_folder)
    reference = Reference.decode((build_folder / "blobs" / old.reference.sha256).read_bytes())
    counts = {f.name: tuple(reversed(f.counts)) for f in reference.features}
    checkpoint = load_checkpoint(digits_checkpoint)
    rng = np.random.default_rng(0)
    weights = {n: (v + rng.normal(0, 0.01, v.shape)).astype(v.dtype) for n, v in checkpoint.weights.items()}
    folder = write_checkpoint(tmp_path / "checkpoint", weights)
    out = tmp_path / "out"
    for _attempt in range(2):
        new = compile_checkpoint(digits, folder, ["raspberry-pi-4"], out, workers=workers, reference_counts=counts)
    assert load_build(out) == new
    assert left_in(tmp_path) == ["checkpoint", "out"]
    assert new.artifacts[0].blob != old.artifacts[0].blob
    found = Reference.decode((out / "blobs" / new.reference.sha256).read_bytes())
    for feature in reference.features:
        same = found.feature(feature.name).counts == counts[feature.name]
        assert same == (not feature.name.startswith("output."))


@pytest.mark.heavy
def test_neural_compressor_is_another_way_to_the_same_target(digits, digits_checkpoint, workers, tmp_path):
    build = compile_checkpoint(
        digits,
        digits_checkpoint,
        ["x86-gateway"],
        tmp_path / "out",
        workers=workers,
        recipes={"x86-gateway": "onnx-int8-inc"},
    )
    assert build.artifacts[0].recipe[:2] == ("quantize-inc-static", "fold-onnx")
    assert set(build.artifacts[0].checks.values()) == {"passed"}


@pytest.mark.heavy
def test_a_refused_artifact_leaves_no_build_and_the_earlier_one_alone(
    build_folder, digits, digits_checkpoint, workers, tmp_path
):
    before = (build_folder / "build.json").read_bytes()
    folder = write_checkpoint(tmp_path / "checkpoint", unlike_weights(digits_checkpoint))
    out = tmp_path / "out"
    with pytest.raises(VerificationError) as caught:
        compile_checkpoint(
            digits,
            folder,
            ["raspberry-pi-4"],
            out,
            workers=workers,
            budget=Budget(max_drop=0.0),
            recipes={"raspberry-pi-4": "onnx-int8-s8s8"},
        )
    assert caught.value.check in {"accuracy", "parity"}
    assert re.search(r"most is lost where little is left: '7' \(Linear\) \d+ dB", str(caught.value)), str(caught.value)
    assert left_in(tmp_path) == ["checkpoint"]
    assert (build_folder / "build.json").read_bytes() == before


@pytest.mark.heavy
def test_a_checkpoint_of_another_model_or_task_is_one_sentence(digits, workers, tmp_path):
    from hedgerow.errors import CheckpointMismatchError

    other = write_checkpoint(tmp_path / "a", {"w": np.ones((2, 2), np.float32)})
    with pytest.raises(CheckpointMismatchError, match="expected the weights of the model of task 'digits'"):
        compile_checkpoint(digits, other, ["x86-gateway"], tmp_path / "out", workers=workers)
    other = write_checkpoint(tmp_path / "b", {"w": np.ones((2, 2), np.float32)}, task="speech")
    with pytest.raises(
        CheckpointMismatchError, match="expected a checkpoint of the task 'digits', found one of 'speech'"
    ):
        compile_checkpoint(digits, other, ["x86-gateway"], tmp_path / "out", workers=workers)
    assert left_in(tmp_path) == ["a", "b"]


@pytest.mark.heavy
def test_the_command_prints_one_json_object(digits, digits_checkpoint, tmp_path, capfd):
    arguments = ["compile", str(digits_checkpoint), "--task", digits, "--target", "raspberry-pi-4"]
    assert main([*arguments, "--out", str(tmp_path / "out"), "--no-cache", "--json"]) == 0
    record = json.loads(capfd.readouterr().out.splitlines()[-1])
    (artifact,) = record["artifacts"]
    assert artifact["checks"]["accuracy"] == "passed"
    assert (artifact["target"], artifact["recipe"], artifact["cached"]) == ("raspberry-pi-4", "onnx-int8-s8s8", False)
    assert 0 < artifact["latency_ms_p50"] <= artifact["latency_ms_p99"]
    assert artifact["peak_memory_bytes"] > 0
    assert (record["cached"], record["refused"], record["out"]) == (0, [], str(tmp_path / "out"))
    assert [trial["state"] for trial in record["trials"]] == ["passed"]
    assert {"build.json", "compile.json", "report.html", "report.md"} <= set(left_in(tmp_path / "out"))


@pytest.mark.heavy
def test_an_interrupted_command_leaves_no_process_and_no_folder(digits, digits_checkpoint, tmp_path):
    arguments = [
        "compile",
        str(digits_checkpoint),
        "--task",
        digits,
        "--target",
        "raspberry-pi-4",
        "--target",
        "iphone-15",
        "--no-cache",
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "hedgerow.cli", *arguments, "--out", str(tmp_path / "out")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    children: list[str] = []
    while (not left_in(tmp_path) or len(children) < 2) and time.monotonic() < deadline:
        time.sleep(0.01)
        # Each process is the child of the thread that started it.
        threads = Path(f"/proc/{process.pid}/task").glob("*/children")
        children = [child for path in threads for child in path.read_text().split()]
    process.send_signal(2)
    _out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.strip() == "hedgerow: interrupted"
    assert len(children) >= 2
    assert not any(Path(f"/proc/{child}").exists() for child in children)
    assert left_in(tmp_path) == []


@pytest.mark.heavy
def test_a_second_compile_comes_from_the_cache_without_a_process(
    build_folder, digits, digits_checkpoint, workers, tmp_path, monkeypatch
):
    """The first one has one target to make, the second one takes it and has one left; the third has none."""
    cache, two = tmp_path / "cache", ["raspberry-pi-4", "iphone-15"]
    first = compile_targets(digits, digits_checkpoint, two[:1], tmp_path / "one", cache=cache, workers=workers)
    second = compile_targets(digits, digits_checkpoint, two, tmp_path / "two", cache=cache, workers=workers)
    assert (first.cached, second.cached) == ((), ("raspberry-pi-4",))
    monkeypatch.setattr(CompileWorkers, "_start", lambda *_: pytest.fail("a process was started"))
    third = compile_targets(digits, digits_checkpoint, two, tmp_path / "three", cache=cache, jobs=1)
    assert third.cached == tuple(two)
    assert load_build(tmp_path / "three") == load_build(tmp_path / "two")
    assert (tmp_path / "three" / "report.md").read_bytes() == (tmp_path / "two" / "report.md").read_bytes()
    wanted = load_build(build_folder)
    assert [artifact.blob for artifact in third.build.artifacts] == [wanted.artifact(name).blob for name in two]


@pytest.mark.heavy
def test_what_a_killed_compile_had_finished_is_taken_from_the_cache(digits, digits_checkpoint, workers, tmp_path):
    code = (
        "import os, signal, sys; from pathlib import Path; from hedgerow.compile import compile_targets\n"
        "def report(progress):\n"
        "    if progress.work == 'compile iphone-15' and progress.done == progress.total: "
        "os.kill(os.getpid(), signal.SIGKILL)\n"
        "compile_targets(sys.argv[1], Path(sys.argv[2]), ['raspberry-pi-4', 'iphone-15'], Path(sys.argv[3]), jobs=1, "
        "cache=Path(sys.argv[4]), report=report)"
    )
    arguments = [digits, str(digits_checkpoint), str(tmp_path / "out"), str(tmp_path / "cache")]
    killed = subprocess.run([sys.executable, "-c", code, *arguments], check=False)
    assert killed.returncode == -9
    targets, cache = ["raspberry-pi-4", "iphone-15"], tmp_path / "cache"
    outcome = compile_targets(digits, digits_checkpoint, targets, tmp_path / "out", cache=cache, workers=workers)
    assert outcome.cached == ("raspberry-pi-4",)
    assert left_in(tmp_path) == ["cache", "out"]


@pytest.mark.heavy
def test_a_default_recipe_that_loses_accuracy_is_followed_by_one_that_keeps_it(
    digits, digits_checkpoint, workers, tmp_path
):
    """Weights as in the tests above; what is refused and what is taken instead stands in outcome and report."""
    folder = write_checkpoint(tmp_path / "checkpoint", unlike_weights(digits_checkpoint))
    target, cache = "raspberry-pi-4", tmp_path / "cache"
    for attempt in ("once", "again"):
        outcome = compile_targets(
            digits, folder, [target], tmp_path / attempt, budget=Budget(max_drop=0.0), cache=cache, workers=workers
        )
        assert outcome.refused == ()
        first, *_others = outcome.instead_of[target]
        assert (first.recipe, first.state) == ("onnx-int8-s8s8", "refused")
        assert first.check in {"accuracy", "parity"}
        assert first.metrics["bytes"] > 0
        (artifact,) = load_build(tmp_path / attempt).artifacts
        assert artifact.metrics["accuracy"] >= artifact.metrics["float_accuracy"]
        assert artifact.metrics["accuracy"] > first.metrics["accuracy"]
        assert (
            f"{outcome.recipes[target]} instead of onnx-int8-s8s8" in (tmp_path / attempt / "report.html").read_text()
        )
    assert outcome.cached == (target,)


@pytest.mark.heavy
def test_a_floor_of_parity_that_was_lowered_lets_an_artifact_pass(digits, digits_checkpoint, workers, tmp_path):
    folder = write_checkpoint(tmp_path / "checkpoint", unlike_weights(digits_checkpoint))
    everything = Budget(max_drop=1.0, minimum_snr_db=0.0, minimum_agreement=0.0)
    outcome = compile_targets(digits, folder, ["raspberry-pi-4"], tmp_path / "out", budget=everything, workers=workers)
    assert outcome.recipes == {"raspberry-pi-4": "onnx-int8-s8s8"}
    assert outcome.instead_of == {}


@pytest.mark.heavy
def test_the_train_graph_of_a_compile_is_the_one_that_python_exports(digits, digits_checkpoint, workers, tmp_path):
    """The same options give the same file; without them it is plain SGD, from the cache of another entry."""
    from hedgerow.compile.foundation import Workbench
    from hedgerow.compile.train_graph.export import export_train_graph

    options = StepOptions(optimizer="adam", proximal=True, trainable=("*.bias",))
    kept = {"cache": tmp_path / "cache", "workers": workers}
    graphs = []
    for name, chosen in (("adam", options), ("plain", StepOptions())):
        outcome = compile_targets(
            digits, digits_checkpoint, ["raspberry-pi-4"], tmp_path / name, train_options=chosen, **kept
        )
        assert outcome.refused == ()
        graphs += outcome.build.train_graphs
    first, plain = graphs
    sha256 = sha256_of(digits_checkpoint / WEIGHTS_FILE)
    source = Workbench().foundation(digits, digits_checkpoint, sha256).source
    for graph, chosen in ((first, options), (plain, StepOptions())):
        file = export_train_graph(source, "onnx", chosen)
        assert graph.blob.sha256 == hashlib.sha256(file.content).hexdigest()
        assert (graph.parameters, graph.updated, graph.extras) == (file.parameters, file.updated, file.extras)
    assert {extra.kind for extra in first.extras} == {"state", "proximal_mu", "anchor"}
    assert all(tensor.name.endswith("bias") for tensor in first.updated)
    assert plain.extras == ()


@pytest.mark.heavy
def test_a_pattern_that_fits_no_parameter_refuses_the_train_graph_and_is_no_bug(
    digits, digits_checkpoint, workers, tmp_path
):
    options = StepOptions(trainable=("nothing.*",))
    outcome = compile_targets(
        digits, digits_checkpoint, ["raspberry-pi-4"], tmp_path / "out", train_options=options, workers=workers
    )
    (refusal,) = outcome.refused
    assert (refusal.target, refusal.check) == ("the onnx train graph", "task")
    assert "no trainable parameter is called 'nothing.*'" in refusal.reason
    assert [artifact.target for artifact in outcome.build.artifacts] == ["raspberry-pi-4"]


@pytest.mark.heavy
def test_a_target_whose_time_is_over_is_refused_and_leaves_the_others(digits, digits_checkpoint, tmp_path):
    """A recipe that trains for far longer than it has."""
    mine = tmp_path / "mine.py"
    mine.write_text(
        "from hedgerow.compile.passes.model.fine_tune import FineTune\n"
        "from hedgerow.compile.passes.onnx.export import ExportOnnx\n"
        "from hedgerow.compile.recipe import Recipe\n"
        "RECIPE = Recipe(\n"
        "    passes=(ExportOnnx(),),\n"
        "    model_passes=(FineTune(epochs=1000, learning_rate=0.001, batch_size=2),),\n"
        "    minimum_quantized_share=0.0,\n"
        ")\n"
    )
    targets = ["raspberry-pi-4", "iphone-15"]
    recipes = {"raspberry-pi-4": f"{mine}:RECIPE"}
    with CompileWorkers() as pool:
        pool.warm(["onnx", "coreml"])
        outcome = compile_targets(
            digits,
            digits_checkpoint,
            targets,
            tmp_path / "out",
            budget=Budget(limit_s=45.0),
            recipes=recipes,
            workers=pool,
        )
    assert [artifact.target for artifact in outcome.build.artifacts] == ["iphone-15"]
    (refusal,) = [refusal for refusal in outcome.refused if refusal.target == "raspberry-pi-4"]
    assert refusal.check == "time"
    assert "expected an end within the 4" in refusal.reason


@pytest.mark.heavy
def test_a_refused_target_leaves_the_others_and_is_refused_again_from_the_cache(
    digits, digits_checkpoint, workers, tmp_path
):
    """Weights as in the test above: float does not mind, int8 with one scale for a tensor loses half of them."""
    targets = ["raspberry-pi-4", "x86-gateway"]
    recipes = {"raspberry-pi-4": "onnx-float", "x86-gateway": "onnx-int8-s8s8"}
    folder = write_checkpoint(tmp_path / "checkpoint", unlike_weights(digits_checkpoint))
    for attempt in ("once", "again"):
        outcome = compile_targets(
            digits,
            folder,
            targets,
            tmp_path / attempt,
            budget=Budget(max_drop=0.0),
            recipes=recipes,
            cache=tmp_path / "cache",
            workers=workers,
        )
        assert [artifact.target for artifact in load_build(tmp_path / attempt).artifacts] == ["raspberry-pi-4"]
        (refusal,) = outcome.refused
        assert (refusal.target, refusal.recipe) == ("x86-gateway", "onnx-int8-s8s8")
        assert refusal.check in {"accuracy", "parity"}
        assert [trial.state for trial in outcome.trials] == ["passed", "refused"]
        assert "No artifact for x86-gateway" in (tmp_path / attempt / "report.html").read_text()
    assert outcome.cached == ("raspberry-pi-4",)
    outcome = compile_targets(
        digits,
        folder,
        targets[1:],
        tmp_path / "none",
        budget=Budget(max_drop=0.0),
        recipes={"x86-gateway": "onnx-int8-s8s8"},
        workers=workers,
    )
    assert outcome.build is None
    assert not (tmp_path / "none").exists()


@pytest.mark.heavy
def test_a_process_that_crashes_takes_its_own_target_with_it_and_no_other(digits, digits_checkpoint, tmp_path):
    """The first report of its export ends the process that makes the ONNX artifacts; the next compile makes them."""
    targets, cache = ["raspberry-pi-4", "iphone-15"], tmp_path / "cache"

    def report(progress):
        if progress.work == "compile raspberry-pi-4" and progress.note == "export-onnx":
            for worker in [worker for worker in pool._workers if worker.toolchain == "onnx"]:
                os.kill(worker.child.process_id, signal.SIGKILL)

    with CompileWorkers() as pool:
        outcome = compile_targets(
            digits, digits_checkpoint, targets, tmp_path / "out", cache=cache, workers=pool, report=report
        )
        assert [artifact.target for artifact in load_build(tmp_path / "out").artifacts] == ["iphone-15"]
        assert ("raspberry-pi-4", "process") in [(refusal.target, refusal.check) for refusal in outcome.refused]
        again = compile_targets(digits, digits_checkpoint, targets, tmp_path / "out", cache=cache, workers=pool)
    assert (again.refused, again.cached) == ((), ("iphone-15",))


@pytest.mark.heavy
def test_a_search_finds_the_smallest_that_keeps_its_accuracy_and_keeps_every_trial(
    digits, digits_checkpoint, workers, tmp_path
):
    targets = ["raspberry-pi-4", "raspberry-pi-5"]
    outcome = compile_targets(
        digits,
        digits_checkpoint,
        targets,
        tmp_path / "out",
        prefer="size",
        budget=Budget(max_drop=0.01),
        workers=workers,
    )
    assert outcome.refused == ()
    for artifact in outcome.build.artifacts:
        own = [trial for trial in outcome.trials if trial.target == artifact.target]
        passed = [trial.metrics["bytes"] for trial in own if trial.state == "passed"]
        assert artifact.metrics["bytes"] == min(passed)
        assert artifact.metrics["float_accuracy"] - artifact.metrics["accuracy"] <= 0.01
        assert "onnx-float" not in {trial.recipe for trial in own}
    wanted = {blob.sha256 for blob in outcome.build.blobs()}
    assert set(left_in(tmp_path / "out" / "blobs")) == wanted


def test_a_senseless_preference_is_a_bug_of_the_caller(tmp_path, checkpoint):
    with pytest.raises(ValueError, match="a preference among size, latency, energy"):
        compile_targets("t.py:task", checkpoint, ["x86-gateway"], tmp_path / "out", prefer="beauty")
