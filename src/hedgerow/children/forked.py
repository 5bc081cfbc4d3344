"""A child process that is a copy of this one: it has what was imported and loaded here, at the cost of milliseconds.

A fork copies one thread. Locks that others held stay held in the copy, so whoever forks does so before other threads
work, or has the copy answer once before it is trusted, within a time.
"""

import contextlib
import os
import select
import signal
import threading
import traceback
import warnings
import weakref
from collections.abc import Callable, Sequence
from typing import NoReturn

from hedgerow.children.ended import Ended
from hedgerow.children.parent_death import die_with_parent
from hedgerow.closing import Closing
from hedgerow.interrupts import hold_interrupts

__all__ = ["ForkedChild", "fork_child"]


class _Process:
    """A process id that is ours until the process was waited for, and the descriptor that tells of its end."""

    def __init__(self, name: str, process_id: int, life: int) -> None:
        self.process_id, self.life = process_id, life
        self.ended: Ended | None = None
        self._name, self._owner = name, os.getpid()

    def kill(self) -> None:
        if self.ended is None and os.getpid() == self._owner:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process_id, signal.SIGKILL)

    def wait(self) -> Ended:
        if self.ended is None:
            try:
                code: int | None = os.waitstatus_to_exitcode(os.waitpid(self.process_id, 0)[1])
            except ChildProcessError:
                # Somebody else has waited for it, or we are a copy of its parent.
                code = None
            self.ended = Ended(name=self._name, code=code)
        return self.ended

    def let_go(self) -> None:
        self.kill()
        self.wait()
        if self.life >= 0:
            os.close(self.life)
        self.life = -1


class ForkedChild(Closing):
    """A copy of this process, which ends with this object; made by :func:`fork_child`.

    Attributes:
        process_id: Its id.
    """

    def __init__(self, name: str, process_id: int, life: int) -> None:
        self.process_id = process_id
        self._process = _Process(name, process_id, life)
        weakref.finalize(self, self._process.let_go)

    def fileno(self) -> int:
        """Return a descriptor that can be read, without anything to read, as soon as the process has ended."""
        return self._process.life

    def kill(self) -> None:
        """Send SIGKILL, for who ends many at once and waits for them afterwards."""
        self._process.kill()

    def has_ended(self, timeout_s: float = 0.0) -> bool:
        """Wait for its end, but no longer than a time, and return whether it has come."""
        if self._process.ended is not None:
            return True
        return bool(select.select([self], [], [], timeout_s)[0])

    def wait(self) -> Ended:
        """Wait for its end, however long, and return how it ended; a second call returns the same."""
        return self._process.wait()

    def close(self) -> None:
        """Kill it, wait for it, and let go of its descriptor."""
        self._process.let_go()


def fork_child(serve: Callable[[], object], *, name: str, leave: Sequence[int] = ()) -> ForkedChild:
    """Fork a process that calls *serve* and ends with it, and with this one.

    It is deaf to Ctrl-C, which goes to the whole group: the parent decides what happens then. Nothing that the parent
    has registered for its own end runs in it. What *serve* raises is printed, and the exit code 1.

    The kernel is asked to end it only when the main thread forks, since it goes by the thread: a fork, unlike another
    program, cannot be made by a thread of its own, for the copy would be that of a thread that has loaded nothing.
    Else the copy must notice that its parent is gone, such as by the end of a stream that the parent alone writes.

    Args:
        serve: All that it does.
        name: What it is, for people.
        leave: Descriptors that the copy closes first.
    """
    parent, ask_kernel = os.getpid(), threading.current_thread() is threading.main_thread()
    # An interrupt between the fork and the value that can end the copy would leave it to nobody.
    with hold_interrupts():
        life, life_end = os.pipe()
        with warnings.catch_warnings():
            # Python 3.12 warns of every fork of a process with threads; the module's text says when it is right.
            warnings.simplefilter("ignore", DeprecationWarning)
            process_id = os.fork()
        if process_id == 0:
            for descriptor in (life, *leave):
                os.close(descriptor)
            _run(serve, parent, ask_kernel=ask_kernel)
        os.close(life_end)
        return ForkedChild(name, process_id, life)


def _run(serve: Callable[[], object], parent: int, *, ask_kernel: bool) -> NoReturn:
    code = 1
    try:
        die_with_parent(parent, ask_kernel=ask_kernel)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        serve()
        code = 0
    finally:
        if code:
            with contextlib.suppress(OSError):
                os.write(2, traceback.format_exc().encode())
        os._exit(code)
