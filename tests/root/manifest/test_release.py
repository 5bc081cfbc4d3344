"""A manifest is what it was after a journey, and nothing else is taken for one."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgerow.errors import DecodeError
from hedgerow.manifest.content import Tensor
from hedgerow.manifest.release import Manifest, blob_path, manifest_path, parse_release_id
from hedgerow.outputs import NO_OUTPUTS, Classes, Outputs
from hedgerow.schema import TensorSpec
from tests.root.documents import ARTIFACT, BLOB, GRAPH, MANIFEST, SCHEMA, STREAMING_SCHEMA, damaged


def test_a_manifest_survives_the_wire():
    assert Manifest.decode(MANIFEST.encode()) == MANIFEST
    assert Manifest.decode(MANIFEST.encode()).encode() == MANIFEST.encode()


@given(st.data())
def test_a_damaged_manifest_is_another_manifest_or_a_decode_error(data):
    try:
        manifest = Manifest.decode(data.draw(damaged(MANIFEST.encode())))
    except DecodeError:
        return
    assert Manifest.decode(manifest.encode()) == manifest


@given(st.binary(max_size=100))
def test_arbitrary_bytes_are_no_manifest(payload):
    with pytest.raises(DecodeError):
        Manifest.decode(payload)


def test_another_schema_version_is_refused():
    record = json.loads(MANIFEST.encode()) | {"schema_version": 2}

    with pytest.raises(DecodeError, match=r"manifest.schema_version: expected a whole number from 1 to 1, found 2"):
        Manifest.decode(json.dumps(record).encode())


def test_a_check_that_was_not_run_stays_so():
    assert Manifest.decode(MANIFEST.encode()).artifacts[0].checks["prediction"] == "not run"


def test_a_release_is_found_by_target_and_runtime():
    assert MANIFEST.release == "digits@2"
    assert MANIFEST.artifact("raspberry-pi-4") is ARTIFACT
    assert MANIFEST.artifact("mcu") is None
    assert MANIFEST.train_graph("onnxruntime") is GRAPH
    assert MANIFEST.train_graph("litert") is None


def test_blobs_are_listed_once():
    assert [blob.sha256[0] for blob in MANIFEST.blobs()] == ["0", "b", "7", "8", "c", "d"]
    twice = Manifest.decode(MANIFEST.encode().replace(b"d" * 64, BLOB.sha256.encode()).replace(b":700", b":1234"))
    assert [blob.sha256[0] for blob in twice.blobs()] == ["0", "b", "7", "8", "c"]


def test_target_paths_are_by_name_and_number():
    assert parse_release_id("digits@12") == ("digits", 12)
    assert manifest_path("digits@12") == "digits/12/manifest.json"
    assert blob_path("digits@12", "a" * 64) == "digits/12/" + "a" * 64


@pytest.mark.parametrize(
    "release", ["", "digits", "digits@0", "digits@01", "Digits@1", "../x@1", "digits@1\n", "a@1234567890"]
)
def test_what_is_no_release_id_is_refused(release):
    with pytest.raises(ValueError, match="expected a release like digits@1"):
        parse_release_id(release)


STREAMING = replace(
    MANIFEST,
    model_schema=STREAMING_SCHEMA,
    artifacts=(
        replace(
            ARTIFACT,
            inputs=(
                Tensor("frame", "args_0", (1, 16), "int8", 0.5, 3),
                Tensor("h", "args_1", (2, 1, 128), "int8", 0.25, 7),
            ),
            outputs=(
                Tensor("probabilities", "output_0", (1, 2), "int8", 0.5, 3),
                Tensor("h_next", "output_1", (2, 1, 128), "int8", 0.25, 7),
            ),
        ),
    ),
)


def test_a_manifest_names_the_pairs_of_state_and_survives_the_wire():
    assert json.loads(STREAMING.encode())["model_schema"]["state"] == {"h": "h_next"}
    assert Manifest.decode(STREAMING.encode()) == STREAMING


def test_a_manifest_without_state_has_no_word_of_it():
    assert "state" not in json.loads(MANIFEST.encode())["model_schema"]


@pytest.mark.parametrize(
    ("changes", "expected", "found"),
    [
        ({"dtype": "int16"}, "one shape and one dtype at both ends", r"int8\[2, 1, 128\] as h and int16\[2, 1, 128\]"),
        ({"shape": (1, 2, 128)}, "one shape and one dtype at both ends of a state", r"int8\[1, 2, 128\] as h_next"),
        ({"name": "other"}, "both ends of each state among its tensors", "not h and h_next"),
    ],
)
def test_an_artifact_whose_ends_of_a_state_differ_is_refused(changes, expected, found):
    (artifact,) = STREAMING.artifacts
    probabilities, state = artifact.outputs
    changed = replace(artifact, outputs=(probabilities, replace(state, **changes)))

    with pytest.raises(DecodeError, match=rf"manifest.artifacts\[raspberry-pi-4\]: expected {expected}.*{found}"):
        Manifest.decode(replace(STREAMING, artifacts=(changed,)).encode())


def test_a_batch_that_one_end_of_a_state_leaves_open_is_the_one_of_the_other():
    (artifact,) = STREAMING.artifacts
    frame, state = artifact.inputs
    artifact = replace(artifact, inputs=(frame, replace(state, shape=(2, -1, 128))))

    assert artifact.state_misfit({"h": "h_next"}) is None


def of_before(**schema):
    """Return a manifest as it was signed when models gave classes and nothing else."""
    record = json.loads(MANIFEST.encode())
    del record["model_schema"]["answers"]
    record["model_schema"]["labels"] = ["zero", "one", "two"]
    record["model_schema"] |= schema
    (graph,) = record["train_graphs"]
    del graph["targets"]
    graph["labels"] = Tensor("labels", "labels", (16,), "int64").to_record()
    return json.dumps(record).encode()


def test_a_manifest_that_names_only_labels_is_one_of_classes():
    manifest = Manifest.decode(of_before())

    assert manifest.model_schema == SCHEMA
    assert manifest.train_graphs[0].targets == (Tensor("probabilities", "labels", (16,), "int64"),)
    assert replace(manifest, train_graphs=MANIFEST.train_graphs) == MANIFEST


def test_a_manifest_of_before_whose_output_has_no_bounds_gave_logits_as_they_are():
    output = {**SCHEMA.outputs[0].to_record(), "minimum": None, "maximum": None}

    found = Manifest.decode(of_before(outputs=[output])).model_schema.answers

    assert found == Outputs.of(Classes(("zero", "one", "two"), softmax=False))


@pytest.mark.parametrize("schema", [{"labels": []}, {"outputs": [TensorSpec("boxes", (3,)).to_record()]}])
def test_of_a_manifest_of_before_without_classes_nobody_has_said_what_it_gives(schema):
    assert Manifest.decode(of_before(**schema)).model_schema.answers == NO_OUTPUTS


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (["no", "yes"], r"classes of the shape \[2\] in probabilities, found \[3\]"),
        (["a", "a", "b"], "compile the release again"),
        ([1, 2, 3], "strings of at most 256"),
    ],
)
def test_a_manifest_of_before_whose_labels_fit_nothing_is_refused(labels, said):
    with pytest.raises(DecodeError, match=said):
        Manifest.decode(of_before(labels=labels))
