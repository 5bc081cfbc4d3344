"""How long work says how far it is. The work calls; whoever started it draws a bar, prints lines or does nothing."""

from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Progress", "Report", "silent"]


@dataclass(frozen=True, slots=True)
class Progress:
    """One step forward.

    Attributes:
        work: What is being done; the same text while it is the same bar, such as ``compile raspberry-pi-4``.
        done, total: In any unit; ``done == total`` ends the bar.
        note: What just happened, such as ``accuracy 0.962``.
    """

    work: str
    done: float
    total: float
    note: str = ""


Report = Callable[[Progress], None]


def silent(_progress: Progress) -> None:
    """Draw nothing."""
