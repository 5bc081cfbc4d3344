"""Tests of hedgerow.server.errors: one sentence of what was expected, what was found and what to do."""

from pathlib import Path

import pytest

from hedgerow.errors import HedgerowError
from hedgerow.server.errors import (
    FlowerVersionError,
    LocalTermError,
    NotEnoughDevicesError,
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
        RoundFailedError(4, {"b": "late", "a": "battery is low"}),
        RoundFailedError(4, {}),
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


def test_a_failed_round_names_the_first_reason():
    assert "a said: battery is low" in str(RoundFailedError(4, {"b": "late", "a": "battery is low"}))
