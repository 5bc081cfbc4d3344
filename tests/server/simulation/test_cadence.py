"""A simulation saves by rounds or by time, and never for more than a small part of it."""

from hedgerow.server.simulation.cadence import CheckpointCadence


class Clock:
    def __init__(self):
        self.now_s = 100.0

    def __call__(self):
        return self.now_s


def test_every_so_many_rounds():
    cadence = CheckpointCadence(3, Clock())

    assert [number for number in range(1, 10) if cadence.is_due(number)] == [3, 6, 9]


def test_ten_seconds_apart_or_more_when_saving_is_slow():
    clock = Clock()
    cadence = CheckpointCadence(None, clock)
    assert not cadence.is_due(1)
    clock.now_s += 10
    assert cadence.is_due(2)

    with cadence.saving():
        clock.now_s += 2

    clock.now_s += 39
    assert not cadence.is_due(3)
    clock.now_s += 1
    assert cadence.is_due(4)
