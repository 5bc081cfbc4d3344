"""Targets of integers take prepared samples: the build's own C and files, run directly, on samples of our own."""

import ctypes
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from hedgerow.client.loading import load_model, replay_golden  # noqa: E402
from hedgerow.client.slot_folders import OpenSlot  # noqa: E402
from hedgerow.compile import compile_targets  # noqa: E402
from hedgerow.compile.build import load_build  # noqa: E402
from hedgerow.compile.making import Steps, make  # noqa: E402
from hedgerow.compile.predict.running import RunArtifact  # noqa: E402
from hedgerow.compile.preparation.host_check import find_c_compiler  # noqa: E402
from hedgerow.compile.recipes import RECIPES  # noqa: E402
from hedgerow.errors import HedgerowError  # noqa: E402
from hedgerow.examples.zoo import raw_sensors  # noqa: E402
from hedgerow.fleet.trust.release_fit import check_fit  # noqa: E402
from hedgerow.progress import silent  # noqa: E402
from hedgerow.reference import Reference  # noqa: E402
from hedgerow.task import load_task  # noqa: E402
from hedgerow.task_module import predict  # noqa: E402
from hedgerow.weights import decode_arrays  # noqa: E402
from tests.compile.only import only  # noqa: E402

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.skipif(find_c_compiler() is None, reason="needs a C compiler"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
INTEGERS = ("cortex-m4", "cortex-m7", "esp32-s3", "android-npu")


@pytest.fixture(scope="module")
def built(bench_checkpoint, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("bench-build") / "out"
    outcome = compile_targets(f"{raw_sensors.__file__}:task", bench_checkpoint, [*INTEGERS, "android-arm64"], out)
    assert outcome.refused == ()
    return out


def prepared_by_c(folder: Path, features: np.ndarray) -> np.ndarray:
    """Return what the C of a build gives: compiled here, called here."""
    library = folder / "prepare.so"
    command = ["cc", "-std=c99", "-shared", "-fPIC", "-O2", "model_prepare.c", "-o", library.name, "-lm"]
    subprocess.run(command, cwd=folder, check=True)
    function = ctypes.CDLL(str(library)).zoo_raw_sensors_model_prepare
    rows = np.zeros((len(features), 43), np.int8)
    for taken, given in zip(np.ascontiguousarray(features), rows, strict=True):
        function(taken.ctypes.data_as(ctypes.c_void_p), given.ctypes.data_as(ctypes.c_void_p))
    return rows


def within_a_point(bench, found, fresh) -> bool:
    wanted = only(predict(bench.source.task, bench.source.model, fresh.inputs)).argmax(1) == fresh.target_values
    assert 0.75 <= wanted.mean() <= 0.95, f"the float model's own accuracy is {wanted.mean()}"
    return abs(float(wanted.mean()) - float((found.argmax(1) == fresh.target_values).mean())) <= 0.01


@pytest.mark.parametrize("target", ["cortex-m7", "cortex-m4", "esp32-s3"])
def test_c_and_tensorflow_lite_micro_keep_the_accuracy(target, built, bench, fresh):
    runtime = pytest.importorskip("tflite_micro.python.tflite_micro.runtime")
    artifact = load_build(built).artifact(target)
    stored = prepared_by_c(built / "c" / target, fresh.inputs["features"])
    interpreter = runtime.Interpreter.from_bytes(
        (built / "blobs" / artifact.blob.sha256).read_bytes(), arena_size=2**20
    )
    rows = []
    for row in stored:
        interpreter.set_input(row[None], 0)
        interpreter.invoke()
        rows.append(interpreter.get_output(0)[0].copy())
    assert within_a_point(bench, np.array(rows), fresh)


def test_c_and_litert_keep_the_accuracy_on_an_npu(built, bench, fresh):
    from ai_edge_litert.interpreter import Interpreter

    artifact = load_build(built).artifact("android-npu")
    stored = prepared_by_c(built / "c" / "android-npu", fresh.inputs["features"])
    content = (built / "blobs" / artifact.blob.sha256).read_bytes()
    runner = Interpreter(model_content=content, num_threads=1).get_signature_runner()
    assert within_a_point(bench, np.array([runner(args_0=row[None])["output_0"][0] for row in stored]), fresh)


def test_the_manifest_says_what_the_file_takes_and_what_makes_it(built):
    build = load_build(built)
    artifact, other = build.artifact("cortex-m7"), build.artifact("android-arm64")
    assert [tensor.name for tensor in artifact.inputs] == ["prepared_0"]
    assert artifact.inputs[0].dtype == "int8"
    assert [tensor.name for tensor in artifact.prepare.inputs] == ["features"]
    assert [(tensor.name, tensor.dtype) for tensor in artifact.prepare.outputs] == [("prepared_0", "float32")]
    assert artifact.checks["prepare"] == "passed"
    assert [tensor.name for tensor in other.inputs] == ["features"]
    assert other.prepare is None
    assert "prepare" not in other.checks


def test_golden_samples_are_raw(built):
    artifact = load_build(built).artifact("cortex-m7")
    golden = decode_arrays((built / "blobs" / artifact.golden.sha256).read_bytes(), "golden", limit_bytes=10**6)
    assert set(golden) == {"input.features", "output.probabilities"}
    rows = raw_sensors.HELD_OUT.inputs["features"]
    assert all(any(np.array_equal(sample, row) for row in rows) for sample in golden["input.features"])


def test_the_agents_runtime_prepares_and_replays_the_golden_samples(built, fresh, bench):
    build = load_build(built)
    artifact = build.artifact("android-npu")
    manifest = type("Manifest", (), {"release": "zoo-raw-sensors@1", "model_schema": build.model_schema})()
    slot = OpenSlot(built, manifest, artifact, Reference(()))
    ready = load_model(slot)
    assert replay_golden(ready) <= artifact.golden_tolerance
    found = ready.model.predict({"features": fresh.inputs["features"]})["probabilities"]
    assert within_a_point(bench, found, fresh)


def test_a_release_of_the_build_fits_and_one_with_other_prepared_tensors_does_not(built):
    build = load_build(built)
    check_fit(build, built)
    artifact = build.artifact("cortex-m7")
    outputs = (replace(artifact.prepare.outputs[0], shape=(1, 42)),)
    wrong = replace(artifact, prepare=replace(artifact.prepare, outputs=outputs))
    with pytest.raises(HedgerowError, match="inputs as they are prepared"):
        check_fit(replace(build, artifacts=(wrong,)), built)


def test_the_header_of_the_model_says_that_preparation_is_outside(built):
    header = (built / "c" / "cortex-m7" / "model.h").read_text()
    assert "zoo_raw_sensors_model_prepare()" in " ".join(header.replace(" * ", " ").split())
    assert '#define ZOO_RAW_SENSORS_MODEL_INPUT_0_NAME "prepared\\1370"' in header
    assert not (built / "c" / "android-arm64").exists()
    assert not (built / "c" / "android-npu" / "model.cc").exists()


def test_alike_features_stay_one_file_of_integers(digits, digits_checkpoint, tmp_path):
    outcome = compile_targets(digits, digits_checkpoint, ["cortex-m7"], tmp_path / "out")
    artifact = outcome.build.artifact("cortex-m7")
    task = load_task(digits)
    assert [tensor.name for tensor in artifact.inputs] == [spec.name for spec in task.inputs]
    assert artifact.prepare is None
    assert not (tmp_path / "out" / "c" / "cortex-m7" / "model_prepare.c").exists()


def test_an_operator_without_c_refuses_the_target_by_its_name_and_no_other(bench_checkpoint, tmp_path):
    module = tmp_path / "sorted.py"
    module.write_text(
        "from dataclasses import replace\n"
        "from hedgerow.examples.zoo import raw_sensors\n"
        "task = replace(raw_sensors.task, preprocess=lambda x: raw_sensors.normalised(x.sort(1).values))\n"
    )
    outcome = compile_targets(f"{module}:task", bench_checkpoint, ["cortex-m7"], tmp_path / "out")
    assert [refused.check for refused in outcome.refused] == ["task"]
    assert "prepare: expected operators in preprocess that can be written in C, found aten.sort.default;" in (
        outcome.refused[0].reason
    )


def test_c_that_does_something_else_refuses_the_target(bench, tmp_path, monkeypatch):
    from hedgerow.compile.errors import VerificationError
    from hedgerow.compile.preparation import c_file
    from hedgerow.compile.units import compile_artifact
    from hedgerow.hardware import load_target

    write = c_file.prepare_source
    monkeypatch.setattr(c_file, "prepare_source", lambda *given: write(*given).replace("4.0f", "1.0f"))
    foundation = replace(bench, made={}, executed={})
    with pytest.raises(VerificationError, match=r"the check 'prepare'.*steps off, in .* of 2000 samples"):
        compile_artifact(
            foundation, load_target("cortex-m7"), RECIPES["tflite-int8-full"], tmp_path, max_drop=0.015, report=silent
        )


def test_an_integer_file_behind_a_float_one_is_quantized_where_floats_run(scaled_bench, fresh):
    from ai_edge_litert.interpreter import Interpreter

    stage = make(scaled_bench, RECIPES["tflite-int8-full"], Steps("test", 9, silent)).stage
    assert (stage.inputs[0].dtype, stage.outputs[0].dtype) == ("float32", "int8")
    runner = Interpreter(model_content=stage.content, num_threads=1).get_signature_runner()
    rows = [runner(args_0=row[None])["output_0"][0] for row in fresh.inputs["features"]]
    assert within_a_point(scaled_bench, np.array(rows), fresh)


@pytest.mark.parametrize("target", ["cortex-m7", "android-npu"])
def test_samples_are_prepared_before_they_are_predicted(target, built, bench, fresh):
    if target == "cortex-m7":
        pytest.importorskip("tflite_micro")
    build = load_build(built)
    run = RunArtifact(
        build.artifact(target), build.model_schema, lambda blob: (built / "blobs" / blob.sha256).read_bytes()
    )

    assert within_a_point(bench, run(fresh.inputs).outputs["probabilities"], fresh)
