"""How long work says how far it is. The work calls; whoever started it draws bars, prints lines or does nothing.

This is the pure part: what is said and when. :mod:`hedgerow.progress_display` shows it.
"""

from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Progress", "ProgressLines", "ProgressRecorder", "Report", "describe", "silent"]


@dataclass(frozen=True, slots=True)
class Progress:
    """One step forward.

    Attributes:
        work: What is being done; the same text while it is the same bar, such as ``compile raspberry-pi-4``.
        done, total: Amounts; ``done == total`` ends the bar. A *total* of 0: nobody knows how much it will be.
        note: What just happened, such as ``accuracy 0.962``.
        unit: The unit of *done* and *total*, such as ``MB``; empty for counts.
    """

    work: str
    done: float
    total: float
    note: str = ""
    unit: str = ""

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to do."""
        return 0 < self.total <= self.done


Report = Callable[[Progress], None]


def silent(_progress: Progress) -> None:
    """Draw nothing."""


class ProgressRecorder:
    """A report that keeps what it was told, for tests.

    Attributes:
        steps: Every step, in order.
    """

    def __init__(self) -> None:
        self.steps: list[Progress] = []

    def __call__(self, progress: Progress) -> None:
        """Keep *progress*."""
        self.steps.append(progress)


def describe(progress: Progress, elapsed_s: float) -> str:
    """Return *progress* as one line, such as ``train digits: 3 of 20, accuracy 0.91 (12 s)``."""
    amount = _number(progress.done)
    if progress.total > 0:
        amount += f" of {_number(progress.total)}"
    parts = [f"{amount} {progress.unit}".rstrip(), progress.note]
    return f"{progress.work}: {', '.join(part for part in parts if part)} ({elapsed_s:.0f} s)"


def _number(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.1f}"


class ProgressLines:
    """Decides which steps become lines where there is no terminal: few enough to read, often enough to see life.

    The end of every work is said; before it, one line every few seconds, of whatever moved last, also when nothing
    moved. Pure: time is given.

    Args:
        every_s: Seconds from one line to the next, and from the first step to the first line; what is over sooner says
            its end alone.
    """

    def __init__(self, every_s: float = 5.0) -> None:
        self._every_s = every_s
        self._open: dict[str, tuple[Progress, float]] = {}
        self._due_s: float | None = None

    def step(self, progress: Progress, now_s: float) -> str | None:
        """Take a step; return the line to write, if one is due.

        Args:
            progress: The step.
            now_s: Seconds of any clock that only goes forward.
        """
        if self._due_s is None:
            self._due_s = now_s + self._every_s
        _before, begun_s = self._open.pop(progress.work, (progress, now_s))
        if progress.is_over:
            return self._say(progress, begun_s, now_s)
        # Put last, so that the last one is what moved last.
        self._open[progress.work] = (progress, begun_s)
        return self.tick(now_s)

    def tick(self, now_s: float) -> str | None:
        """Return the line to write when nothing was said for a while and work goes on."""
        if not self._open or self._due_s is None or now_s < self._due_s:
            return None
        progress, begun_s = next(reversed(self._open.values()))
        return self._say(progress, begun_s, now_s)

    def _say(self, progress: Progress, begun_s: float, now_s: float) -> str:
        self._due_s = now_s + self._every_s
        return describe(progress, now_s - begun_s)
