"""The folder that a build is put together in: beside its place, and moved there whole when everything is in it."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from hedgerow.compile.build import RECORD_FILE
from hedgerow.compile.errors import BuildFolderError
from hedgerow.durable import sync_folder

__all__ = ["new_build_folder", "put_in_place"]


@contextlib.contextmanager
def new_build_folder(out: Path) -> Iterator[Path]:
    """Give an empty folder beside *out* that is gone afterwards, unless it was put in place.

    Raises:
        BuildFolderError: *out* is something else than a build, or its parent cannot be written.
    """
    if out.exists() and not (out / RECORD_FILE).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise BuildFolderError(
            f"expected a new folder, an empty one or an earlier build at {out}, found something else; choose another "
            "place with --out"
        )
    parent, name = out.absolute().parent, out.absolute().name
    try:
        parent.mkdir(parents=True, exist_ok=True)
        _remove_left_over(parent, name)
        folder = Path(tempfile.mkdtemp(prefix=f".{name}.{os.getpid()}.", suffix=".part", dir=parent))
        folder.chmod(0o755)
    except OSError as exc:
        raise BuildFolderError(
            f"expected a folder that can be written for a build at {out}, found none ({exc.strerror}); choose another "
            "--out"
        ) from exc
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_left_over(parent: Path, name: str) -> None:
    """Remove folders of earlier compiles to the same place that were killed: their process is gone."""
    for path in parent.glob(f".{name}.*.part"):
        process = path.name.removeprefix(f".{name}.").partition(".")[0]
        if process.isdigit() and not _is_running(int(process)):
            shutil.rmtree(path, ignore_errors=True)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)  # signal 0 asks only
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def put_in_place(folder: Path, out: Path) -> None:
    """Make *folder* the build at *out*; a build that is there already is replaced.

    Raises:
        OSError: It cannot be moved; what was at *out* is still there.
    """
    old = folder.with_suffix(".old")
    if out.exists():
        out.rename(old)
    try:
        folder.rename(out)
    except BaseException:
        if old.exists() and not out.exists():
            old.rename(out)
        raise
    shutil.rmtree(old, ignore_errors=True)
    sync_folder(out.absolute().parent)
