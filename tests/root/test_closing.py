"""Tests of hedgerow.closing."""

import pytest

from hedgerow.closing import Closing, Running


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


class Engine(Running):
    """Writes down what happens to it."""

    def __init__(self, fault: Exception | None = None) -> None:
        self.told: list[str] = []
        self.fault = fault

    def start(self):
        self.told.append("start")
        if self.fault is not None:
            raise self.fault
        return self

    def stop(self):
        self.told.append("stop")


def test_what_runs_is_started_and_stopped_with_its_block():
    engine = Engine()
    assert engine.told == []
    with engine as running:
        assert running is engine
        assert engine.told == ["start"]
    assert engine.told == ["start", "stop"]
    engine.close()
    assert engine.told == ["start", "stop", "stop"]


def test_what_runs_is_stopped_when_its_block_raises_and_not_when_it_did_not_start():
    engine, broken = Engine(), Engine(OSError("no port"))
    with pytest.raises(KeyError), engine:
        raise KeyError
    assert engine.told == ["start", "stop"]
    with pytest.raises(OSError, match="no port"), broken:
        pass
    assert broken.told == ["start"]
