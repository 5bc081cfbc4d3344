"""Sensors of unlike kind, each out now and then, the whole way: trained, compiled for four kinds of device, and run.

Broker, service and agents are real, and so is TensorFlow Lite Micro behind the C that a Cortex-M7 gets. What a runtime
answers is held against torch; what a device counts, against the samples that it was given.
"""

import ctypes
import json
import re
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from hedgerow.checkpoint import read_checkpoint  # noqa: E402
from hedgerow.compile import compile_targets  # noqa: E402
from hedgerow.compile.build import load_build  # noqa: E402
from hedgerow.compile.coreml_evaluation.evaluate import predict_coreml  # noqa: E402
from hedgerow.compile.preparation.host_check import find_c_compiler  # noqa: E402
from hedgerow.compile.recipes import find_recipe  # noqa: E402
from hedgerow.compile.scoring import signal_to_noise_db  # noqa: E402
from hedgerow.fleet.drift.alert import AlertKind, device_slice  # noqa: E402
from hedgerow.fleet.rollout.gates import GatePlan  # noqa: E402
from hedgerow.fleet.rollout.plan import RolloutPlan  # noqa: E402
from hedgerow.fleet.rollout.stages import StagePlan  # noqa: E402
from hedgerow.fleet.rollout.state import RolloutState  # noqa: E402
from hedgerow.fleet.trust.releases import create_release  # noqa: E402
from hedgerow.manifest.release import Manifest  # noqa: E402
from hedgerow.reference import Reference  # noqa: E402
from hedgerow.server.training import train_task  # noqa: E402
from hedgerow.task_module import load_weights, predict  # noqa: E402
from tests import wearable  # noqa: E402
from tests.test_bad_release import Field, open_field  # noqa: E402

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.timeout(400),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
TARGETS = {
    "raspberry-pi-4": "onnx-int8-s8s8",
    "android-arm64": "tflite-int8",
    "iphone-15": "coreml-int8-weights",
    "cortex-m7": "tflite-int8-full",
}
"""Target -> its recipe."""
AGENTS = {"pi": "raspberry-pi-4", "phone": "android-arm64"}
WINDOW = 200
FRESH = wearable.worn(15, 80, seed=7)
FEATURES = (*(f"acceleration.{channel}" for channel in wearable.CHANNELS), "temperature", "tight")
PLAN = RolloutPlan(stages=(StagePlan("fleet", 1.0),), gate=GatePlan(), gate_timeout_s=120)
SOURCE = """
import json
import time
from pathlib import Path
import numpy as np
from hedgerow.client import Sample

FRESH = dict(np.load("fresh.npz"))
LABELS = FRESH.pop("labels")

def stream(context):
    world, number = Path(f"{context.device}.world"), 0
    with open(f"{context.device}.answers", "a", buffering=1) as file:
        while True:
            row = number % len(LABELS)
            inputs = {name: values[row].copy() for name, values in FRESH.items()}
            happened = world.read_text() if world.exists() else ""
            if happened == "temperature is out":
                inputs["temperature"][:] = np.nan
            if happened == "x is stuck" and not np.isnan(inputs["acceleration"][0]):
                inputs["acceleration"][0] = 3.0
            answer = yield Sample(inputs, int(LABELS[row]))
            if answer is None:
                time.sleep(0.05)
                continue
            file.write(json.dumps([row, happened, answer.outputs["probabilities"].tolist()]) + chr(10))
            number += 1
            time.sleep(0.002)
"""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """Trained by twenty people, each a client."""
    run = train_task(wearable.task, tmp_path_factory.mktemp("wearable") / "run", rounds=6, clients=20, seed=0)
    return run.checkpoint_folder


@pytest.fixture(scope="module")
def built(checkpoint, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("wearable-build") / "out"
    outcome = compile_targets(f"{wearable.__file__}:task", checkpoint, list(TARGETS), out)
    assert outcome.refused == ()
    assert outcome.recipes == TARGETS
    return out


@pytest.fixture(scope="module")
def model(checkpoint):
    return load_weights(wearable.task, read_checkpoint(checkpoint).weights).eval()


def by_torch(model, samples=FRESH) -> np.ndarray:
    return predict(wearable.task, model, samples.inputs)["probabilities"]


def gaps(samples) -> np.ndarray:
    """Return what of each watched value is missing, ``bool[n, 8]``."""
    return np.isnan(np.concatenate([samples.inputs[spec.name] for spec in wearable.task.inputs], axis=1))


def assert_kept_by_its_recipe(found: np.ndarray, wanted: np.ndarray, target: str, rows=slice(None)) -> None:
    """Hold answers against torch's by what the recipe promises, where all came and where something was missing."""
    recipe, absent = find_recipe(TARGETS[target]), gaps(FRESH)[rows].any(axis=1)
    assert 0.2 < absent.mean() < 0.5
    assert np.isfinite(found).all()
    for chosen in (absent, ~absent):
        assert signal_to_noise_db(wanted[chosen], found[chosen]) >= max(recipe.minimum_snr_db, 30.0)
        alike = found[chosen].argmax(axis=1) == wanted[chosen].argmax(axis=1)
        assert alike.mean() >= recipe.minimum_agreement


def test_federated_training_beats_what_looks_at_nothing_with_and_without_gaps(model):
    right = by_torch(model).argmax(axis=1) == FRESH.target_values
    absent = gaps(FRESH).any(axis=1)

    assert right[absent].mean() > 0.85
    assert right[~absent].mean() > 0.93


def through_c(folder: Path, inputs) -> np.ndarray:
    """Return what the C beside a file makes of samples, compiled and called as firmware would."""
    library = folder / "prepare.so"
    command = ["cc", "-std=c99", "-Wall", "-Werror", "-shared", "-fPIC", "-O2", "model_prepare.c", "-o", library.name]
    subprocess.run([*command, "-lm"], cwd=folder, check=True)
    prepare = ctypes.CDLL(str(library)).wearable_model_prepare
    names = [spec.name for spec in wearable.task.inputs]
    rows = np.zeros((len(inputs[names[0]]), 16), np.int8)
    for place, stored in enumerate(rows):
        taken = [np.ascontiguousarray(inputs[name][place]) for name in names]
        prepare(*(each.ctypes.data_as(ctypes.c_void_p) for each in (*taken, stored)))
    return rows


@pytest.mark.skipif(find_c_compiler() is None, reason="needs a C compiler")
def test_a_microcontroller_s_figures_are_those_of_its_c_and_of_tensorflow_lite_micro(built, model, tmp_path):
    runtime = pytest.importorskip("tflite_micro.python.tflite_micro.runtime")
    artifact = load_build(built).artifact("cortex-m7")
    folder = built / "c" / "cortex-m7"
    source, header = (folder / "model.cc").read_text(), (folder / "model.h").read_text()
    flash = bytes(int(byte, 16) for byte in re.findall(r"0x([0-9a-f]{2})\b", source))
    assert flash == (built / "blobs" / artifact.blob.sha256).read_bytes()
    arena_bytes = int(re.search(r"_ARENA_BYTES (\d+)", header)[1])
    interpreter = runtime.Interpreter.from_bytes(flash, arena_size=arena_bytes)
    scale, zero = artifact.outputs[0].scale, artifact.outputs[0].zero_point

    def answers(inputs) -> np.ndarray:
        rows = []
        for row in through_c(folder, inputs):
            interpreter.set_input(row[None], 0)
            interpreter.invoke()
            rows.append((interpreter.get_output(0)[0].astype(np.float64) - zero) * scale)
        return np.array(rows)

    assert_kept_by_its_recipe(answers(FRESH.inputs), by_torch(model), artifact.target)
    held_out = wearable.data().held_out
    right = answers(held_out.inputs).argmax(axis=1) == held_out.target_values
    assert gaps(held_out).any(axis=1).sum() > 100
    assert artifact.metrics["accuracy"] == right.mean()
    assert artifact.metrics["peak_memory_bytes"] == arena_bytes
    report = json.loads((built / "compile.json").read_text())
    (entry,) = (each for each in report["artifacts"] if each["target"] == "cortex-m7")
    assert entry["executed_by"]["accuracy"].startswith("TensorFlow Lite Micro's")
    assert {artifact.checks[name] for name in ("accuracy", "parity", "golden", "prepare", "memory")} == {"passed"}


def test_core_ml_gives_what_torch_gives(built, model):
    artifact = load_build(built).artifact("iphone-15")
    content = (built / "blobs" / artifact.blob.sha256).read_bytes()

    assert_kept_by_its_recipe(predict_coreml(content, FRESH.inputs)["probabilities"], by_torch(model), artifact.target)


def answers_of(field: Field, device: str) -> list[list]:
    """Return all whole lines that a device's source wrote: row, what had happened, answer."""
    path = field.folder / f"{device}.answers"
    return [json.loads(line) for line in path.read_text().split("\n")[:-1]] if path.exists() else []


def windows_of(field: Field, device: str) -> list:
    return [stored.window for stored in field.service.windows(device)]


def happens(field: Field, device: str, what: str) -> None:
    """Change a device's world at once, as a whole."""
    draft = field.folder / "draft"
    draft.write_text(what)
    draft.replace(field.folder / f"{device}.world")


@pytest.mark.broker
@pytest.mark.e2e
def test_a_signed_release_runs_on_both_runtimes_which_count_gaps_by_channel_and_find_sensors_that_fail(
    built, model, tmp_path
):
    np.savez(tmp_path / "fresh.npz", labels=FRESH.target_values, **FRESH.inputs)
    with open_field(tmp_path) as field:
        (tmp_path / "source.py").write_text(SOURCE)
        manifest = create_release(field.fleet, "wearable", built, now=time.time())
        signed = field.fleet.release(manifest.release) / "manifest.json"
        for device, target in AGENTS.items():
            options = {"device": device, "target": target, "state": str(tmp_path / f"state-{device}")}
            field.start_agent(changed={**options, "window-samples": str(WINDOW)})
        rollout = field.roll_out(manifest.release, PLAN)
        assert rollout.state is RolloutState.FINISHED, rollout.reason
        field.until(lambda: all(len(windows_of(field, device)) >= 12 for device in AGENTS))
        assert field.service.alerts() == ()

        happens(field, "pi", "temperature is out")
        happens(field, "phone", "x is stuck")
        wanted = {(device_slice("pi"), "missing:temperature"), (device_slice("phone"), "acceleration.x")}
        field.until(lambda: wanted <= found_by(field))
        counted = {device: windows_of(field, device) for device in AGENTS}
        said = {device: answers_of(field, device) for device in AGENTS}
        moved = found_by(field)

    assert re.match(r"accuracy 9\d\.\d% .* on \d+ labelled samples; the floor is ", rollout.reason), rollout.reason
    assert {
        spec.name: spec.missing for spec in Manifest.decode(signed.read_bytes()).model_schema.inputs
    } == dict.fromkeys(("acceleration", "temperature", "tight"), True)
    # No other sensor of either device is named.
    inputs = {(place, feature) for place, feature in moved if place.startswith("device:") and "output" not in feature}
    assert inputs == wanted
    for device, target in AGENTS.items():
        assert_answers(said[device], by_torch(model), target)
        assert_counted(counted[device], said[device])


def found_by(field: Field) -> set[tuple[str, str]]:
    """Return slice and feature of everything that is said to have moved."""
    return {
        (finding.slice, finding.feature)
        for alert in field.service.alerts()
        if alert.kind is AlertKind.DRIFT
        for finding in alert.findings
    }


def assert_answers(said, wanted, target) -> None:
    untouched = [(row, answer) for row, happened, answer in said if not happened][: len(FRESH)]
    rows, answers = [row for row, _answer in untouched], np.array([answer for _row, answer in untouched])
    assert len(rows) == len(FRESH)
    assert_kept_by_its_recipe(answers, wanted[rows], target, rows)


def assert_counted(windows, said) -> None:
    """Hold each window against the very samples that it was made of."""
    absent = gaps(FRESH)
    assert [window.index for window in windows] == list(range(len(windows)))
    for window in windows:
        part = said[window.index * WINDOW : (window.index + 1) * WINDOW]
        missing = sum(
            absent[row] | (happened == "temperature is out") * (np.array(FEATURES) == "temperature")
            for row, happened, _answer in part
        )
        assert {name: window.features[name].missing for name in FEATURES} == dict(
            zip(FEATURES, missing.tolist(), strict=True)
        )
        assert all(sum(window.features[name].counts) == WINDOW - window.features[name].missing for name in FEATURES)
        assert window.samples == window.scores.samples == WINDOW
        assert window.scores.total == sum(np.argmax(answer) == FRESH.target_values[row] for row, _, answer in part)
        assert window.out_of_range == 0, "what is missing is not out of range"


def test_the_reference_of_the_release_counts_gaps_of_training_by_channel(built):
    content = (built / "blobs" / load_build(built).reference.sha256).read_bytes()
    missing = {feature.name: feature.missing for feature in Reference.decode(content).features}
    in_all = {feature.name: feature.missing + sum(feature.counts) for feature in Reference.decode(content).features}

    for name in FEATURES:
        assert missing[name] / in_all[name] == pytest.approx(wearable.ABSENT[name.split(".")[0]], abs=0.03)
    assert [name for name in missing if not name.startswith("output.")] == list(FEATURES)
