"""Tests of hedgerow.children.ended."""

import dataclasses

import pytest

from hedgerow.children.ended import Ended, signal_name


@pytest.mark.parametrize(
    ("code", "name"), [(0, ""), (3, ""), (None, ""), (-11, "SIGSEGV"), (-9, "SIGKILL"), (-63, "signal 63")]
)
def test_a_signal_is_named(code, name):
    assert Ended(name="x", code=code).signal_name == name


def test_signals_without_a_name_have_their_number():
    assert [signal_name(number) for number in (6, 50, 1000)] == ["SIGABRT", "signal 50", "signal 1000"]


def test_the_last_line_is_bounded_and_may_be_absent():
    assert Ended(name="x", code=0).last_line == ""
    assert Ended(name="x", code=0, last_lines=("a", "b" * 301)).last_line == "b" * 300


def test_an_end_is_a_value():
    one = Ended(name="x", code=-6, doing="loading", last_lines=("a",), timed_out=True)
    assert one == Ended(name="x", code=-6, doing="loading", last_lines=("a",), timed_out=True)
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.code = 0
