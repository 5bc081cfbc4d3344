"""Results of compile work by content: what was asked is hashed, and the answer is one file under that hash.

An entry holds the answer and the blobs it names, behind the hash of everything: a damaged entry is no entry. Entries
are written beside their place and renamed, so two processes can share a folder; both would write the same. Reading an
entry makes it young; :meth:`ResultCache.prune` removes the oldest ones. A cache that cannot be read or written costs
time and nothing else.
"""

import hashlib
import logging
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hedgerow.decode import SHA256, Fields, decode_json, encode_json
from hedgerow.durable import write_durably
from hedgerow.errors import DecodeError

__all__ = ["CACHE_VARIABLE", "CachedResult", "ResultCache", "blobs_named", "default_cache_folder", "result_key"]

CACHE_VARIABLE = "HEDGEROW_CACHE"
LIMIT_BYTES = 2 * 2**30
_VERSION = 1
_HEADER_LIMIT_BYTES = 64 * 2**20
_SUFFIX = ".result"
_LEFT_OVER_AGE_S = 3600.0
_LOG = logging.getLogger(__name__)


def default_cache_folder() -> Path:
    """Return the folder that the environment names (``HEDGEROW_CACHE``), or ``~/.cache/hedgerow``."""
    named = os.environ.get(CACHE_VARIABLE)
    return Path(named) if named else Path.home() / ".cache" / "hedgerow"


def result_key(facts: Mapping[str, Any]) -> str:
    """Return the hash of everything that a result depends on."""
    return hashlib.sha256(encode_json(facts)).hexdigest()


@dataclass(frozen=True, slots=True)
class CachedResult:
    """One answer with the content of its blobs.

    Attributes:
        kind: What it answers: ``artifact``, ``train_graph``, ``reference`` or ``refused``.
        answer: JSON values.
        blobs: SHA-256 -> content.
    """

    kind: str
    answer: Mapping[str, Any]
    blobs: Mapping[str, bytes]


def blobs_named(record: Any) -> list[str]:
    """Return the hashes of all blobs that a record of JSON values names, each once, sorted."""
    found: set[str] = set()
    open_records = [record]
    while open_records:
        entry = open_records.pop()
        if isinstance(entry, dict):
            if set(entry) == {"sha256", "length_bytes"}:
                found.add(entry["sha256"])
            open_records += entry.values()
        elif isinstance(entry, list):
            open_records += entry
    return sorted(found)


class ResultCache:
    """Results in one folder.

    Args:
        folder: Made when something is written.
        limit_bytes: What :meth:`prune` leaves.
    """

    def __init__(self, folder: Path, *, limit_bytes: int = LIMIT_BYTES) -> None:
        self._folder, self._limit_bytes = folder / f"v{_VERSION}", limit_bytes
        self._writable = True

    def _path(self, key: str) -> Path:
        return self._folder / key[:2] / f"{key}{_SUFFIX}"

    def load(self, key: str) -> CachedResult | None:
        """Return what is kept under *key*, or None: nothing, or something damaged."""
        path = self._path(key)
        try:
            content = path.read_bytes()
        except OSError:
            return None
        try:
            result = _decode(content)
        except DecodeError as exc:
            _LOG.warning("a damaged cache entry is made again: %s", exc)
            path.unlink(missing_ok=True)
            return None
        try:
            os.utime(path)
        except OSError:
            _LOG.debug("the cache's folder cannot be written: entries keep their age")
        return result

    def store(self, key: str, result: CachedResult) -> None:
        """Keep *result*; a disk that takes no more is told in the log and not tried again."""
        if not self._writable:
            return
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_durably(self._path(key), _encode(result))
        except OSError as exc:
            self._writable = False
            _LOG.warning("results are not kept: %s cannot be written (%s)", self._folder, exc.strerror)

    def prune(self) -> None:
        """Remove the entries that were not used for longest, until the rest fits, and what killed processes left."""
        entries = []
        for path in self._folder.glob("*/*"):
            try:
                status = path.stat()
                if path.suffix == _SUFFIX:
                    entries.append((status.st_mtime, status.st_size, path))
                elif path.suffix == ".part" and time.time() - status.st_mtime > _LEFT_OVER_AGE_S:
                    path.unlink()
            except OSError:
                continue  # another process was quicker
        total_bytes = sum(size for _age, size, _path in entries)
        for _age, size, path in sorted(entries):
            if total_bytes <= self._limit_bytes:
                break
            path.unlink(missing_ok=True)
            total_bytes -= size


def _encode(result: CachedResult) -> bytes:
    header = encode_json(
        {
            "version": _VERSION,
            "kind": result.kind,
            "answer": dict(result.answer),
            "blobs": [{"sha256": name, "length_bytes": len(content)} for name, content in sorted(result.blobs.items())],
        }
    )
    body = header + b"\n" + b"".join(content for _name, content in sorted(result.blobs.items()))
    return hashlib.sha256(body).hexdigest().encode() + b"\n" + body


def _decode(content: bytes) -> CachedResult:
    digest, _, body = content.partition(b"\n")
    if hashlib.sha256(body).hexdigest().encode() != digest:
        raise DecodeError("cache entry", "content with the hash that it begins with", "other content")
    header, _, stored = body.partition(b"\n")
    fields = decode_json(header, "cache entry", limit_bytes=_HEADER_LIMIT_BYTES)
    fields.integer("version", minimum=_VERSION, maximum=_VERSION)
    kind, answer, blobs, offset = fields.text("kind", maximum_chars=32), fields.nested("answer"), {}, 0
    for name, length_bytes in fields.sequence("blobs", _blob):
        blobs[name] = stored[offset : offset + length_bytes]
        offset += length_bytes
    fields.finish()
    return CachedResult(kind, answer.plain(), blobs)


def _blob(fields: Fields) -> tuple[str, int]:
    blob = fields.text("sha256", pattern=SHA256), fields.integer("length_bytes", maximum=2**40)
    fields.finish()
    return blob
