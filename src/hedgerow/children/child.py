"""One child process of another program, from its start to its end."""

import errno
import os
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, suppress
from pathlib import Path

from hedgerow.children import parent_death
from hedgerow.children.ended import Ended
from hedgerow.children.output import ChildOutput
from hedgerow.closing import Closing
from hedgerow.interrupts import hold_interrupts
from hedgerow.scratch_folder import ScratchFolder

__all__ = ["Child", "numeric_threads"]

_KILL_WAIT_S = 5.0


def numeric_threads(count: int) -> dict[str, str]:
    """Return the environment in which numerical libraries use *count* threads; they read it when they are loaded."""
    return dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(count))


class _Keeper:
    """A thread that forks a process and stays until it has ended.

    The kernel kills a child when the *thread* that forked it ends. Whoever asks for a child may be such a thread, so
    each child has one of its own, which has nothing else to do. It waits without reaping: until :meth:`Child.end` does
    that, the process id and its group are nobody else's, and the group can be killed as a whole.
    """

    def __init__(self, start: "Callable[[], subprocess.Popen[bytes]]", name: str) -> None:
        started: Future[subprocess.Popen[bytes]] = Future()
        self._thread = threading.Thread(target=self._keep, args=(start, started), name=f"child {name}", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as exc:
            # Python's word for what the system says of a process that may have no more threads.
            raise OSError(errno.EAGAIN, str(exc)) from exc
        self.process = started.result()

    @staticmethod
    def _keep(start: "Callable[[], subprocess.Popen[bytes]]", started: "Future[subprocess.Popen[bytes]]") -> None:
        try:
            process = start()
        except BaseException as exc:  # noqa: BLE001 - raised in the thread that waits for the start
            started.set_exception(exc)
            return
        started.set_result(process)
        with suppress(ChildProcessError):
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)

    def wait(self, timeout_s: float | None) -> bool:
        self._thread.join(timeout_s)
        return not self._thread.is_alive()


class Child(Closing):
    """A process that ends with this one, with this object, and with the ``with`` block that it is used in.

    It has a session of its own: Ctrl-C in a terminal reaches us alone, and we decide the order of the rest; and its
    process group is all that it started, which ends with it. It reads nothing from our standard input.

    Args:
        command: Program and arguments; no secrets, since every user can read them.
        name: What it is, for people.
        output: Where its output goes, closed with this; None: where ours goes.
        environment: What its environment has beside ours, or *whole_environment*.
        whole_environment: Its environment; None: ours.
        folder: Its working folder; None: ours.
        scratch: Whether it has a folder of its own for temporary files, removed at its end: what a killed process
            leaves behind. Where the disk may be full or worn, the attempt to make one is not worth it.
        keep_open: Descriptors that it inherits.
        closes: What is closed with this, beside *output*.
        dies_by_itself: Whether the program asks for its end with ours (:func:`die_with_parent`); else
            :mod:`hedgerow.children.parent_death` does before it becomes the program, which then ends with
            :data:`~hedgerow.children.parent_death.CANNOT_RUN` where it cannot be run.

    Attributes:
        name: As given.
        doing: What it does, for :class:`~hedgerow.children.ended.Ended`; whoever listens to it writes this.
        output: As given.

    Raises:
        OSError: It cannot be started, or has no room for its temporary files.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        name: str,
        output: ChildOutput | None = None,
        environment: Mapping[str, str] | None = None,
        whole_environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
        scratch: bool = False,
        keep_open: Sequence[int] = (),
        closes: Sequence[Closing] = (),
        dies_by_itself: bool = False,
    ) -> None:
        self.name, self.doing, self.output = name, "", output
        self._ended: Ended | None = None
        tied = (sys.executable, "-I", "-S", parent_death.__file__, str(os.getpid()))
        with ExitStack() as held:
            for each in (*closes, *(() if output is None else (output,))):
                held.enter_context(each)
            variables = {**(os.environ if whole_environment is None else whole_environment), **(environment or {})}
            if scratch:
                variables["TMPDIR"] = str(held.enter_context(ScratchFolder()).path)

            def start() -> "subprocess.Popen[bytes]":
                return subprocess.Popen(
                    command if dies_by_itself else (*tied, *command),
                    stdin=subprocess.DEVNULL,
                    stdout=None if output is None else output.descriptor,
                    stderr=None if output is None else subprocess.STDOUT,
                    env=variables,
                    cwd=folder,
                    pass_fds=keep_open,
                    start_new_session=True,
                )

            # An interrupt between the start and the line that ends it would leave the process to nobody.
            with hold_interrupts():
                self._keeper = _Keeper(start, name)
                self._let_go = weakref.finalize(self, _let_go, os.getpid(), self._keeper, held.pop_all())
        if output is not None:
            output.handed_over()

    @property
    def process_id(self) -> int:
        """Its id; nobody else's until :meth:`end`."""
        return self._keeper.process.pid

    @property
    def is_running(self) -> bool:
        """Whether it has not ended yet."""
        if self._ended is not None:
            return False
        with suppress(ChildProcessError):
            return os.waitid(os.P_PID, self.process_id, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
        return False

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for its end and return whether it has come.

        Args:
            timeout_s: How long; None: for ever.
        """
        return self._ended is not None or self._keeper.wait(timeout_s)

    def ask_to_end(self) -> None:
        """Send SIGTERM to it, but not to what it started: that is its own to end."""
        if self.is_running:
            os.kill(self.process_id, signal.SIGTERM)

    def end(self) -> Ended:
        """Kill what still runs of it and of what it started, free all that it held, and return how it ended.

        A second call returns the same.
        """
        if self._ended is None:
            with hold_interrupts():
                code = _kill(self._keeper)
                last_lines = self.output.last_lines() if self.output is not None else ()
                self._ended = Ended(name=self.name, code=code, doing=self.doing, last_lines=last_lines)
                self._let_go()
        return self._ended

    def close(self) -> None:
        """End it if it runs; a second call does nothing."""
        self.end()


def _kill(keeper: _Keeper) -> int | None:
    process = keeper.process
    if process.returncode is None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        if keeper.wait(_KILL_WAIT_S):
            process.wait()
    return process.returncode


def _let_go(owner: int, keeper: _Keeper, held: ExitStack) -> None:
    """End a process that nobody ended, and free what was held for it; a fork of ours has nothing to end."""
    if os.getpid() == owner:
        with hold_interrupts():
            _kill(keeper)
            held.close()
