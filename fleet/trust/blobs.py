"""Copy files whose hash is known, of any size, so that a wrong or half a copy is never seen under the final name."""

import hashlib
import os
import tempfile
from pathlib import Path
from typing import BinaryIO

from hedgerow.durable import sync_folder
from hedgerow.fleet.errors import ReleaseError

__all__ = ["copy_blob"]

_CHUNK_BYTES = 2**20


def copy_blob(source: Path, path: Path, sha256: str) -> None:
    """Copy *source* to *path*, read-only, and check its hash on the way.

    Raises:
        ReleaseError: *source* is absent or is not what the hash says.
        OSError: *path* cannot be written; nothing is there then.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".part")
    try:
        with os.fdopen(descriptor, "wb") as output:
            _copy_checked(source, output, sha256)
            output.flush()
            os.fchmod(output.fileno(), 0o444)
            os.fsync(output.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def _copy_checked(source: Path, output: BinaryIO, sha256: str) -> None:
    digest = hashlib.sha256()
    try:
        with source.open("rb") as content:
            while chunk := content.read(_CHUNK_BYTES):
                digest.update(chunk)
                output.write(chunk)
    except FileNotFoundError as exc:
        raise ReleaseError(source, "a file of the release", "none", "compile and release again") from exc
    if digest.hexdigest() != sha256:
        found = f"{digest.hexdigest()[:12]}..."
        raise ReleaseError(source, f"SHA-256 {sha256[:12]}...", found, "compile and release again")
