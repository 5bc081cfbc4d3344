"""Child processes that cannot outlive us, are stopped in order, and whose death is noticed.

Each child starts through :mod:`hedgerow.fleet.leash`, so that the kernel ends it when we end without a chance to stop
it. It has a session of its own: Ctrl-C in a terminal reaches us alone, and we decide the order of the rest.
"""

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from hedgerow.fleet import leash
from hedgerow.fleet.errors import ChildDiedError

__all__ = ["ChildProcesses", "last_lines"]

_log = logging.getLogger(__name__)
_POLL_S = 0.01
_KILL_WAIT_S = 1.0


@dataclass(frozen=True, slots=True)
class _Child:
    name: str
    process: subprocess.Popen[bytes]
    log_path: Path


def last_lines(path: Path, *, lines: int = 3, limit_bytes: int = 4096) -> tuple[str, ...]:
    """Return the last lines of a log that are not empty; at most *limit_bytes* are read."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - limit_bytes))
            text = file.read(limit_bytes).decode("utf-8", "replace")
    except FileNotFoundError:
        return ()
    return tuple(line.strip() for line in text.splitlines() if line.strip())[-lines:]


class ChildProcesses:
    """Starts processes and stops them all when its ``with`` block is left, in reverse order of their start.

    Args:
        stop_timeout_s: How long children may take to end after SIGTERM, all together; then they are killed.
    """

    def __init__(self, *, stop_timeout_s: float = 2.0) -> None:
        self._stop_timeout_s = stop_timeout_s
        self._children: dict[str, _Child] = {}
        self._exit_codes: dict[str, int] = {}
        # The kernel ends a leashed child when the *thread* that forked it ends, so one thread of ours, which lives as
        # long as the children do, forks them all.
        self._spawner = ThreadPoolExecutor(max_workers=1, thread_name_prefix="spawner")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def exit_codes(self) -> Mapping[str, int]:
        """Name -> exit code of the children that ended; negative for a signal, as subprocess has it."""
        return dict(self._exit_codes)

    def start(
        self,
        argv: Sequence[str],
        log_path: Path,
        name: str,
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> int:
        """Start a process and return its id.

        Args:
            argv: Program and arguments; no secrets, since every user can read them.
            log_path: Takes its output, appended.
            name: For messages.
            env: Its whole environment; default: ours.
            cwd: Its working folder; default: ours.

        Raises:
            ValueError: A child of that name runs already.
            OSError: The log cannot be written.
        """
        if name in self._children:
            raise ValueError(f"a child called {name!r} was started before")
        log_path.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-I", "-S", leash.__file__, str(os.getpid()), *argv]
        with log_path.open("ab") as log:
            process = self._spawner.submit(
                subprocess.Popen,
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=None if env is None else dict(env),
                cwd=cwd,
                start_new_session=True,
            ).result()
        self._children[name] = _Child(name, process, log_path)
        return process.pid

    def check(self) -> None:
        """Return if every child runs.

        Raises:
            ChildDiedError: One ended by itself.
        """
        for child in self._children.values():
            exit_code = child.process.poll()
            if exit_code is not None:
                self._exit_codes[child.name] = exit_code
                raise ChildDiedError(child.name, exit_code, child.log_path, last_lines(child.log_path))

    def stop_one(self, name: str, *, timeout_s: float | None = None) -> int:
        """Stop one child and return its exit code.

        Raises:
            KeyError: There is no child of that name.
        """
        child = self._children[name]
        self._end([child], self._stop_timeout_s if timeout_s is None else timeout_s)
        del self._children[name]
        return self._exit_codes[name]

    def stop(self) -> Mapping[str, int]:
        """Stop all children and return name -> exit code; repeats are harmless."""
        try:
            self._end(list(reversed(self._children.values())), self._stop_timeout_s)
        finally:
            self._children.clear()
            self._spawner.shutdown(wait=False)
        return self.exit_codes

    def _end(self, children: Sequence[_Child], timeout_s: float) -> None:
        try:
            for child in children:
                _signal(child, signal.SIGTERM)
            deadline = time.monotonic() + timeout_s
            while any(child.process.poll() is None for child in children) and time.monotonic() < deadline:
                time.sleep(_POLL_S)
        # A second Ctrl-C cuts the waiting short, not the order: what still runs is killed below in any case.
        finally:
            for child in children:
                if child.process.poll() is None:
                    _log.warning("the process %s did not end within %g s and is killed", child.name, timeout_s)
                    _signal(child, signal.SIGKILL)
            for child in children:
                self._exit_codes[child.name] = child.process.wait(_KILL_WAIT_S)


def _signal(child: _Child, number: signal.Signals) -> None:
    """Send a signal to a child, and SIGKILL to all that it started as well."""
    if child.process.poll() is not None:
        return
    if number == signal.SIGKILL:
        # Not reaped yet, so the id is still its own and its group's.
        os.killpg(child.process.pid, number)
    else:
        child.process.send_signal(number)
