import pytest

onnx = pytest.importorskip("onnx")


from hedgerow.compile.inspection.model import read_facts  # noqa: E402
from hedgerow.errors import DecodeError  # noqa: E402
from tests.compile.inspection.onnx.files import product  # noqa: E402

pytestmark = pytest.mark.heavy


def test_a_name_that_is_no_text_is_refused():
    content = product((1, 6)).replace(b"MatMul", b"Mat\xba\xffl")
    with pytest.raises(DecodeError, match="names in UTF-8"):
        read_facts("onnx", content)


@pytest.mark.parametrize("content", [b"", b"\x08\x01", b"not a model at all", b"\xff" * 100])
def test_other_bytes_are_no_onnx_file(content):
    with pytest.raises(DecodeError):
        read_facts("onnx", content)
