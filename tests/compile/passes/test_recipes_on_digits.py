"""Every recipe makes a file that holds what it promises, on a model trained on real images."""

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from hedgerow.compile.foundation import Foundation, Workbench  # noqa: E402
from hedgerow.compile.pass_models import FloatModel  # noqa: E402
from hedgerow.compile.passes.coreml.export import ExportCoreml  # noqa: E402 - needs torch
from hedgerow.compile.passes.onnx.export import ExportOnnx  # noqa: E402
from hedgerow.compile.passes.runner import run_file_pass  # noqa: E402
from hedgerow.compile.passes.tflite.export import ExportTflite  # noqa: E402
from hedgerow.compile.recipes import RECIPES, find_recipe  # noqa: E402
from hedgerow.compile.units import compile_artifact  # noqa: E402
from hedgerow.durable import sha256_of  # noqa: E402
from hedgerow.hardware.lookup import load_target  # noqa: E402
from hedgerow.progress import silent  # noqa: E402
from hedgerow.task import Dataset  # noqa: E402
from hedgerow.weights import decode_arrays  # noqa: E402

pytestmark = [
    pytest.mark.heavy,
    # Converters and their dependencies call deprecated parts of each other.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
    # coremltools 9 leaves temporary files to the collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def foundation(digits, digits_checkpoint) -> Foundation:
    return Workbench().foundation(digits, digits_checkpoint, sha256_of(digits_checkpoint / "weights.safetensors"))


@pytest.mark.parametrize(
    "recipe",
    [
        "onnx-int8-s8s8", "onnx-int8-u8s8-reduced", "onnx-int8-inc", "tflite-int8", "tflite-int8-pt2e",
        "coreml-int8-weights",
    ],
)  # fmt: skip
def test_the_artifact_passes_every_check_that_this_host_can_run(recipe, foundation, tmp_path):
    target = {"onnx": "x86-gateway", "tflite": "android-arm64", "coreml": "iphone-15"}[RECIPES[recipe].toolchain]
    compiled = compile_artifact(
        foundation, load_target(target), find_recipe(recipe), tmp_path, max_drop=0.015, report=silent
    )
    artifact, latency = compiled.artifact, compiled.latency
    assert (latency is None) == (artifact.format == "mlpackage")
    assert artifact.metrics["bytes"] < artifact.metrics["float_bytes"] * 0.6
    not_run = {name for name, state in artifact.checks.items() if state != "passed"}
    # Nothing has run on a phone's Neural Engine, nor on the other accelerators.
    unknown = set() if load_target(artifact.target).is_modelled else {"latency"}
    assert not_run == unknown | ({"runs on device"} if artifact.format == "mlpackage" else set())
    assert artifact.metrics["snr_db"] > 30
    golden = decode_arrays((tmp_path / "blobs" / artifact.golden.sha256).read_bytes(), "golden", limit_bytes=10**6)
    assert golden["input.image"].shape == (16, 1, 8, 8)
    assert golden["output.probabilities"].shape == (16, 10)
    # Core ML's softmax is in float16.
    tolerance = 1e-3 if artifact.format == "mlpackage" else 1e-5
    np.testing.assert_allclose(golden["output.probabilities"].sum(axis=1), 1, atol=tolerance)
    # Softmax in int8 would leave multiples of 1/256.
    steps = golden["output.probabilities"] * 256
    assert np.abs(steps - np.round(steps)).max() > 0.05


@pytest.mark.parametrize(
    ("recipe", "share"), [("onnx-pruned-int8", 0.2), ("onnx-qat-int8", 0.3), ("tflite-int8-full", 0.3)]
)
def test_recipes_that_change_the_model_or_its_border_pass_the_gate(recipe, share, foundation, tmp_path):
    """Pruned and retrained models are compared with the untouched one: accuracy and bytes decide."""
    target = "raspberry-pi-4" if recipe.startswith("onnx") else "android-npu"
    artifact = compile_artifact(
        foundation, load_target(target), find_recipe(recipe), tmp_path, max_drop=0.015, report=silent
    ).artifact
    assert artifact.metrics["bytes"] < share * artifact.metrics["float_bytes"]
    assert artifact.metrics["accuracy"] >= artifact.metrics["float_accuracy"] - 0.015
    not_run = {name for name, state in artifact.checks.items() if state != "passed"}
    assert not_run == (set() if target == "raspberry-pi-4" else {"latency"})


def test_a_recipe_with_a_student_is_refused_for_a_task_without_one(foundation, tmp_path):
    from hedgerow.compile.errors import UnsuitableError

    with pytest.raises(UnsuitableError, match="a task with a student, found 'digits'"):
        compile_artifact(
            foundation,
            load_target("raspberry-pi-4"),
            find_recipe("onnx-distilled-int8"),
            tmp_path,
            max_drop=0.015,
            report=silent,
        )


@pytest.mark.parametrize("recipe", ["onnx-int8-s8s8", "tflite-int8", "coreml-int8-weights"])
def test_the_same_model_gives_the_same_bytes(recipe, foundation):
    def make() -> bytes:
        stage = None
        for step in RECIPES[recipe].passes:
            stage = run_file_pass(step, foundation.source, stage)
        return stage.content

    content = make()
    assert make() == content
    assert b"site-packages" not in content


@pytest.mark.parametrize("export", [ExportOnnx(), ExportTflite(), ExportCoreml(minimum_version="iOS17")])
def test_an_exported_model_is_float_and_the_inspector_says_so(export, foundation):
    from hedgerow.compile.inspection.model import read_facts

    stage = run_file_pass(export, foundation.source, None)
    facts = read_facts(stage.format, stage.content)
    weights = sum(values.numel() for values in foundation.source.model.state_dict().values())
    assert facts.quantized_share == 0
    assert weights <= facts.float_weights <= weights * 1.02


def test_calibration_on_other_data_than_the_worlds_shows_in_the_parity_check(foundation, tmp_path):
    """Gates work on what the device will compute, so a bad calibration cannot hide."""
    from hedgerow.compile.errors import VerificationError

    black = Dataset({"image": np.zeros((4, 1, 8, 8), np.float32)}, np.zeros(4, np.int64))
    source = FloatModel(task=foundation.source.task, model=foundation.source.model, calibration=black)
    broken = replace(foundation, source=source, sources={}, stages={}, made={}, executed={})
    with pytest.raises(VerificationError) as caught:
        compile_artifact(
            broken, load_target("raspberry-pi-4"), RECIPES["onnx-int8-s8s8"], tmp_path, max_drop=0.015, report=silent
        )
    assert caught.value.check == "accuracy"
    assert not (tmp_path / "blobs").exists()


def test_a_core_ml_package_needs_ios_17_and_holds_int8_weights(foundation):
    from hedgerow.compile.inspection.coreml import read_coreml, specification_version

    stage = None
    for step in RECIPES["coreml-int8-weights"].passes:
        stage = run_file_pass(step, foundation.source, stage)
    facts = read_coreml(stage.content)
    assert specification_version(stage.content) == 8
    assert "constexpr_affine_dequantize" in facts.operators
    assert "int8" in facts.number_types
    assert facts.quantized_share > 0.99


def test_folding_is_what_makes_the_neural_compressor_file_small(foundation):
    """neural-compressor leaves float weights behind quantize nodes: the file alone would be refused."""
    quantize, fold, _trim = RECIPES["onnx-int8-inc"].passes
    raw = run_file_pass(quantize, foundation.source, None)
    folded = run_file_pass(fold, foundation.source, raw)
    assert len(folded.content) < len(raw.content) / 2
