"""One holder of a file at a time, over processes: always the kernel's own lock.

The kernel takes it back when the process ends, however it ends, so a lock file that lies there locks nothing. What a
file system without such locks gets from filelock otherwise, a marker file, would outlive a process that is killed.
"""

import errno
import os
from pathlib import Path

from filelock import BaseFileLock, FileLock

__all__ = ["file_lock"]


def file_lock(path: Path, *, waits: bool = False, mode: int | None = None) -> BaseFileLock:
    """Return the lock of *path*, not taken yet; it is a context manager, and any thread may release it.

    ``acquire()`` raises ``filelock.Timeout`` where another process or another lock object holds it, and ``OSError``
    where the file cannot be made or its file system knows no locks.

    Args:
        path: The lock file; made when it is absent, never written, and left where it is.
        waits: Whether ``acquire()`` waits until the lock is free.
        mode: The mode of a file that is made; None: what the umask says.

    Raises:
        FileNotFoundError: Its folder is not there.
    """
    if not path.parent.is_dir():
        # filelock would make it.
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    lock: BaseFileLock
    if mode is None:
        lock = FileLock(path, blocking=waits, thread_local=False, fallback_to_soft=False)
    else:
        lock = FileLock(path, mode=mode, blocking=waits, thread_local=False, fallback_to_soft=False)
    return lock
