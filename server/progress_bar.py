"""The progress bar of this folder's commands. Rich is imported on use."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hedgerow.progress import Progress, Report, silent

__all__ = ["progress_bar"]


@contextmanager
def progress_bar(*, quiet: bool) -> Iterator[Report]:
    """Draw one bar for each kind of work on stderr, as long as the block lasts.

    Args:
        quiet: Draw nothing.
    """
    if quiet:
        yield silent
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    columns = [
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
    ]
    bars = Bars(*columns, console=Console(stderr=True))
    drawn: dict[str, Any] = {}

    def show(progress: Progress) -> None:
        if progress.work not in drawn:
            bars.start()
            drawn[progress.work] = bars.add_task(progress.work, total=progress.total, note="")
        bars.update(drawn[progress.work], completed=progress.done, total=progress.total, note=progress.note)

    try:
        yield show
    finally:
        if drawn:
            bars.stop()
