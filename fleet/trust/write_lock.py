"""One writer at a time, over processes: an advisory lock on a file."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hedgerow.file_lock import file_lock

__all__ = ["write_lock"]


@contextmanager
def write_lock(path: Path) -> Iterator[None]:
    """Hold the lock *path*; wait for it as long as another process or thread does. Not reentrant.

    Raises:
        OSError: The file cannot be made, or its file system knows no locks.
    """
    with file_lock(path, waits=True, mode=0o600):
        yield
