"""One writer at a time, over processes: an advisory lock on a file."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["write_lock"]


@contextmanager
def write_lock(path: Path) -> Iterator[None]:
    """Hold the lock *path*; wait for it as long as another process or thread does. Not reentrant.

    Raises:
        OSError: The file cannot be made.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        # The kernel drops the lock with the descriptor, also when the process is killed.
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
