"""A manifest is what it was after a journey, and nothing else is taken for one."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgerow.errors import DecodeError
from hedgerow.manifest.release import Manifest, blob_path, manifest_path, parse_release_id
from tests.root.documents import ARTIFACT, BLOB, GRAPH, MANIFEST, damaged


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
