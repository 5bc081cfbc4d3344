"""Tests of hedgerow.children.channel, both ends in this process."""

import os
import threading

import pytest

from hedgerow.children.channel import channel_pair
from hedgerow.errors import DecodeError

LIMIT = 1000


def test_messages_go_in_both_directions_in_their_order():
    one, other = channel_pair(LIMIT)
    with one, other:
        for message in (b"", b"a", b"b" * LIMIT):
            one.send(message)
        assert [other.receive() for _ in range(3)] == [b"", b"a", b"b" * LIMIT]
        other.send(b"back")
        assert one.receive() == b"back"


def test_what_received_has_read_ahead_is_not_lost_to_take():
    one, other = channel_pair(LIMIT)
    with one, other:
        for message in (b"1", b"2", b"3"):
            one.send(message)
        assert other.receive() == b"1"
        assert other.take() == [b"2", b"3"]


def test_the_end_of_one_side_is_told_to_the_other_after_what_it_said():
    one, other = channel_pair(LIMIT)
    with other:
        one.send(b"last")
        one.close()
        assert other.receive() == b"last"
        assert other.receive() is None
        assert other.take() is None
        other.send(b"nobody hears this")  # and nobody fails for it


def test_an_end_that_left_something_unread_is_an_end():
    one, other = channel_pair(LIMIT)
    with other:
        other.send(b"unread")
        one.close()
        assert other.receive() is None


def test_a_message_that_is_too_long_is_refused_on_both_sides():
    one, other = channel_pair(LIMIT)
    with one, other:
        with pytest.raises(ValueError, match="takes 1000"):
            one.send(b"x" * (LIMIT + 1))
        os.write(one.fileno(), (LIMIT + 1).to_bytes(8, "big"))
        with pytest.raises(DecodeError, match="at most 1000 bytes, found 1001 bytes"):
            other.receive()
        one.send(b"later")
        assert other.take() == []


def test_what_came_before_what_is_no_message_is_heard_and_the_rest_is_refused_once():
    one, other = channel_pair(LIMIT)
    with other:
        one.send(b"step")
        os.write(one.fileno(), b'{"garbage": 1}\n')
        one.close()
        assert other.take() == [b"step"]
        with pytest.raises(DecodeError, match="at most 1000 bytes"):
            other.take()
        assert other.take() is None


def test_waiting_has_an_end_in_both_directions():
    one, other = channel_pair(2**26)
    with one, other:
        with pytest.raises(TimeoutError):
            other.receive(0.01)
        with pytest.raises(TimeoutError):
            one.send(bytes(2**26), 0.01)


def test_a_message_far_larger_than_the_systems_buffer_comes_whole():
    one, other = channel_pair(2**26)
    message = os.urandom(2**16) * 2**8
    with one, other:
        sender = threading.Thread(target=one.send, args=(message,))
        sender.start()
        assert other.receive() == message
        sender.join()


def test_closing_twice_is_harmless():
    one, other = channel_pair(LIMIT)
    for _time in range(2):
        one.close()
        other.close()
