"""Tests of hedgerow.children.conversation: one request to processes that die, hang and lie."""

import signal
import time

import pytest

from hedgerow.children.conversation import converse
from hedgerow.children.output import OutputFile, OutputTail
from tests.processes import wait_until_gone
from tests.root.children.talking import talker

pytestmark = pytest.mark.usefixtures("nothing_left")


def talk(what, request=b"hello", *, timeout_s=60.0, output=None, limit_bytes=2**20, **more):
    heard = []
    child = talker(what, output=output or OutputTail(), limit_bytes=limit_bytes)
    return heard, converse(child, request, heard.append, timeout_s=timeout_s, **more)


def test_a_child_that_answers_and_leaves():
    heard, ended = talk("leave_a_child_behind")
    assert (len(heard), ended.code, ended.timed_out, ended.nonsense) == (1, 0, False, "")
    wait_until_gone(int(heard[0]))


@pytest.mark.parametrize("output", [OutputTail, OutputFile])
@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL, signal.SIGKILL])
def test_a_child_that_a_signal_ends_is_a_value_with_its_name_and_last_words(number, output):
    heard, ended = talk("die", str(int(number)).encode(), output=output())
    assert heard == [b"working"]
    assert (ended.name, ended.signal_name, ended.last_lines) == ("die", number.name, ("double free",))
    assert not ended.timed_out


def test_a_child_that_leaves_without_an_answer():
    heard, ended = talk("leave", b"3")
    assert heard == []
    assert (ended.code, ended.last_lines) == (3, ("line 2", "line 3", "so long"))


@pytest.mark.parametrize("what", ["say_nothing", "read_nothing"])
def test_a_child_that_never_answers_is_ended_in_time(what):
    heard, ended = talk(what, b"x" * 2**22, timeout_s=0.3, limit_bytes=2**22)
    assert (heard, ended.timed_out, ended.had_closed) == ([], True, False)


def test_a_child_that_answers_and_does_not_end_is_ended():
    heard, ended = talk("hang_after_the_answer", end_timeout_s=0.2)
    assert (heard, ended.timed_out, ended.had_closed) == ([b"hello"], True, True)


def test_what_is_no_message_is_told_with_how_the_child_ended():
    heard, ended = talk("garbage")
    assert (heard, ended.code, ended.timed_out) == ([], 0, False)
    assert "at most 1048576 bytes" in ended.nonsense


def test_half_a_message_is_none():
    heard, ended = talk("half_a_message")
    assert (heard, ended.code, ended.nonsense) == ([], 0, "")


@pytest.mark.parametrize("output", [OutputTail, OutputFile])
def test_talking_without_end_does_not_matter(output):
    heard, ended = talk("chatter", output=output())
    assert heard == [b"hello"]
    assert (ended.code, ended.last_lines[-1]) == (0, "the last word")


def test_what_is_raised_while_listening_ends_the_child():
    child = talker("wait_for_ever")

    def hear(message):
        raise KeyError(int(message))

    with pytest.raises(KeyError) as caught:
        converse(child, b"", hear, timeout_s=60)
    wait_until_gone(caught.value.args[0])


def test_whoever_looks_can_stop_it():
    looks = []

    def look():
        looks.append(time.monotonic())
        if len(looks) == 3:
            raise InterruptedError

    child = talker("say_nothing")
    with pytest.raises(InterruptedError):
        converse(child, b"", looks.append, timeout_s=60, look=look)
    assert child.end().signal_name == "SIGKILL"
    assert len(looks) == 3


def test_what_a_child_does_is_in_its_end():
    child = talker("die", output=OutputTail())

    def hear(message):
        child.doing = message.decode()

    assert converse(child, b"11", hear, timeout_s=60).doing == "working"
