"""How a child process ended, as a value."""

import signal
from dataclasses import dataclass

__all__ = ["Ended", "signal_name"]

_LINE_CHARS = 300


def signal_name(number: int) -> str:
    """Return the name of a signal, such as ``SIGSEGV``; ``signal 64`` where it has none."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """What is known of a process that has ended, or was ended.

    Attributes:
        name: What the process is, for people.
        code: Exit code, negative for a signal, as ``subprocess`` has it; None: nobody can tell, for it does not even go
            by SIGKILL (it hangs in a driver), or somebody else has waited for it.
        doing: What it said last that it does; empty: nothing.
        last_lines: The end of what it printed, without empty lines.
        timed_out: Whether its time was over; then it was killed, and *code* says nothing.
        had_closed: Whether it had closed its side of the channel by then.
        nonsense: Why what it sent is no message; empty: all were messages.
    """

    name: str
    code: int | None
    doing: str = ""
    last_lines: tuple[str, ...] = ()
    timed_out: bool = False
    had_closed: bool = False
    nonsense: str = ""

    @property
    def signal_name(self) -> str:
        """Name of the signal that ended it; empty: none did."""
        return signal_name(-self.code) if self.code is not None and self.code < 0 else ""

    @property
    def last_line(self) -> str:
        """The last line that it printed, at most 300 characters of it; empty: nothing."""
        return self.last_lines[-1][:_LINE_CHARS] if self.last_lines else ""
