"""Log-mel and spectra in front of a model, in each format's runtime and in C, and what 8 bits would make of them."""

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from hedgerow.checkpoint import read_checkpoint  # noqa: E402
from hedgerow.client.loading import load_model, replay_golden  # noqa: E402
from hedgerow.client.slot_folders import OpenSlot  # noqa: E402
from hedgerow.compile import compile_targets  # noqa: E402
from hedgerow.compile.build import load_build  # noqa: E402
from hedgerow.compile.coreml_evaluation.evaluate import predict_coreml  # noqa: E402
from hedgerow.compile.preparation.c_file import prepare_source  # noqa: E402
from hedgerow.compile.preparation.c_interface import Interface  # noqa: E402
from hedgerow.compile.preparation.c_program import translate  # noqa: E402
from hedgerow.compile.preparation.halves import cut  # noqa: E402
from hedgerow.compile.preparation.host_check import find_c_compiler, run_prepare  # noqa: E402
from hedgerow.compile.preparation.unlike import MOST_STEPS, steps_lost  # noqa: E402
from hedgerow.manifest.content import Tensor  # noqa: E402
from hedgerow.reference import Reference  # noqa: E402
from hedgerow.server.training import train_task  # noqa: E402
from hedgerow.task_module import load_weights, predict  # noqa: E402
from tests.compile.preparation import tones  # noqa: E402

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.skipif(find_c_compiler() is None, reason="needs a C compiler"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
TARGETS = ("raspberry-pi-4", "android-arm64", "iphone-15", "cortex-m7")
FRESH = tones.drawn(300, seed=7)
SOUNDS = {"sound": FRESH.inputs["sound"][:20]}
TASKS = {"log-mel": tones.task, "spectrum": tones.spectrum_task}


@pytest.fixture(scope="module", params=TASKS)
def halves(request):
    return cut(TASKS[request.param])


def test_onnx_runtime_gives_the_same_features(halves):
    onnxruntime = pytest.importorskip("onnxruntime")
    file = halves.first("onnx")
    session = onnxruntime.InferenceSession(file.content, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {file.inputs[0].tensor: SOUNDS["sound"]})

    np.testing.assert_allclose(found, halves.prepared(SOUNDS)["prepared_0"], atol=1e-3)


def test_litert_gives_the_same_features(halves):
    interpreter = pytest.importorskip("ai_edge_litert.interpreter")
    file = halves.first("tflite")
    runner = interpreter.Interpreter(model_content=file.content, num_threads=1).get_signature_runner()
    rows = [runner(**{file.inputs[0].tensor: row[None]})[file.outputs[0].tensor][0] for row in SOUNDS["sound"]]

    np.testing.assert_allclose(np.array(rows), halves.prepared(SOUNDS)["prepared_0"], atol=1e-3)


def test_c_gives_the_same_features(halves):
    (spec,) = halves.schema.outputs
    given = [Tensor(spec.name, "t", (1, *spec.shape), spec.dtype)]
    interface = Interface("tones", halves.schema, given)
    found = run_prepare(interface, prepare_source(interface, translate(halves)), SOUNDS, find_c_compiler())

    np.testing.assert_allclose(
        found["prepared_0"].reshape(20, *spec.shape), halves.prepared(SOUNDS)["prepared_0"], atol=1e-3
    )


def test_eight_bits_would_lose_what_the_model_takes(halves):
    assert steps_lost(halves, tones.task.calibration(tones.data()).inputs) > 4 * MOST_STEPS


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    run = train_task(tones.task, tmp_path_factory.mktemp("tones") / "run", rounds=5, clients=3, seed=0)
    return run.checkpoint_folder


@pytest.fixture(scope="module")
def built(checkpoint, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("tones-build") / "out"
    outcome = compile_targets(f"{tones.__file__}:task", checkpoint, TARGETS, out)
    assert outcome.refused == ()
    return out


@pytest.fixture(scope="module")
def wanted(checkpoint) -> np.ndarray:
    model = load_weights(tones.task, read_checkpoint(checkpoint).weights).eval()
    found = predict(tones.task, model, FRESH.inputs)["probabilities"]
    assert (found.argmax(1) == FRESH.target_values).mean() >= 0.85
    return found


def assert_alike(found, wanted) -> None:
    assert (found.argmax(1) == wanted.argmax(1)).mean() >= 0.97
    found_right, wanted_right = ((each.argmax(1) == FRESH.target_values).mean() for each in (found, wanted))
    assert abs(found_right - wanted_right) <= 0.015


@pytest.mark.parametrize("target", ["raspberry-pi-4", "android-arm64"])
def test_a_file_of_integers_begins_with_the_front_end_in_float(target, built, wanted):
    build = load_build(built)
    artifact = build.artifact(target)
    manifest = type("Manifest", (), {"release": "tones@1", "model_schema": build.model_schema})()
    ready = load_model(OpenSlot(built, manifest, artifact, Reference(())))

    assert [(tensor.name, tensor.dtype) for tensor in artifact.inputs] == [("sound", "float32")]
    assert replay_golden(ready) <= artifact.golden_tolerance
    assert_alike(ready.model.predict(FRESH.inputs)["probabilities"], wanted)


def test_core_ml_holds_it_in_float(built, wanted):
    content = (built / "blobs" / load_build(built).artifact("iphone-15").blob.sha256).read_bytes()

    assert_alike(predict_coreml(content, FRESH.inputs)["probabilities"], wanted)


def test_a_microcontroller_has_it_in_c_and_the_model_in_tensorflow_lite_micro(built, wanted):
    runtime = pytest.importorskip("tflite_micro.python.tflite_micro.runtime")
    artifact = load_build(built).artifact("cortex-m7")
    assert artifact.checks["prepare"] == "passed"
    stored = artifact.inputs[0]
    interface = Interface("tones", cut(tones.task).schema, artifact.inputs)
    source = (built / "c" / "cortex-m7" / "model_prepare.c").read_text()
    prepared = run_prepare(interface, source, FRESH.inputs, find_c_compiler())[stored.name]
    content = (built / "blobs" / artifact.blob.sha256).read_bytes()
    interpreter = runtime.Interpreter.from_bytes(content, arena_size=2**18)
    rows = []
    for row in prepared.reshape(len(prepared), *stored.shape):
        interpreter.set_input(row, 0)
        interpreter.invoke()
        rows.append(interpreter.get_output(0)[0].copy())

    assert_alike(np.array(rows), wanted)
