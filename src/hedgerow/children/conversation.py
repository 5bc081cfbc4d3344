"""One request to a child process, what it says to it, and its end, within a time."""

import selectors
import time
from collections.abc import Callable
from dataclasses import replace

from hedgerow.children.ended import Ended
from hedgerow.children.module_child import ModuleChild
from hedgerow.children.output import OutputTail
from hedgerow.errors import DecodeError

__all__ = ["converse"]

_POLL_S = 0.05


def _nothing() -> None:
    pass


class _TimeOverError(Exception):
    """The child's time is over."""


class _Conversation:
    """What was heard so far, and how long it may go on."""

    def __init__(
        self, child: ModuleChild, hear: Callable[[bytes], None], look: Callable[[], None], end_timeout_s: float | None
    ) -> None:
        self._child, self._hear, self._look, self._end_timeout_s = child, hear, look, end_timeout_s
        self._deadline = 0.0
        self.nonsense, self.had_closed = "", False

    def hold(self, request: bytes, timeout_s: float) -> None:
        """Ask, and hear all that comes until the child has ended.

        Raises:
            _TimeOverError: It does not in time.
        """
        self._deadline = time.monotonic() + timeout_s
        try:
            self._child.channel.send(request, timeout_s)
        except TimeoutError:
            raise _TimeOverError from None
        self._listen()
        while not self._child.wait(_POLL_S):
            self._pause()

    def _listen(self) -> None:
        channel, output = self._child.channel, self._child.output
        with selectors.DefaultSelector() as selector:
            selector.register(channel, selectors.EVENT_READ, self._take)
            if isinstance(output, OutputTail):
                selector.register(output, selectors.EVENT_READ, output.drain)
            while selector.get_map():
                ready = selector.select(_POLL_S)
                for key, _events in ready:
                    if not key.data():
                        selector.unregister(key.fileobj)
                self._pause()
                # A process that the child left behind may hold the streams open for ever.
                if not ready and not self._child.is_running:
                    return

    def _take(self) -> bool:
        try:
            messages = self._child.channel.take()
        except DecodeError as exc:
            self.nonsense = str(exc)
            return True
        for message in messages or ():
            self._hear(message)
        self.had_closed = messages is None
        if self.had_closed and self._end_timeout_s is not None:
            self._deadline = time.monotonic() + self._end_timeout_s
        return not self.had_closed

    def _pause(self) -> None:
        self._look()
        if time.monotonic() > self._deadline:
            raise _TimeOverError


def converse(
    child: ModuleChild,
    request: bytes,
    hear: Callable[[bytes], None],
    *,
    timeout_s: float,
    end_timeout_s: float | None = None,
    look: Callable[[], None] = _nothing,
) -> Ended:
    """Send a request, hear every message until the child has ended, and return how it did.

    It is killed when its time is over; the end belongs to it, since a process whose memory is in ruins often dies
    when it lets go of it.

    Args:
        child: Not spoken to before.
        request: What it is asked.
        hear: Takes each message; what it raises ends the conversation.
        timeout_s: For all of it.
        end_timeout_s: For the end alone, once the child has closed its side; None: what is left of *timeout_s*.
        look: Called some twenty times a second; what it raises ends the conversation.
    """
    talk = _Conversation(child, hear, look, end_timeout_s)
    timed_out = False
    with child:
        try:
            talk.hold(request, timeout_s)
        except _TimeOverError:
            timed_out = True
        return replace(child.end(), timed_out=timed_out, had_closed=talk.had_closed, nonsense=talk.nonsense)
