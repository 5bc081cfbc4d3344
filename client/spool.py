"""Windows that wait to be published: one file each, oldest first, bounded.

A disk that takes no more must not cost a window: it waits in memory then, and is written when the disk takes it.
"""

import contextlib
import hashlib
import logging
import threading
from collections.abc import Iterator
from pathlib import Path

from hedgerow.client.health import Health, Part
from hedgerow.durable import write_durably
from hedgerow.errors import DecodeError

__all__ = ["Spool"]

_log = logging.getLogger(__name__)
_WRITES_AT_ONCE = 8
"""Serving waits for a window to be written, so what a full disk left behind is written over several of them."""


class Spool:
    """A bounded queue of messages on disk. May be used from any thread.

    Args:
        folder: The folder of the files; their names are their order.
        limit_messages: The oldest is dropped beyond this.
        health: Is told whether the disk takes them.
    """

    def __init__(self, folder: Path, *, limit_messages: int = 500, health: Health | None = None) -> None:
        self._folder, self._limit, self._health = folder, limit_messages, health if health is not None else Health()
        self._lock = threading.Lock()
        self._in_memory: dict[int, bytes] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # A part is what a power cut left of a write.
            for part in folder.glob(".*.part"):
                part.unlink(missing_ok=True)
        except OSError as exc:
            self._health.failed(Part.STATE, exc)
        self._waiting = sorted(int(path.stem) for path in folder.glob("*.json") if path.stem.isdecimal())
        self._next = self._waiting[-1] + 1 if self._waiting else 0
        self.dropped = 0

    def __len__(self) -> int:
        with self._lock:
            return len(self._waiting)

    def put(self, message: bytes) -> None:
        """Keep *message* until :meth:`remove`, through restarts and power cuts where the disk can be written."""
        with self._lock:
            self._in_memory[self._next] = message
            self._waiting.append(self._next)
            self._next += 1
            while len(self._waiting) > self._limit:
                self._forget(self._waiting[0])
                self.dropped += 1
            self._write()

    def _write(self) -> None:
        for number, message in sorted(self._in_memory.items())[:_WRITES_AT_ONCE]:
            try:
                write_durably(self._path(number), message + b"\n" + _checksum(message))
            except OSError as exc:
                self._health.failed(Part.WINDOWS, exc)
                return
            del self._in_memory[number]
        self._health.worked(Part.WINDOWS)

    def pending(self) -> Iterator[tuple[int, bytes]]:
        """Yield what waits, oldest first, with its number."""
        with self._lock:
            numbers = list(self._waiting)
        for number in numbers:
            message = self._in_memory.get(number)
            if message is None:
                try:
                    message = _checked(self._path(number).read_bytes())
                except FileNotFoundError:
                    continue
                except (OSError, DecodeError) as exc:
                    _log.error("a window that waits cannot be read and is left out: %s", exc)
                    self.remove(number)
                    continue
            yield number, message

    def remove(self, number: int) -> None:
        """Forget a message that was published."""
        with self._lock:
            if number in self._waiting:
                self._forget(number)

    def _forget(self, number: int) -> None:
        self._waiting.remove(number)
        self._in_memory.pop(number, None)
        # A file that cannot be removed is sent again after the next start, which is harmless.
        with contextlib.suppress(OSError):
            self._path(number).unlink(missing_ok=True)

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:012d}.json"


def _checksum(message: bytes) -> bytes:
    return hashlib.sha256(message).hexdigest().encode()


def _checked(content: bytes) -> bytes:
    """Return the message in a file: one line of JSON, and on the next its hash; older agents wrote none."""
    message, _newline, checksum = content.partition(b"\n")
    if checksum and checksum != _checksum(message):
        raise DecodeError("window", "the bytes that were kept", "others")
    return message
