"""Where the standard output and error of a child process go: a file, or a pipe of which the end is kept."""

import contextlib
import os
import tempfile
from abc import abstractmethod
from pathlib import Path
from typing import IO

from hedgerow.closing import Closing

__all__ = ["ChildOutput", "OutputFile", "OutputTail", "last_lines"]

_TAIL_BYTES = 4096
_CHUNK_BYTES, _PIPE_BYTES = 2**16, 2**20
_LINES = 3


def _lines(tail: bytes, lines: int) -> tuple[str, ...]:
    text = tail.decode("utf-8", "replace")
    return tuple(line.strip() for line in text.splitlines() if line.strip())[-lines:]


def last_lines(path: Path, *, lines: int = _LINES, limit_bytes: int = _TAIL_BYTES) -> tuple[str, ...]:
    """Return the last lines of a log that are not empty; at most *limit_bytes* are read."""
    try:
        with path.open("rb") as file:
            return _lines(_tail(file, limit_bytes), lines)
    except FileNotFoundError:
        return ()


def _tail(file: IO[bytes], limit_bytes: int) -> bytes:
    size = os.fstat(file.fileno()).st_size
    return os.pread(file.fileno(), limit_bytes, max(0, size - limit_bytes))


class ChildOutput(Closing):
    """What a child prints."""

    @property
    @abstractmethod
    def descriptor(self) -> int:
        """What the child writes to."""

    def handed_over(self) -> None:
        """Let go of what the child alone holds from now on."""

    @abstractmethod
    def last_lines(self) -> tuple[str, ...]:
        """Return the last lines that are not empty, at most three."""


class OutputFile(ChildOutput):
    """A file: nobody need read it while the child talks, and the child itself can read what a library printed.

    Args:
        path: It is appended to; None: a file without a name, which is gone with this.

    Raises:
        OSError: It cannot be written.
    """

    def __init__(self, path: Path | None = None) -> None:
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
        self._file: IO[bytes] = tempfile.TemporaryFile() if path is None else path.open("a+b")  # noqa: SIM115

    @property
    def descriptor(self) -> int:
        """The file."""
        return self._file.fileno()

    def last_lines(self) -> tuple[str, ...]:
        """Return the last lines that are not empty, at most three."""
        return _lines(_tail(self._file, _TAIL_BYTES), _LINES)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class OutputTail(ChildOutput):
    """A pipe of which the last 4 KiB are kept: a child that talks without end costs a device neither memory nor disk.

    Somebody must :meth:`drain` it, or the child waits.
    """

    def __init__(self) -> None:
        self._reading, self._writing = os.pipe()
        os.set_blocking(self._reading, False)
        self._kept = b""

    @property
    def descriptor(self) -> int:
        """The end that the child writes to."""
        return self._writing

    def fileno(self) -> int:
        """Return the end that is read, for selectors."""
        return self._reading

    def handed_over(self) -> None:
        """Close the child's end, so that its last holder's end is the stream's."""
        os.close(self._writing)
        self._writing = -1

    def drain(self) -> bool:
        """Take one piece of what is there; return whether more may come."""
        try:
            chunk = os.read(self._reading, _CHUNK_BYTES)
        except BlockingIOError:
            return True
        self._kept = (self._kept + chunk)[-_TAIL_BYTES:]
        return bool(chunk)

    def last_lines(self) -> tuple[str, ...]:
        """Return the last lines that are not empty, at most three, of what has come until now."""
        for _piece in range(_PIPE_BYTES // _CHUNK_BYTES):
            self.drain()
        return _lines(self._kept, _LINES)

    def close(self) -> None:
        """Close the pipe."""
        for descriptor in (self._reading, self._writing):
            with contextlib.suppress(OSError):
                os.close(descriptor)
        self._reading = self._writing = -1
