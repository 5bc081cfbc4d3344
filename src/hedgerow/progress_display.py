"""The one display of progress, on the standard error: bars on a terminal, lines elsewhere, and lines of a log.

Every command that takes a while uses it. What is said and when is in :mod:`hedgerow.progress`.
"""

import logging
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TextIO

from hedgerow.closing import Closing
from hedgerow.installation import is_installed
from hedgerow.progress import Progress, ProgressLines, Report, describe

__all__ = ["ProgressDisplay", "progress_log"]

_EVERY_S = 5.0


class ProgressDisplay(Closing):
    """Shows progress as long as its ``with`` block lasts. Safe to call from any thread.

    Nothing is drawn before the first step, so work that says nothing leaves no empty bar. A bar that is full becomes a
    line.

    Args:
        stream: What is written to; None: the standard error, so that the standard output stays a command's result.
        every_s: Seconds from one line to the next where there is no terminal.
        indent: Put before the lines of finished work.
        bars: Whether a terminal gets bars; they need rich, which what is shown may be about to replace.
        clock: Seconds that only go forward.
    """

    def __init__(
        self,
        *,
        stream: TextIO | None = None,
        every_s: float = _EVERY_S,
        indent: str = "",
        bars: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = stream if stream is not None else sys.stderr
        self._every_s, self._indent, self._clock = every_s, indent, clock
        self._lines = ProgressLines(every_s)
        self._lock = threading.Lock()
        self._left = threading.Event()
        self._ticking: threading.Thread | None = None
        self._bars: _Bars | None = None
        if bars and self._stream.isatty() and is_installed("rich"):
            self._bars = _Bars(self._stream, self._clock)

    def close(self) -> None:
        """Take the bars away and say nothing more by itself."""
        self._left.set()
        if self._bars is not None:
            self._bars.stop()
        if self._ticking is not None:
            self._ticking.join()

    def report(self, progress: Progress) -> None:
        """Show a step."""
        with self._lock:
            if self._bars is None:
                self._write(self._lines.step(progress, self._clock()))
                self._keep_ticking()
            elif line := self._bars.step(progress):
                self._bars.print(f"{self._indent}{line}", bold=False)

    def say(self, text: str, *, bold: bool = False) -> None:
        """Write a line, above the bars."""
        with self._lock:
            if self._bars is None:
                self._write(text, indent="")
            else:
                self._bars.print(text, bold=bold)

    def _write(self, line: str | None, indent: str | None = None) -> None:
        if line is not None:
            # Who reads it may be gone; the work goes on.
            with suppress(OSError, ValueError):
                self._stream.write(f"{self._indent if indent is None else indent}{line}\n")
                self._stream.flush()

    def _keep_ticking(self) -> None:
        # From the first step on: before it, work may fork, which wants no other threads.
        if self._ticking is None:
            self._ticking = threading.Thread(target=self._tick, name="progress", daemon=True)
            self._ticking.start()

    def _tick(self) -> None:
        while not self._left.wait(self._every_s / 5):
            with self._lock:
                self._write(self._lines.tick(self._clock()))


class _Bars:
    """Rich's bars, started with the first step."""

    def __init__(self, stream: TextIO, clock: Callable[[], float]) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as RichProgress

        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[said]}", style="dim", markup=False),
            TimeElapsedColumn(),
        )
        self._console = Console(file=stream, highlight=False)
        self._rich = RichProgress(*columns, console=self._console, transient=True)
        self._clock = clock
        self._open: dict[str, tuple[Any, float]] = {}

    def step(self, progress: Progress) -> str | None:
        """Move a bar; return what is to be printed of one that is over."""
        now_s = self._clock()
        bar, begun_s = self._open.get(progress.work, (None, now_s))
        if progress.is_over:
            if bar is not None:
                del self._open[progress.work]
                self._rich.remove_task(bar)
                self._rich.refresh()
            return describe(progress, now_s - begun_s)
        said = describe(progress, 0).removeprefix(f"{progress.work}: ").removesuffix(" (0 s)")
        fields: dict[str, Any] = {"completed": progress.done, "total": progress.total or None, "said": said}
        if bar is None:
            self._rich.start()
            self._open[progress.work] = (self._rich.add_task(progress.work, **fields), begun_s)
        else:
            self._rich.update(bar, **fields)
        return None

    def print(self, text: str, *, bold: bool) -> None:
        """Print above the bars."""
        self._console.print(text, style="bold" if bold else None, markup=False, soft_wrap=True)

    def stop(self) -> None:
        """Take the bars away that are left."""
        self._rich.stop()


def progress_log(
    log: logging.Logger, *, every_s: float = _EVERY_S, clock: Callable[[], float] = time.monotonic
) -> Report:
    """Return a report that writes lines into *log*, for services; may be called from any thread."""
    lines, lock = ProgressLines(every_s), threading.Lock()

    def report(progress: Progress) -> None:
        with lock:
            line = lines.step(progress, clock())
        if line is not None:
            log.info("%s", line)

    return report
