"""A task of many sensors, some of which say nothing, the whole way: trained, compiled for four formats, and run."""

import ctypes
import subprocess
from dataclasses import replace
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
from hedgerow.compile.making import Steps, make  # noqa: E402
from hedgerow.compile.preparation.host_check import find_c_compiler  # noqa: E402
from hedgerow.compile.recipes import RECIPES  # noqa: E402
from hedgerow.compile.train_graph.options import StepOptions  # noqa: E402
from hedgerow.compile.units import compile_train_graph  # noqa: E402
from hedgerow.errors import HedgerowError  # noqa: E402
from hedgerow.fleet.trust.release_fit import check_fit  # noqa: E402
from hedgerow.progress import silent  # noqa: E402
from hedgerow.reference import Reference  # noqa: E402
from hedgerow.server.check import check_task  # noqa: E402
from hedgerow.server.training import train_task  # noqa: E402
from hedgerow.task import load_task  # noqa: E402
from hedgerow.task_module import load_weights, predict  # noqa: E402
from hedgerow.weights import decode_arrays  # noqa: E402
from tests.compile.preparation import weather  # noqa: E402
from tests.compile.preparation.conftest import make_foundation  # noqa: E402

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.skipif(find_c_compiler() is None, reason="needs a C compiler"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
TARGETS = ("raspberry-pi-4", "android-arm64", "iphone-15", "cortex-m7")
FRESH = weather.drawn(1000, seed=7)
ALL_ABSENT = np.full((1, len(weather.CHANNELS)), np.nan, np.float32)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    check_task(weather.task)
    run = train_task(weather.task, tmp_path_factory.mktemp("weather") / "run", rounds=6, clients=4, seed=0)
    return run.checkpoint_folder


@pytest.fixture(scope="module")
def model(checkpoint):
    return load_weights(weather.task, read_checkpoint(checkpoint).weights).eval()


@pytest.fixture(scope="module", params=["task", "other_task"])
def built(request, checkpoint, tmp_path_factory) -> tuple[str, Path]:
    out = tmp_path_factory.mktemp("weather-build") / "out"
    outcome = compile_targets(f"{weather.__file__}:{request.param}", checkpoint, TARGETS, out)
    assert outcome.refused == ()
    return request.param, out


def said(name, model, inputs) -> np.ndarray:
    return predict(getattr(weather, name), model, inputs)["probabilities"]


def wanted_of(name, model) -> np.ndarray:
    return said(name, model, FRESH.inputs)


def assert_alike(found, wanted) -> None:
    """Hold answers of a file against the float model's: the class of nearly all, and the accuracy within a point."""
    assert np.isfinite(found).all()
    assert (found.argmax(1) == wanted.argmax(1)).mean() >= 0.98
    accuracies = [(values.argmax(1) == FRESH.target_values).mean() for values in (found, wanted)]
    assert abs(accuracies[0] - accuracies[1]) <= 0.01


def prepared_by_c(folder: Path, readings: np.ndarray) -> np.ndarray:
    library = folder / "prepare.so"
    command = ["cc", "-std=c99", "-shared", "-fPIC", "-O2", "model_prepare.c", "-o", library.name, "-lm"]
    subprocess.run(command, cwd=folder, check=True)
    function = ctypes.CDLL(str(library)).weather_model_prepare
    rows = np.zeros((len(readings), 2 * len(weather.CHANNELS)), np.int8)
    for taken, given in zip(np.ascontiguousarray(readings), rows, strict=True):
        function(taken.ctypes.data_as(ctypes.c_void_p), given.ctypes.data_as(ctypes.c_void_p))
    return rows


def ready(built, target, model_schema):
    build = load_build(built)
    manifest = type("Manifest", (), {"release": "weather@1", "model_schema": model_schema})()
    return load_model(OpenSlot(built, manifest, build.artifact(target), Reference(())))


def test_federated_training_learns_from_what_came(model):
    wanted = wanted_of("task", model)

    assert (wanted.argmax(1) == FRESH.target_values).mean() >= 0.85
    assert np.isfinite(said("task", model, {"readings": ALL_ABSENT})).all()


@pytest.mark.parametrize("target", ["raspberry-pi-4", "android-arm64"])
def test_the_agent_runs_and_replays_a_file_of_integers_that_takes_nan(target, built, model):
    name, folder = built
    loaded = ready(folder, target, load_build(folder).model_schema)

    assert replay_golden(loaded) <= load_build(folder).artifact(target).golden_tolerance
    assert_alike(loaded.model.predict(FRESH.inputs)["probabilities"], wanted_of(name, model))
    absent = loaded.model.predict({"readings": ALL_ABSENT})["probabilities"]
    np.testing.assert_allclose(absent, said(name, model, {"readings": ALL_ABSENT}), atol=0.05)


def test_core_ml_takes_nan(built, model):
    name, folder = built
    content = (folder / "blobs" / load_build(folder).artifact("iphone-15").blob.sha256).read_bytes()

    assert_alike(predict_coreml(content, FRESH.inputs)["probabilities"], wanted_of(name, model))


def test_c_and_tensorflow_lite_micro_take_nan(built, model):
    runtime = pytest.importorskip("tflite_micro.python.tflite_micro.runtime")
    name, folder = built
    artifact = load_build(folder).artifact("cortex-m7")
    assert artifact.checks["prepare"] == "passed"
    assert [tensor.dtype for tensor in artifact.prepare.inputs] == ["float32"]
    stored = prepared_by_c(folder / "c" / "cortex-m7", FRESH.inputs["readings"])
    content = (folder / "blobs" / artifact.blob.sha256).read_bytes()
    interpreter = runtime.Interpreter.from_bytes(content, arena_size=2**18)
    rows = []
    for row in stored:
        interpreter.set_input(row[None], 0)
        interpreter.invoke()
        rows.append(interpreter.get_output(0)[0].copy())

    scale, zero = artifact.outputs[0].scale, artifact.outputs[0].zero_point
    found = np.array(rows, np.float32)
    assert_alike(found if scale is None else (found - zero) * scale, wanted_of(name, model))


def test_the_c_header_says_what_stands_for_a_missing_value(built):
    header = " ".join((built[1] / "c" / "cortex-m7" / "model_prepare.h").read_text().replace(" * ", " ").split())

    assert "NAN stands for a value that is missing; compile without -ffast-math" in header
    assert "readings in pressure: Pa, wind: m/s" in header


@pytest.mark.parametrize("target", TARGETS)
def test_golden_samples_hold_missing_values_and_fit_the_release(target, built):
    _name, folder = built
    build = load_build(folder)
    golden = decode_arrays(
        (folder / "blobs" / build.artifact(target).golden.sha256).read_bytes(), "golden", limit_bytes=10**6
    )

    assert np.isnan(golden["input.readings"]).any()
    assert np.isfinite(golden["output.probabilities"]).all()
    check_fit(build, folder)


def test_the_reference_counts_what_was_missing_of_each_channel(built):
    _name, folder = built
    blob = load_build(folder).reference
    reference = Reference.decode((folder / "blobs" / blob.sha256).read_bytes())

    shares = {f.name: f.missing / (f.missing + sum(f.counts)) for f in reference.features if "readings" in f.name}
    assert list(shares) == [f"readings.{channel}" for channel in weather.CHANNELS]
    assert all(0.1 < share < 0.2 for share in shares.values())


def test_features_that_were_never_missing_when_calibrated_stay_out_of_integers_all_the_same(model):
    task = weather.make_task(data=lambda: None, preprocess=lambda x: torch.nan_to_num(x / 8, nan=0.0))
    alike = weather.drawn(300, seed=5, absent=0.0)
    alike = replace(alike, inputs={"readings": np.random.default_rng(0).normal(size=(300, 8)).astype(np.float32)})
    foundation = make_foundation(task, torch.nn.Linear(8, 2).eval(), weather.data())
    foundation = replace(foundation, source=replace(foundation.source, calibration=alike))

    assert foundation.prepared_beside() is not None


def test_a_preprocess_that_cannot_be_cut_off_is_refused_by_a_sentence(checkpoint, tmp_path):
    module = tmp_path / "uncut.py"
    module.write_text(
        "from tests.compile.preparation import weather\n"
        "import torch\n"
        "class Model(torch.nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.inner = weather.model()\n"
        "    def forward(self, x, scale):\n"
        "        return self.inner(x * scale)\n"
        "task = weather.make_task(lambda x: (weather.preprocess(x), torch.ones(3)[0]), model=Model)\n"
    )
    task = load_task(f"{module}:task")
    foundation = make_foundation(task, task.model().eval(), weather.data())

    assert foundation.halves is None
    with pytest.raises(HedgerowError, match="to batches of tensors, as readings may be missing"):
        make(foundation, RECIPES["onnx-int8-s8s8"], Steps("x", 9, silent))


@pytest.mark.parametrize("kind", ["onnx", "tflite"])
@pytest.mark.parametrize("task", [weather.task, weather.other_task], ids=["where", "nan_to_num"])
def test_a_device_trains_on_samples_with_missing_values_as_torch_does(task, kind, tmp_path):
    foundation = make_foundation(task, weather.model(), weather.data())
    assert np.isnan(foundation.data.train.inputs["readings"][: task.local.batch_size]).any()

    _graph, difference = compile_train_graph(foundation, kind, tmp_path, silent, StepOptions())

    assert difference < 1e-4
