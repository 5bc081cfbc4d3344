"""Commands to the writing thread: each is carried out once or not at all, and its answer can be had afterwards.

Whoever waits in vain either takes the command back before it was begun, and then it never runs, or is told that it is
under way, and may ask for its answer under its id. An id that is known is not carried out again.
"""

import secrets
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, wait
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

from hedgerow.fleet.errors import CommandConflictError, CommandNotBegunError, CommandUnderWayError, UnknownCommandError
from hedgerow.fleet.service.after_commit import AfterCommit

__all__ = ["Change", "Command", "CommandState", "Commands"]

T = TypeVar("T")

Change = Callable[[AfterCommit, float], T]
"""What is done in a transaction: ``(then, now) -> result``."""

CommandState = Literal["waiting", "running", "done", "failed"]

_KEPT = 16


@dataclass(frozen=True, slots=True)
class Command(Generic[T]):
    """One command.

    Attributes:
        id: The name under which its answer can be asked for.
        what: Who wants what of what, in words; an id may not be used for something else.
        change: What is done.
        future: Its answer, once there is one.
    """

    id: str
    what: str
    change: Change[T]
    future: "Future[T]" = field(default_factory=Future)

    @property
    def state(self) -> CommandState:
        """``waiting``, ``running``, ``done`` or ``failed``."""
        if not self.future.done():
            return "running" if self.future.running() else "waiting"
        return "failed" if self.future.cancelled() or self.future.exception() is not None else "done"

    def answer(self, timeout_s: float) -> T:
        """Return its result, or raise what it raised.

        Raises:
            CommandNotBegunError: It was not begun in time, and never will be.
            CommandUnderWayError: It was begun and is not over.
        """
        # Not result(timeout): a TimeoutError of the change itself must not be taken for ours.
        if not wait([self.future], timeout_s).done and not self.future.cancel() and not self.future.done():
            raise CommandUnderWayError(self.id, timeout_s)
        try:
            return self.future.result()
        except CancelledError:
            raise CommandNotBegunError(self.id, timeout_s) from None


class Commands:
    """The commands that are known: those in progress, and the latest that are over. May be used from any thread.

    Args:
        kept: How many that are over are remembered; an answer can be as large as a rollout of the whole fleet.
    """

    def __init__(self, kept: int = _KEPT) -> None:
        self._kept = kept
        self._known: dict[str, Command[Any]] = {}
        self._lock = threading.Lock()

    def admit(self, change: Change[T], command_id: str | None, what: str) -> tuple[Command[T], bool]:
        """Return the command of an id, and whether it is new, so that it must be carried out.

        Raises:
            CommandConflictError: The id was used for something else.
        """
        with self._lock:
            known = self._known.get(command_id) if command_id is not None else None
            # One that was taken back was never carried out, so the same id may ask again.
            if known is not None and not known.future.cancelled():
                if known.what != what:
                    raise CommandConflictError(known.id, known.what, what)
                return known, False
            command = Command(command_id or secrets.token_hex(8), what, change)
            self._known.pop(command.id, None)
            self._known[command.id] = command
            over = [key for key, other in self._known.items() if other.future.done()]
            for key in over[: max(0, len(over) - self._kept)]:
                del self._known[key]
            return command, True

    def command(self, command_id: str) -> Command[Any]:
        """Return a command.

        Raises:
            UnknownCommandError: It was never asked for, was over long ago, or the service was started anew since.
        """
        with self._lock:
            try:
                return self._known[command_id]
            except KeyError:
                raise UnknownCommandError(command_id) from None

    def forget(self, command_id: str) -> None:
        """Forget a command whose answer its caller has."""
        with self._lock:
            self._known.pop(command_id, None)
