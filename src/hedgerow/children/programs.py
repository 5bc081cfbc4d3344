"""Programs that run beside us, each with its log: noticed when one ends by itself, and stopped in order."""

import logging
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from hedgerow.children.child import Child
from hedgerow.children.ended import Ended
from hedgerow.children.output import OutputFile
from hedgerow.closing import Closing

__all__ = ["Programs"]

_LOG = logging.getLogger(__name__)


class Programs(Closing):
    """Starts programs, and stops them all when its ``with`` block is left, in reverse order of their start.

    Args:
        stop_timeout_s: How long they may take to end after SIGTERM, all together; then they are killed.
    """

    def __init__(self, *, stop_timeout_s: float = 2.0) -> None:
        self._stop_timeout_s = stop_timeout_s
        self._children: dict[str, Child] = {}
        self._exit_codes: dict[str, int] = {}
        self._log_paths: dict[str, Path] = {}

    @property
    def exit_codes(self) -> Mapping[str, int]:
        """Name -> exit code of the programs that ended; negative for a signal, as subprocess has it."""
        return dict(self._exit_codes)

    @property
    def log_paths(self) -> Mapping[str, Path]:
        """Name -> log of each program that was ever started."""
        return dict(self._log_paths)

    @property
    def process_ids(self) -> Mapping[str, int]:
        """Name -> process id of the programs that were started and not stopped."""
        return {name: child.process_id for name, child in self._children.items()}

    def start(
        self,
        argv: Sequence[str],
        log_path: Path,
        name: str,
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> int:
        """Start a program and return its process id.

        Args:
            argv: Program and arguments; no secrets, since every user can read them.
            log_path: Takes its output, appended.
            name: For messages.
            env: Its whole environment; default: ours.
            cwd: Its working folder; default: ours.

        Raises:
            ValueError: A program of that name runs already.
            OSError: The log cannot be written.
        """
        if name in self._children:
            raise ValueError(f"a child called {name!r} was started before")
        child = Child(argv, name=name, output=OutputFile(log_path), whole_environment=env, folder=cwd)
        self._children[name], self._log_paths[name] = child, log_path
        return child.process_id

    def first_ended(self) -> Ended | None:
        """Return how the first of them ended that did so by itself, or None while all run."""
        for child in self._children.values():
            if not child.is_running:
                return self._end(child)
        return None

    def stop_one(self, name: str, *, timeout_s: float | None = None) -> int:
        """Stop one program and return its exit code.

        Raises:
            KeyError: There is none of that name.
        """
        self._stop([self._children[name]], self._stop_timeout_s if timeout_s is None else timeout_s)
        del self._children[name]
        return self._exit_codes[name]

    def stop(self) -> Mapping[str, int]:
        """Stop all and return name -> exit code; repeats are harmless."""
        try:
            self._stop(list(reversed(self._children.values())), self._stop_timeout_s)
        finally:
            self._children.clear()
        return self.exit_codes

    def close(self) -> None:
        """Stop all; a second call does nothing."""
        self.stop()

    def _stop(self, children: Sequence[Child], timeout_s: float) -> None:
        try:
            for child in children:
                child.ask_to_end()
            deadline = time.monotonic() + timeout_s
            for child in children:
                child.wait(max(0.0, deadline - time.monotonic()))
        # A second Ctrl-C cuts the waiting short, not the order: what still runs is killed in any case.
        finally:
            for child in children:
                if child.is_running:
                    _LOG.warning("the process %s did not end within %g s and is killed", child.name, timeout_s)
                self._end(child)

    def _end(self, child: Child) -> Ended:
        ended = child.end()
        # What does not go by SIGKILL hangs in a driver; it is as good as killed.
        self._exit_codes[child.name] = -signal.SIGKILL if ended.code is None else ended.code
        return ended
