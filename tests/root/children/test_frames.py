"""Tests of hedgerow.children.frames."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgerow.children.frames import Frames, encode_frame
from hedgerow.errors import DecodeError

LIMIT = 64


@given(st.lists(st.binary(max_size=LIMIT), max_size=8), st.data())
def test_what_was_sent_comes_out_however_the_stream_is_cut(messages, data):
    stream = b"".join(encode_frame(message, limit_bytes=LIMIT) for message in messages)
    frames, found = Frames(LIMIT), []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        found += frames.feed(stream[:size])
        stream = stream[size:]
    assert found == messages


@given(st.binary(max_size=200))
def test_any_bytes_are_messages_and_at_most_one_refusal(stream):
    frames, found, refusals = Frames(LIMIT), [], []
    for chunk in (stream, b"", encode_frame(b"later", limit_bytes=LIMIT), b""):
        try:
            found += frames.feed(chunk)
        except DecodeError as exc:
            refusals.append(str(exc))
    assert len(refusals) <= 1
    assert all("at most 64 bytes" in refusal for refusal in refusals)
    sent = b"".join(encode_frame(message, limit_bytes=LIMIT) for message in found)
    whole = stream + (b"" if refusals else encode_frame(b"later", limit_bytes=LIMIT))
    assert whole.startswith(sent)


def test_a_message_at_the_bound_passes_and_one_beyond_is_refused_by_its_length_alone():
    assert Frames(LIMIT).feed(encode_frame(b"x" * LIMIT, limit_bytes=LIMIT)) == [b"x" * LIMIT]
    with pytest.raises(DecodeError, match="at most 64 bytes, found 65 bytes"):
        Frames(LIMIT).feed(struct.pack(">Q", LIMIT + 1))
    with pytest.raises(ValueError, match="has 65 bytes; its channel takes 64"):
        encode_frame(b"x" * (LIMIT + 1), limit_bytes=LIMIT)


def test_what_came_before_a_message_that_is_too_long_is_not_lost():
    frames = Frames(LIMIT)
    assert frames.feed(encode_frame(b"first", limit_bytes=LIMIT) + struct.pack(">Q", 2**63)) == [b"first"]
    with pytest.raises(DecodeError, match="found 9223372036854775808 bytes"):
        frames.feed(b"")
    assert frames.feed(encode_frame(b"later", limit_bytes=LIMIT)) == []
