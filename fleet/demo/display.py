"""What a person sees while the demo works: the steps, and a bar for each long piece of work. All of it on stderr."""

import threading
import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

from hedgerow.progress import Progress

if TYPE_CHECKING:
    from rich.progress import TaskID

__all__ = ["Display"]


class Display:
    """Bars and lines. On a terminal the bars move; elsewhere each step and each finished bar is one line.

    Safe to call from any thread.
    """

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bars

        self._console = Console(stderr=True, highlight=False)
        self._bars = Bars(
            SpinnerColumn(finished_text="[green]ok[/green]"),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[note]}", style="dim"),
            TimeElapsedColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._lock = threading.Lock()
        self._open: dict[str, TaskID] = {}
        self._started = time.monotonic()

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def step(self, text: str) -> None:
        """Print a headline."""
        self._console.print(f"[bold]{time.monotonic() - self._started:6.1f} s  {text}[/bold]", soft_wrap=True)

    def say(self, text: str) -> None:
        """Print a line below the headline."""
        self._console.print(f"          {text}", soft_wrap=True)

    def report(self, progress: Progress) -> None:
        """Move the bar of one piece of work; a finished one leaves its note as a line."""
        with self._lock:
            bar = self._open.get(progress.work)
            if bar is None:
                bar = self._bars.add_task(progress.work, total=progress.total, note="")
                self._open[progress.work] = bar
            self._bars.update(bar, completed=progress.done, total=progress.total, note=progress.note)
            if progress.done >= progress.total:
                del self._open[progress.work]
                self._bars.remove_task(bar)
                if progress.note:
                    self.say(f"{progress.work}: {progress.note}")
