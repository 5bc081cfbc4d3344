"""When a simulation saves where it stands: often enough for a kill, seldom enough to cost nothing."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["CheckpointCadence"]

_INTERVAL_S = 10.0
_SAVING_SHARE = 20
"""Saving takes at most one part in so many of a run's time."""


class CheckpointCadence:
    """Says after which rounds to save.

    Args:
        every: Rounds from one checkpoint to the next; None: ten seconds or more, so that saving stays cheap.
        now: Clock in seconds.
    """

    def __init__(self, every: int | None, now: Callable[[], float] = time.monotonic) -> None:
        self._every, self._now = every, now
        self._saved_at, self._cost_s = now(), 0.0

    def is_due(self, number: int) -> bool:
        """Tell whether to save after round *number*."""
        if self._every is not None:
            return number % self._every == 0
        return self._now() - self._saved_at >= max(_INTERVAL_S, _SAVING_SHARE * self._cost_s)

    @contextmanager
    def saving(self) -> Iterator[None]:
        """Measure what the block, which saves, costs."""
        began = self._now()
        yield
        self._saved_at = self._now()
        self._cost_s = self._saved_at - began
