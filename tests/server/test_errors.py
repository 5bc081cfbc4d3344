"""Tests of hedgerow.server.errors: one sentence of what was expected, what was found and what to do."""

from pathlib import Path

import pytest

from hedgerow.errors import HedgerowError
from hedgerow.server.errors import (
    FlowerVersionError,
    LocalTermError,
    NotEnoughDevicesError,
    NoUpdateError,
    RoundFailedError,
    RunFolderError,
    RunMismatchError,
)


@pytest.mark.parametrize(
    "error",
    [
        FlowerVersionError("1.43.0", ("1.41", "1.42")),
        LocalTermError("proximal-mu", 0.1),
        NotEnoughDevicesError(3, 1, 60.0),
        RoundFailedError(4, {"b": "late"}, "NaN"),
        NoUpdateError(4, 2, {"b": "late", "a": "battery is low"}, {"late": 1, "declined": 1}),
        NoUpdateError(4, 1, {}, {}),
        RunFolderError(Path("run"), "a folder", "a file", "choose another"),
        RunMismatchError(Path("run"), {"seed": (0, 1)}),
    ],
)
def test_a_message_is_one_sentence_in_three_parts(error):
    assert isinstance(error, HedgerowError)
    assert "expected " in str(error)
    assert "found " in str(error)
    assert ";" in str(error)
    assert "\n" not in str(error)


def test_a_run_without_updates_counts_the_reasons_by_kind_and_names_the_first():
    error = NoUpdateError(4, 2, {"b": "no answer", "a": "battery is low"}, {"late": 1200, "declined": 1})
    assert "round 4" in str(error)
    assert "none in the last 2 rounds (1,200 late, 1 declined; a: battery is low)" in str(error)
    assert error.to_record() == {"error": str(error), "round": 4, "refused": {"late": 1200, "declined": 1}}
