"""A folder for temporary files that goes with the process that made it, however that ends.

Whoever closes it removes it. What a killed process has left is removed by the next that makes such a folder: a folder
in use is locked, and the kernel takes the lock back when its holder ends, so neither process ids nor ages are guessed.
"""

import os
import shutil
import tempfile
import weakref
from contextlib import suppress
from pathlib import Path

from filelock import lock_descriptor

from hedgerow.closing import Closing

__all__ = ["ScratchFolder"]

_PREFIX = "hedgerow-scratch-"


class ScratchFolder(Closing):
    """An empty folder where the system has its temporary files, for this process and what it starts.

    Where the file system knows no locks, nobody removes what a killed process leaves.

    Attributes:
        path: Where it is.

    Raises:
        OSError: There is no room for it.
    """

    def __init__(self) -> None:
        _remove_left_over(Path(tempfile.gettempdir()))
        while True:
            self._made = tempfile.TemporaryDirectory(prefix=_PREFIX, ignore_cleanup_errors=True)
            self.path = Path(self._made.name)
            try:
                lock = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
            except FileNotFoundError:
                # Somebody has removed it before it was locked.
                self._made.cleanup()
                continue
            except BaseException:
                self._made.cleanup()
                raise
            with suppress(OSError):
                lock_descriptor(lock)
            if self.path.exists():
                break
            self._made.cleanup()
            os.close(lock)
        self._unlock = weakref.finalize(self, os.close, lock)

    def close(self) -> None:
        """Remove it with all that is in it; a second call does nothing."""
        self._made.cleanup()
        self._unlock()


def _remove_left_over(parent: Path) -> None:
    with suppress(OSError):
        for path in parent.glob(f"{_PREFIX}*"):
            with suppress(OSError):
                _remove_if_free(path)


def _remove_if_free(path: Path) -> None:
    lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        # Another user's is none of ours, even for root.
        if os.fstat(lock).st_uid == os.getuid() and lock_descriptor(lock, blocking=False):
            shutil.rmtree(path, ignore_errors=True)
    finally:
        os.close(lock)
