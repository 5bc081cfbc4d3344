"""Content by hash, and tensors at a file's border."""

from dataclasses import replace

import pytest

from hedgerow.errors import DecodeError
from hedgerow.manifest.release import Manifest
from tests.root.documents import MANIFEST, TENSOR


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
