import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgerow.compile.build import Build, add_blob, load_build, save_build
from hedgerow.compile.errors import BuildFolderError
from hedgerow.errors import DecodeError
from hedgerow.manifest.artifact import Artifact
from hedgerow.manifest.content import Blob, Tensor
from hedgerow.manifest.train_graph import TrainGraph
from hedgerow.model_schema import ModelSchema
from hedgerow.outputs import Classes, Outputs
from hedgerow.schema import TensorSpec

IMAGE = Tensor("image", "args_0", (1, 1, 8, 8), "int8", 0.0625, -128)
SCALAR = Tensor("loss", "loss", (), "float32")


def make_build(folder) -> Build:
    artifact = Artifact(
        target="android-arm64",
        format="tflite",
        runtime="litert",
        blob=add_blob(folder, b"model"),
        inputs=(IMAGE,),
        outputs=(Tensor("probabilities", "output_0", (1, 10), "float32"),),
        recipe=("export-tflite", "quantize-tflite-static"),
        golden=add_blob(folder, b"golden"),
        golden_tolerance=0.05,
        metrics={"accuracy": 0.9375, "bytes": 5.0},
        checks={"size": "passed", "golden": "not run"},
    )
    graph = TrainGraph(
        format="onnx",
        runtime="onnxruntime",
        blob=add_blob(folder, b"train"),
        batch_size=16,
        inputs=(Tensor("image", "input.image", (16, 1, 8, 8), "float32"),),
        targets=(Tensor("probabilities", "target.probabilities", (16,), "int64"),),
        learning_rate=SCALAR,
        loss=SCALAR,
        parameters=(Tensor("0.weight", "weight.0.weight", (2, 2), "float32"),),
        updated=(Tensor("0.weight", "updated.0.weight", (2, 2), "float32"),),
    )
    return Build(
        task="digits",
        model_schema=ModelSchema(
            (TensorSpec("image", (1, 8, 8), minimum=0, maximum=16),),
            (TensorSpec("probabilities", (2,)),),
            Outputs.of(Classes(("0", "1"))),
        ),
        artifacts=(artifact,),
        train_graphs=(graph,),
        reference=add_blob(folder, b"reference"),
        checkpoint_sha256="0" * 64,
        run="run-7",
        data_fingerprint="f" * 64,
        metrics={"accuracy": 0.95},
        parent="digits@1",
    )


def test_a_build_comes_back_as_it_was(tmp_path):
    build = make_build(tmp_path)
    save_build(tmp_path, build)
    assert load_build(tmp_path) == build
    assert len(build.blobs()) == 4
    assert build.artifact("android-arm64") is build.artifacts[0]
    assert build.artifact("toaster") is None


def test_equal_builds_have_equal_bytes(tmp_path):
    assert make_build(tmp_path / "a").encode() == make_build(tmp_path / "b").encode()


def test_the_same_content_is_stored_once(tmp_path):
    assert add_blob(tmp_path, b"x") == add_blob(tmp_path, b"x")
    assert len(list((tmp_path / "blobs").iterdir())) == 1


def test_a_folder_without_a_build_says_how_to_make_one(tmp_path):
    with pytest.raises(BuildFolderError, match=r"found none .*hedgerow compile"):
        load_build(tmp_path)


@pytest.mark.parametrize("content", [b"", b"modem", b"model and more"])
def test_a_changed_blob_is_found(tmp_path, content):
    build = make_build(tmp_path)
    save_build(tmp_path, build)
    (tmp_path / "blobs" / build.artifacts[0].blob.sha256).write_bytes(content)
    with pytest.raises(BuildFolderError, match="damaged: expected a blob of 5 bytes"):
        load_build(tmp_path)


def test_a_lost_blob_is_found(tmp_path):
    build = make_build(tmp_path)
    save_build(tmp_path, build)
    (tmp_path / "blobs" / build.reference.sha256).unlink()
    with pytest.raises(BuildFolderError, match="damaged: expected the blob"):
        load_build(tmp_path)


def test_a_build_is_not_saved_without_its_blobs(tmp_path):
    build = replace(make_build(tmp_path), reference=Blob("a" * 64, 3))
    with pytest.raises(BuildFolderError, match="expected the blob aaaaaaaaaaaa"):
        save_build(tmp_path, build)
    assert not (tmp_path / "build.json").exists()


@pytest.mark.parametrize("cut", [0, 1, 100, -1])
def test_a_cut_record_is_found(tmp_path, cut):
    save_build(tmp_path, make_build(tmp_path))
    path = tmp_path / "build.json"
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(BuildFolderError, match="damaged"):
        load_build(tmp_path)


def test_a_record_with_an_unknown_field_or_version_is_refused(tmp_path):
    record = json.loads(make_build(tmp_path).encode())
    for change in ({"colour": "red"}, {"version": 2}):
        with pytest.raises(DecodeError):
            Build.decode(json.dumps(record | change).encode())


@given(st.binary(max_size=200))
def test_bytes_that_are_no_build_are_refused_and_never_crash(payload):
    with pytest.raises(DecodeError):
        Build.decode(payload)
