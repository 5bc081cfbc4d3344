import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("ai_edge_litert")

from onnx import TensorProto, helper, numpy_helper

from hedgerow.client.runtimes import load_runtime
from hedgerow.compile.build import load_build
from hedgerow.compile.errors import BuildFolderError, ModelFileError, VerificationError
from hedgerow.compile.model_file import ModelFile, open_model_file, read_model_file
from hedgerow.compile.third_party import pack_third_party
from hedgerow.model_schema import ModelSchema
from hedgerow.outputs import Classes, Outputs
from hedgerow.reference import Reference
from hedgerow.schema import TensorSpec
from hedgerow.weights import decode_arrays
from hedgerow.window import WindowCounter

pytestmark = pytest.mark.heavy

# file -> targets that can hold it.
INTEGER = ("android-arm64", "android-npu", "cortex-m4", "cortex-m7", "esp32-s3")
HELD = {
    "ad01_fp32.tflite": ("android-arm64",),
    "ad01_int8.tflite": INTEGER,
    "kws_ref_model_float32.tflite": ("android-arm64",),
    "kws_ref_model_int8.tflite": INTEGER,
    "pretrainedResnet.tflite": ("android-arm64",),
    "pretrainedResnet_quant.tflite": INTEGER,
    "str_ww_ref_model.tflite": INTEGER,
    "vww_96_float.tflite": ("android-arm64",),
    # It needs 103,680 bytes of arena in the interpreter's own reference kernels; the target has 98,304.
    "vww_96_int8.tflite": tuple(name for name in INTEGER if name != "cortex-m4"),
}


def read(path: Path) -> ModelFile:
    with open_model_file(path) as file:
        return read_model_file(file)


def blob(folder: Path, sha256: str) -> bytes:
    return (folder / "blobs" / sha256).read_bytes()


@pytest.mark.parametrize("name", sorted(HELD))
def test_a_reference_model_is_packed_for_every_target_that_holds_it(name, mlperf_tiny, tmp_path):
    build = pack_third_party(mlperf_tiny / name, HELD[name], tmp_path / "out")
    assert load_build(tmp_path / "out") == build
    assert [artifact.target for artifact in build.artifacts] == list(HELD[name])
    for artifact in build.artifacts:
        assert blob(tmp_path / "out", artifact.blob.sha256) == (mlperf_tiny / name).read_bytes()
        not_run = {key for key, state in artifact.checks.items() if state == "not run"}
        assert not_run - {"latency"} == {"accuracy", "parity"}
        assert ("latency" in not_run) == (artifact.target == "android-npu")
        assert "failed" not in artifact.checks.values()
        assert artifact.metrics["macs"] > 0
        assert "accuracy" not in artifact.metrics
    assert Reference.decode(blob(tmp_path / "out", build.reference.sha256)).features == ()
    assert build.train_graphs == ()


@pytest.mark.parametrize("name", sorted(HELD))
def test_a_float_or_large_model_is_refused_by_the_targets_that_cannot_hold_it(name, mlperf_tiny, tmp_path):
    for target in set(INTEGER) - set(HELD[name]):
        with pytest.raises(VerificationError) as caught:
            pack_third_party(mlperf_tiny / name, [target], tmp_path / "out")
        failed = [check for check, _expected, _found in caught.value.failures]
        assert "all integer" in failed or (failed, name) == (["memory"], "vww_96_int8.tflite")
    with pytest.raises(VerificationError) as caught:
        pack_third_party(mlperf_tiny / name, ["raspberry-pi-4"], tmp_path / "out")
    assert caught.value.check == "format"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["pretrainedResnet_quant.tflite", "vww_96_float.tflite"])
def test_a_device_loads_what_was_packed_replays_its_golden_samples_and_counts(name, mlperf_tiny, tmp_path):
    out = tmp_path / "out"
    build = pack_third_party(mlperf_tiny / name, ["android-arm64"], out)
    [artifact] = build.artifacts
    model = load_runtime("litert").load(out / "blobs" / artifact.blob.sha256, artifact)
    golden = decode_arrays(blob(out, artifact.golden.sha256), "golden", limit_bytes=10**8)
    inputs = {key.removeprefix("input."): value for key, value in golden.items() if key.startswith("input.")}
    build.model_schema.check_inputs(inputs)
    found = model.predict(inputs)
    assert np.abs(found["probabilities"] - golden["output.probabilities"]).max() <= artifact.golden_tolerance
    counter = WindowCounter("random@1", build.model_schema, Reference(()))
    counter.observe(inputs, found, latency_ms=1.0, now=0.0)
    window = counter.cut(1.0)
    assert (window.samples, window.out_of_range, window.features) == (16, 0, {})


def test_golden_inputs_lie_in_the_valid_range_and_depend_on_the_seed_alone(mlperf_tiny, tmp_path):
    path = mlperf_tiny / "ad01_int8.tflite"
    [spec] = read(path).schema.inputs
    first = pack_third_party(path, ["cortex-m4"], tmp_path / "a").artifacts[0].golden
    assert pack_third_party(path, ["cortex-m4"], tmp_path / "b").artifacts[0].golden == first
    assert pack_third_party(path, ["cortex-m4"], tmp_path / "c", seed=1).artifacts[0].golden != first
    values = decode_arrays(blob(tmp_path / "a", first.sha256), "golden", limit_bytes=10**7)["input.input_1"]
    assert values.min() >= spec.minimum
    assert values.max() <= spec.maximum
    assert values.max() - values.min() > 0.9 * (spec.maximum - spec.minimum)


WEIGHT = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)


def onnx_file(folder: Path, weight: np.ndarray = WEIGHT, *, taken=("batch", 6), given=("batch", 3)) -> Path:
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["In put:0", "w"], ["m"]), helper.make_node("Softmax", ["m"], ["Out"])],
        "graph",
        [helper.make_tensor_value_info("In put:0", TensorProto.FLOAT, taken)],
        [helper.make_tensor_value_info("Out", TensorProto.FLOAT, given)],
        [numpy_helper.from_array(weight, "w")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = folder / "Their Model.onnx"
    path.write_bytes(made.SerializeToString())
    return path


def test_an_onnx_file_is_packed_with_names_that_a_schema_can_hold(tmp_path):
    build = pack_third_party(onnx_file(tmp_path), ["raspberry-pi-4", "x86-gateway"], tmp_path / "out")
    assert build.task == "their-model"
    assert build.model_schema.inputs == (TensorSpec("in_put_0", (6,), "float32"),)
    assert build.model_schema.outputs[0].name == "probabilities"
    assert build.model_schema.answers.alone.part_names == ("0", "1", "2")
    [tensor] = build.artifacts[0].inputs
    assert (tensor.name, tensor.tensor, tensor.shape) == ("in_put_0", "In put:0", (-1, 6))
    assert json.loads(build.encode())["run"] == "third-party Their Model.onnx"


def test_a_schema_names_units_and_ranges(tmp_path):
    schema = ModelSchema(
        (TensorSpec("acceleration", (6,), unit="m/s^2", minimum=-20, maximum=20),),
        (TensorSpec("probabilities", (3,)),),
        Outputs.of(Classes(("still", "walking", "falling"))),
    )
    build = pack_third_party(onnx_file(tmp_path), ["raspberry-pi-4"], tmp_path / "out", schema=schema, task="gait")
    assert build.model_schema == schema
    assert build.task == "gait"
    golden = decode_arrays(blob(tmp_path / "out", build.artifacts[0].golden.sha256), "golden", limit_bytes=10**6)
    assert np.abs(golden["input.acceleration"]).max() > 10
    other = ModelSchema((TensorSpec("acceleration", (7,)),), schema.outputs, schema.answers)
    with pytest.raises(ModelFileError, match=r"float32\[7\] for acceleration"):
        pack_third_party(onnx_file(tmp_path), ["raspberry-pi-4"], tmp_path / "out", schema=other)


def test_nan_weights_are_refused(tmp_path):
    with pytest.raises(VerificationError) as caught:
        pack_third_party(onnx_file(tmp_path, np.full((6, 3), np.nan, np.float32)), ["raspberry-pi-4"], tmp_path / "out")
    assert [check for check, _expected, _found in caught.value.failures] == ["weights"]


def test_a_size_that_is_left_open_is_refused_with_the_option_that_fixes_it(tmp_path):
    with pytest.raises(ModelFileError) as caught:
        read(onnx_file(tmp_path, taken=("batch", "n", 6), given=("batch", "n", 3)))
    assert str(caught.value) == (
        "Their Model.onnx: expected inputs of fixed sizes after the batch, found the dimension 1 of 'In put:0' open; "
        "give the sizes with --shape In put:0=1xSIZEx6"
    )


def test_a_file_without_a_batch_of_one_in_front_takes_its_whole_shape_as_one_sample(tmp_path):
    model = read(onnx_file(tmp_path, taken=(4, 6), given=(4, 3)))
    assert [spec.shape for spec in (*model.schema.inputs, *model.schema.outputs)] == [(4, 6), (4, 3)]
    assert [tensor.shape for tensor in (*model.inputs, *model.outputs)] == [(4, 6), (4, 3)]


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04zip", b"xxxxTFL3", b"xxxxTFL3" + b"\xff" * 64, b"no model"])
def test_other_files_are_refused(content, tmp_path):
    path = tmp_path / "model.tflite"
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match=r"model\.tflite"):
        pack_third_party(path, ["cortex-m4"], tmp_path / "out")
    with pytest.raises(ModelFileError, match="a file"):
        pack_third_party(tmp_path / "absent.tflite", ["cortex-m4"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_nothing_else_is_overwritten(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    with pytest.raises(BuildFolderError):
        pack_third_party(onnx_file(tmp_path), ["raspberry-pi-4"], tmp_path / "out")
    for targets in ([], ["raspberry-pi-4"] * 2):
        with pytest.raises(ValueError, match="at least one target"):
            pack_third_party(onnx_file(tmp_path), targets, tmp_path / "elsewhere")
