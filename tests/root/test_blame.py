"""Whose fault an exception is, by the line that raised it."""

import json
import re

import pytest

from hedgerow.blame import frames, is_ours, is_raised_by_hedgerow, line_of
from hedgerow.manifest.content import Tensor
from hedgerow.tensor_border import from_stored, to_stored
from hedgerow.window import merge_windows


def caught(call, *arguments) -> Exception:
    try:
        call(*arguments)
    except Exception as exc:  # noqa: BLE001 - whatever it is
        return exc
    raise AssertionError("nothing was raised")


def test_a_line_of_ours_is_told_from_a_library_that_it_called():
    assert is_raised_by_hedgerow(caught(merge_windows, 1, 2))
    assert is_raised_by_hedgerow(caught(from_stored, [1], Tensor("x", "x", (1,), "int8", 0.5, None)))
    # numpy's own word for what it was given.
    assert not is_raised_by_hedgerow(caught(to_stored, "text", Tensor("x", "x", (1,), "int8", 0.5)))


@pytest.mark.parametrize(("call", "argument"), [(json.loads, "{"), ([].index, 1), (re.compile, "(")])
def test_what_others_raise_is_not_ours(call, argument):
    assert not is_raised_by_hedgerow(caught(call, argument))


def test_an_exception_that_was_never_raised_is_nobodys():
    assert not is_raised_by_hedgerow(KeyError("x"))


def test_frames_end_with_the_one_that_was_called_last():
    def outer() -> None:
        inner()

    def inner() -> None:
        raise ValueError

    found = [each.tb_frame.f_code.co_name for each in frames(caught(outer).__traceback__)]
    assert found == ["caught", "outer", "inner"]
    assert list(frames(None)) == []


def test_the_line_of_a_users_is_the_last_that_is_neither_ours_nor_a_librarys():
    def users() -> None:
        json.loads("{")

    assert line_of(caught(users)) == f" (test_blame.py, line {users.__code__.co_firstlineno + 1})"
    assert line_of(KeyError("never raised")) == ""


@pytest.mark.parametrize(
    ("module", "ours"), [("hedgerow", True), ("hedgerow.client", True), ("hedgerow_more", False), ("", False)]
)
def test_a_module_is_ours_by_its_first_name(module, ours):
    assert is_ours(module) is ours
