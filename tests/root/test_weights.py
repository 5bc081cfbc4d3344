"""Arrays survive the journey bit for bit; damaged bytes are refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hedgerow.errors import DecodeError
from hedgerow.weights import check_same_arrays, decode_arrays, encode_arrays

ARRAYS = {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.array([1, 2], np.int64)}

DTYPES = st.sampled_from([np.float32, np.float64, np.float16, np.int64, np.int32, np.int8, np.uint8, np.bool_])
ANY_ARRAYS = st.dictionaries(
    st.text(min_size=1, max_size=8).filter(lambda name: name != "__metadata__"),
    DTYPES.flatmap(lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, min_side=0, max_side=4))),
    max_size=4,
)


def decode(payload: bytes) -> dict:
    return decode_arrays(payload, "weights", limit_bytes=10**6)


@given(ANY_ARRAYS)
def test_arrays_of_any_shape_come_back_bit_for_bit(arrays):
    decoded = decode(encode_arrays(arrays))

    assert set(decoded) == set(arrays)
    for name, array in arrays.items():
        assert (decoded[name].dtype, decoded[name].shape) == (array.dtype, array.shape)
        assert decoded[name].tobytes() == array.tobytes()


def test_a_scalar_stays_a_scalar():
    assert decode(encode_arrays({"steps": np.array(7)}))["steps"].shape == ()


def test_an_array_that_is_a_view_is_written_as_what_it_shows():
    array = np.arange(6, dtype=np.float32).reshape(2, 3).T[::-1]

    assert (decode(encode_arrays({"a": array}))["a"] == array).all()


def test_the_order_of_names_does_not_matter():
    assert encode_arrays(ARRAYS) == encode_arrays(dict(reversed(ARRAYS.items())))


@given(ANY_ARRAYS)
def test_arrays_are_decoded_in_the_order_of_their_names(arrays):
    decoded = decode(encode_arrays(dict(reversed(arrays.items()))))

    assert list(decoded) == sorted(arrays)


@given(st.binary(max_size=64))
def test_arbitrary_bytes_are_refused(payload):
    with pytest.raises(DecodeError):
        decode(payload)


@given(st.data())
def test_damaged_bytes_are_arrays_or_refused(data):
    payload = bytearray(encode_arrays(ARRAYS))
    for _ in range(data.draw(st.integers(1, 3))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    try:
        decode(bytes(payload[: data.draw(st.integers(0, len(payload)))]))
    except DecodeError:
        return


@pytest.mark.parametrize("dtype", ["F8_E4M3", "BF16", "F4", "C64", "nonsense"])
def test_a_dtype_that_numpy_lacks_is_refused_or_read(dtype):
    payload = encode_arrays(ARRAYS)
    length = int.from_bytes(payload[:8], "little")
    header = payload[8 : 8 + length].replace(b"I64", dtype.encode()).rstrip()
    try:
        decode(len(header).to_bytes(8, "little") + header + payload[8 + length :])
    except DecodeError:
        return


def test_a_payload_above_the_limit_is_refused_unread():
    with pytest.raises(DecodeError, match="weights: expected at most 10 bytes, found 11 bytes"):
        decode_arrays(b"x" * 11, "weights", limit_bytes=10)


def test_the_same_arrays_pass():
    check_same_arrays({name: array + 1 for name, array in ARRAYS.items()}, ARRAYS, "update")


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({"w": ARRAYS["w"]}, r"missing \['b'\], unknown \[\]"),
        ({**ARRAYS, "x": ARRAYS["b"]}, r"missing \[\], unknown \['x'\]"),
        ({**ARRAYS, "w": ARRAYS["w"].T}, r"update.w: expected float32\(2, 3\), found float32\(3, 2\)"),
        ({**ARRAYS, "w": ARRAYS["w"].astype(np.float64)}, r"update.w: expected float32"),
        ({**ARRAYS, "w": np.full((2, 3), np.nan, np.float32)}, r"update.w: expected finite numbers"),
        ({**ARRAYS, "w": np.full((2, 3), np.inf, np.float32)}, r"update.w: expected finite numbers"),
    ],
)
def test_other_arrays_are_refused(arrays, sentence):
    with pytest.raises(DecodeError, match=sentence):
        check_same_arrays(arrays, ARRAYS, "update")
