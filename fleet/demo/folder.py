"""The demo's output folder: for one demo at a time, and nothing in it is removed that no demo made."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import Timeout

from hedgerow.file_lock import file_lock
from hedgerow.fleet.demo.errors import DemoError

__all__ = ["LOG_FILE", "claim_folder"]

LOG_FILE = "demo.log"
"""Where log lines go; a folder that has it was a demo's before."""

_LOCK_FILE = "demo.lock"


@contextmanager
def claim_folder(out: Path, work: Path) -> Iterator[None]:
    """Take *out* for this demo alone and empty *work*, a folder in it.

    Temporary files, ours and those of the processes that we start, are in *work* meanwhile: what is left of a demo that
    was killed goes with the next one.

    Raises:
        DemoError: It cannot be written, another demo uses it, or *work* holds what no demo made.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = file_lock(out / _LOCK_FILE)
        lock.acquire()
    except Timeout as exc:
        raise DemoError(
            f"expected the folder {out} for this demo alone, found another demo using it; wait for that one or choose "
            "another --out"
        ) from exc
    except OSError as exc:
        raise DemoError(
            f"expected a folder that can be written and locked at {out}, found none ({exc.strerror}); choose another "
            "--out"
        ) from exc
    try:
        if work.exists():
            if not (out / LOG_FILE).is_file():
                raise DemoError(
                    f"expected a new folder or one of an earlier demo at {out}, found a {work.name!r} that no demo "
                    "made; choose another --out"
                )
            shutil.rmtree(work)
        # Before anything is made, so that whatever is left of us is known to be ours.
        (out / LOG_FILE).touch()
        with _temporary_files_in(work / "tmp"):
            yield
    finally:
        lock.release()


@contextmanager
def _temporary_files_in(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True)
    before = os.environ.get("TMPDIR")
    os.environ["TMPDIR"] = str(folder)
    tempfile.tempdir = None  # it is remembered there; None: look again
    try:
        yield
    finally:
        tempfile.tempdir = None
        if before is None:
            del os.environ["TMPDIR"]
        else:
            os.environ["TMPDIR"] = before
        shutil.rmtree(folder, ignore_errors=True)
