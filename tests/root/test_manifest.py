"""A manifest is what it was after a journey, and nothing else is taken for one."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgerow.errors import DecodeError
from hedgerow.manifest import Extra, Manifest, Tensor, blob_path, manifest_path, parse_release_id
from tests.root.documents import ARTIFACT, BLOB, GRAPH, MANIFEST, TENSOR, damaged


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
    assert [blob.sha256[0] for blob in MANIFEST.blobs()] == ["0", "b", "c", "d"]
    twice = Manifest.decode(MANIFEST.encode().replace(b"d" * 64, BLOB.sha256.encode()).replace(b":700", b":1234"))
    assert [blob.sha256[0] for blob in twice.blobs()] == ["0", "b", "c"]


MOMENTUM = Extra(kind="state", tensor=Tensor("momentum:w", "m", (4,), "float32"), updated="m_after")
ANCHOR = Extra(kind="anchor", tensor=Tensor("anchor:w", "a", (4,), "float32"), parameter="net.0.weight")
MASK = Extra(kind="mask", tensor=Tensor("mask:0", "k", (16, 4), "float32"), keep=0.75)


def with_extras(*extras):
    return replace(MANIFEST, train_graphs=(replace(GRAPH, extras=extras),))


def test_extra_inputs_of_a_train_graph_survive_the_wire_and_a_plain_graph_does_not_name_them():
    manifest = with_extras(MOMENTUM, ANCHOR, MASK)
    assert Manifest.decode(manifest.encode()) == manifest
    assert MOMENTUM.output == Tensor("momentum:w", "m_after", (4,), "float32")
    assert MASK.output is None
    assert b"extras" not in MANIFEST.encode()


@pytest.mark.parametrize(
    "extra",
    [
        replace(MOMENTUM, updated=None),
        replace(MOMENTUM, kind="gradient"),
        replace(ANCHOR, parameter=None),
        replace(MASK, keep=1.5),
        replace(MASK, tensor=replace(MASK.tensor, name="net.0.weight")),
    ],
)
def test_extra_inputs_that_fit_nothing_are_refused(extra):
    with pytest.raises(DecodeError, match="extras"):
        Manifest.decode(with_extras(extra).encode())


def with_input(**changes):
    artifact = MANIFEST.artifacts[0]
    return replace(MANIFEST, artifacts=(replace(artifact, inputs=(replace(TENSOR, **changes),)),))


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32"])
@pytest.mark.parametrize("scale", [2.0**-149, 0.5, 3.4028234663852886e38])
def test_a_quantized_tensor_survives_the_wire(dtype, scale):
    manifest = with_input(dtype=dtype, scale=scale, zero_point=-(2**31))
    assert Manifest.decode(manifest.encode()) == manifest


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"dtype": "float32"}, "dtype"),
        ({"dtype": "int64"}, "dtype"),
        ({"scale": 0.0}, "scale"),
        ({"scale": -0.5}, "scale"),
        ({"scale": 2.0**-150}, "scale"),
        ({"scale": 2.0**128}, "scale"),
        ({"zero_point": 2**31}, "zero_point"),
        ({"zero_point": -(2**31) - 1}, "zero_point"),
    ],
)
def test_a_scale_that_no_stored_integer_has_is_refused(changes, named):
    with pytest.raises(DecodeError, match=rf"inputs\[0\]\.{named}: expected"):
        Manifest.decode(with_input(**changes).encode())


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
