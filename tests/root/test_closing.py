"""Tests of hedgerow.closing."""

import pytest

from hedgerow.closing import Closing


class Door(Closing):
    """Counts how often it was closed."""

    closed = 0

    def close(self) -> None:
        self.closed += 1


def test_the_end_of_a_block_closes_and_hands_out_the_object_itself():
    door = Door()
    with door as held:
        assert held is door
        assert door.closed == 0
    assert door.closed == 1


def test_an_error_closes_and_passes():
    door = Door()
    with pytest.raises(KeyError), door:
        raise KeyError
    assert door.closed == 1


def test_what_cannot_be_closed_cannot_be_made():
    with pytest.raises(TypeError, match="close"):
        Closing()
