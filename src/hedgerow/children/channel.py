"""Messages between a process and its child: whole, bounded, in both directions, over a pair of connected sockets."""

import contextlib
import socket
from collections import deque

from hedgerow.children.frames import Frames, encode_frame
from hedgerow.closing import Closing

__all__ = ["MessageChannel", "channel_pair"]

_CHUNK_BYTES = 2**18


class MessageChannel(Closing):
    """One end of a conversation; for one thread at a time.

    Args:
        connection: To the other end; closed with this.
        limit_bytes: No message may be longer, in either direction.
    """

    def __init__(self, connection: socket.socket, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self._connection = connection
        self._frames = Frames(limit_bytes)
        self._waiting: deque[bytes] = deque()

    def fileno(self) -> int:
        """Return the descriptor, for selectors: there is something to :meth:`take` when it can be read."""
        return self._connection.fileno()

    def send(self, message: bytes, timeout_s: float | None = None) -> None:
        """Send a message. That the other end is gone is not told here, but to who listens.

        Args:
            message: Anything.
            timeout_s: How long the other end may let us wait; None: for ever.

        Raises:
            ValueError: It is longer than the bound.
            TimeoutError: The other end does not read. The channel is of no more use.
        """
        payload = encode_frame(message, limit_bytes=self.limit_bytes)
        self._connection.settimeout(None if timeout_s is None else max(timeout_s, 1e-3))
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._connection.sendall(payload)

    def take(self) -> list[bytes] | None:
        """Return the messages that one read completes, or None at the end; waits only where nothing has come.

        Raises:
            DecodeError: A message is longer than the bound. What comes after it is dropped.
        """
        self._connection.settimeout(None)
        found = list(self._waiting) or self._read()
        self._waiting.clear()
        return found

    def receive(self, timeout_s: float | None = None) -> bytes | None:
        """Return the next message, or None at the end.

        Args:
            timeout_s: How long to wait for each piece of it; None: for ever.

        Raises:
            DecodeError: It is longer than the bound.
            TimeoutError: Nothing came.
        """
        self._connection.settimeout(None if timeout_s is None else max(timeout_s, 1e-3))
        while not self._waiting:
            found = self._read()
            if found is None:
                return None
            self._waiting.extend(found)
        return self._waiting.popleft()

    def _read(self) -> list[bytes] | None:
        try:
            chunk = self._connection.recv(_CHUNK_BYTES)
        except ConnectionResetError:
            # It ended without having read all that was sent to it.
            chunk = b""
        # At the end as well: a refusal may still be due.
        return self._frames.feed(chunk) or ([] if chunk else None)

    def close(self) -> None:
        """Tell the other end that nothing more comes."""
        self._connection.close()


def channel_pair(limit_bytes: int) -> tuple[MessageChannel, MessageChannel]:
    """Return both ends of a conversation in one process: what tests of either side use in the place of a child."""
    one, other = socket.socketpair()
    return MessageChannel(one, limit_bytes), MessageChannel(other, limit_bytes)
