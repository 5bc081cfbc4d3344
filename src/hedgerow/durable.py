"""Files that are either old or new after a power cut, never half of each."""

import hashlib
import os
import tempfile
from pathlib import Path

__all__ = ["sha256_of", "sync_folder", "write_durably"]

_CHUNK_BYTES = 2**20


def write_durably(path: Path, content: bytes, *, mode: int = 0o644) -> None:
    """Replace *path* by *content*: temporary file in the same folder, fsync, rename, fsync of the folder.

    Raises:
        OSError: The folder cannot be written, or the disk is full; *path* is unchanged then.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make renames and new names in *folder* survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in lower-case hexadecimal, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
