"""Signals that end a command become one exception, which unwinds it from wherever it is, undisturbed.

The first SIGINT, SIGTERM or SIGHUP raises :class:`Interrupted` in the main thread. Those that follow are ignored: an
impatient second Ctrl-C would cut the unwinding short and leave things behind. Python swallows what is raised in
finalizers and callbacks of weak references, and so may other people's code; therefore the exception comes again, at
once where Python tells of it, else every 2 s, until the unwinding has got to :func:`hold_interrupts` or to the end.
"""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from types import FrameType, TracebackType

__all__ = ["Interrupted", "UndisturbedStack", "hold_interrupts", "interruptible"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_AT_ONCE_S, _AGAIN_S = 0.01, 2.0


class Interrupted(KeyboardInterrupt):
    """A signal asked the command to end.

    Libraries let a KeyboardInterrupt pass where they turn every ``Exception`` into a failure of their own.

    Attributes:
        signal_name: Such as ``SIGTERM``.
    """

    def __init__(self, signal_name: str) -> None:
        super().__init__(signal_name)
        self.signal_name = signal_name


class _Stop:
    """The signal handler."""

    def __init__(self) -> None:
        self.first = ""

    def __call__(self, number: int, _frame: FrameType | None) -> None:
        if number != signal.SIGALRM:
            if self.first:
                return
            self.first = signal.Signals(number).name
            # Only now: until then the alarm may be somebody else's.
            signal.signal(signal.SIGALRM, self)
            signal.setitimer(signal.ITIMER_REAL, _AGAIN_S, _AGAIN_S)
        raise Interrupted(self.first)

    def notice(self, swallowed: "sys.UnraisableHookArgs") -> None:
        """Take the place of ``sys.unraisablehook``."""
        if isinstance(swallowed.exc_value, Interrupted):
            signal.setitimer(signal.ITIMER_REAL, _AT_ONCE_S, _AGAIN_S)
        else:
            sys.__unraisablehook__(swallowed)

    def rest(self) -> None:
        """Do not raise again."""
        if self.first:
            signal.setitimer(signal.ITIMER_REAL, 0)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise :class:`Interrupted` on signals within the block: for the outermost block of a command's process.

    Once interrupted, the process is about to end, and stays deaf to these signals. In another thread than the main one
    this does nothing.
    """
    if not _in_main_thread():
        yield
        return
    stop = _Stop()
    before = {number: signal.signal(number, stop) for number in _SIGNALS}
    hook, sys.unraisablehook = sys.unraisablehook, stop.notice
    try:
        yield
    finally:
        stop.rest()
        sys.unraisablehook = hook
        for number, action in before.items():
            signal.signal(number, signal.SIG_IGN if stop.first else action or signal.SIG_DFL)


@contextmanager
def hold_interrupts() -> Iterator[None]:
    """Let signals wait until the block is left: for what must not be cut short, such as stopping processes in order."""
    if not _in_main_thread():
        yield
        return
    waiting: list[int] = []
    before = {number: signal.signal(number, lambda number, _frame: waiting.append(number)) for number in _SIGNALS}
    for action in before.values():
        if isinstance(action, _Stop):
            action.rest()
    try:
        yield
    finally:
        for number, action in before.items():
            signal.signal(number, action or signal.SIG_DFL)
        if waiting:
            signal.raise_signal(waiting[0])


class UndisturbedStack(AbstractContextManager[ExitStack]):
    """An ``ExitStack`` that signals do not cut short while it is unwound."""

    def __init__(self) -> None:
        self._stack = ExitStack()

    def __enter__(self) -> ExitStack:
        return self._stack.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        with hold_interrupts():
            return bool(self._stack.__exit__(kind, error, trace))
