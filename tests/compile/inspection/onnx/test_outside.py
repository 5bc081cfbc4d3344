"""Weights beside an ONNX file are taken into it, and nothing else is read."""

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
from onnx import external_data_helper  # noqa: E402 - needs onnx

from hedgerow.compile.inspection.onnx.outside import inlined  # noqa: E402
from hedgerow.errors import DecodeError  # noqa: E402
from tests.compile.inspection.onnx.files import BIAS, CONV, RELU, WEIGHT, convolution  # noqa: E402

pytestmark = pytest.mark.heavy


@pytest.fixture
def split(tmp_path):
    """A file whose weights stand in ``w.data``, as onnx itself writes it."""
    model = onnx.load_model_from_string(convolution([CONV, RELU], {"w": WEIGHT, "b": BIAS}))
    onnx.save_model(model, tmp_path / "m.onnx", save_as_external_data=True, location="w.data", size_threshold=0)
    return tmp_path / "m.onnx"


def renamed(content: bytes, **entries: str) -> bytes:
    model = onnx.load_model_from_string(content)
    [tensor, *_] = [each for each in model.graph.initializer if external_data_helper.uses_external_data(each)]
    found = {entry.key: entry.value for entry in tensor.external_data} | entries
    del tensor.external_data[:]
    for key, value in found.items():
        tensor.external_data.add(key=key, value=value)
    return model.SerializeToString()


def test_the_weights_are_those_that_onnx_itself_loads(split):
    found = onnx.load_model_from_string(inlined(split.read_bytes(), split.parent))
    arrays = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in found.graph.initializer}
    assert sorted(arrays) == ["b", "w"]
    assert np.array_equal(arrays["w"], WEIGHT)
    assert np.array_equal(arrays["b"], BIAS)


def test_a_file_that_is_not_there_is_named(split):
    (split.parent / "w.data").unlink()
    with pytest.raises(DecodeError, match=r"the file 'w\.data' with weights beside the model, found none"):
        inlined(split.read_bytes(), split.parent)


@pytest.mark.parametrize("location", ["../w.data", "/etc/hostname", ""])
def test_no_file_outside_the_folder_is_read(location, split, tmp_path):
    inner = tmp_path / "inner"
    inner.mkdir()
    with pytest.raises(DecodeError, match="in a file beside the model"):
        inlined(renamed(split.read_bytes(), location=location), inner)


def test_a_link_out_of_the_folder_is_not_followed(split, tmp_path):
    inner = tmp_path / "inner"
    inner.mkdir()
    (inner / "w.data").symlink_to(tmp_path / "w.data")
    with pytest.raises(DecodeError, match="in a file beside the model"):
        inlined(split.read_bytes(), inner)


@pytest.mark.parametrize("entries", [{"length": "99999"}, {"offset": "99999"}])
def test_a_file_that_is_too_short_is_refused(entries, split):
    with pytest.raises(DecodeError, match=r"found a file of \d+ bytes"):
        inlined(renamed(split.read_bytes(), **entries), split.parent)


@pytest.mark.parametrize("entries", [{"length": "-1"}, {"offset": "x"}, {"length": "1" * 40}])
def test_what_is_no_number_is_refused(entries, split):
    with pytest.raises(DecodeError, match="a number of bytes as"):
        inlined(renamed(split.read_bytes(), **entries), split.parent)
