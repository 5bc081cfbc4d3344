"""Fetch one signed file: resumable, bounded by its signed length, verified by its signed hash."""

import hashlib
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

from hedgerow.client.errors import InstallError, StoppedError, TransferError
from hedgerow.client.fleet_http import FleetHttp
from hedgerow.client.trust import SignedFile

__all__ = ["download"]

_log = logging.getLogger(__name__)
_ATTEMPTS = 4
_GRACE_S, _SLOWEST_BYTES_PER_S = 120.0, 1024


def download(
    http: FleetHttp,
    file: SignedFile,
    folder: Path,
    *,
    pause: Callable[[float], bool],
    attempts: int = _ATTEMPTS,
    clock: Callable[[], float] = time.monotonic,
) -> Path:
    """Return the path of a complete, verified and synced copy of *file*.

    What has arrived stays in ``<sha256>.part`` when the connection, the agent or the power fails, and the next call
    goes on from there. An attempt that brought new bytes does not count against *attempts*.

    Args:
        http: The server.
        file: What was signed.
        folder: The folder of parts and finished files.
        pause: Waits the seconds it is given; returns True when the agent is stopping.
        attempts: Fruitless attempts in a row before giving up.
        clock: Rising seconds; a server that only drips is given up (TUF's slow retrieval attack).

    Raises:
        InstallError: The bytes are not those that were signed; they are deleted.
        TransferError: The server did not give them.
        StoppedError: The agent is stopping.
    """
    folder.mkdir(parents=True, exist_ok=True)
    whole, part = folder / file.sha256, folder / f"{file.sha256}.part"
    if whole.is_file() and _matches(whole, file):
        return whole
    fruitless = 0
    deadline = clock() + _GRACE_S + file.length_bytes / _SLOWEST_BYTES_PER_S

    def proceed() -> None:
        if pause(0):
            raise StoppedError
        if clock() > deadline:
            raise TransferError(f"GET {file.url_path}", f"{_SLOWEST_BYTES_PER_S} bytes a second or more", "fewer")

    while (before := _size(part)) < file.length_bytes or not part.exists():
        try:
            _append(http, file, part, proceed)
        except TransferError as exc:
            if clock() > deadline:
                raise
            if _size(part) > before:
                fruitless = 0
                continue
            fruitless += 1
            if fruitless >= attempts or exc.status in {401, 403, 404, 410}:
                raise
            _log.info("download of %s stopped at %d bytes: %s", file.path, before, exc)
            if pause(min(5.0, 0.2 * 2**fruitless)):
                raise StoppedError from exc
    if not _matches(part, file):
        found = f"{_size(part)} other bytes"
        part.unlink(missing_ok=True)
        raise InstallError(
            f"the file {file.path}", f"{file.length_bytes} bytes with SHA-256 {file.sha256[:12]}...", found
        )
    with part.open("rb") as synced:
        os.fsync(synced.fileno())
    part.replace(whole)
    return whole


def _append(http: FleetHttp, file: SignedFile, part: Path, proceed: Callable[[], None]) -> None:
    offset = _size(part)
    try:
        stream = http.open(file.url_path, offset=offset)
    except TransferError as exc:
        if exc.status == 416:
            # Our part is shorter than what was signed, and the server's file ends before it: asking again is no use.
            part.unlink(missing_ok=True)
            found = f"an end after {offset} or fewer"
            raise InstallError(f"the file {file.path}", f"{file.length_bytes} bytes", found) from exc
        raise
    if stream.start not in {0, offset}:
        raise TransferError(f"GET {file.url_path}", f"bytes from {offset}", f"bytes from {stream.start}")
    # A server without ranges answers with everything: start over.
    with part.open("ab" if stream.start == offset and offset else "wb") as target:
        size = stream.start
        for chunk in stream.chunks:
            size += len(chunk)
            if size > file.length_bytes:
                target.truncate(0)
                raise InstallError(f"the file {file.path}", f"{file.length_bytes} bytes", "more")
            target.write(chunk)
            proceed()
    if size < file.length_bytes:
        raise TransferError(f"GET {file.url_path}", f"{file.length_bytes} bytes", f"an end after {size}")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _matches(path: Path, file: SignedFile) -> bool:
    if _size(path) != file.length_bytes:
        return False
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest() == file.sha256
