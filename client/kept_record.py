"""A small record on disk that one flipped bit cannot take: a checksum, and a spare copy beside it.

``pointer.json`` and ``pointer.spare.json`` hold the same. The first is replaced before the second, so at any moment
one of them is whole; the one that was written last counts.
"""

import hashlib
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from hedgerow.decode import SHA256, Fields, decode_json, encode_json
from hedgerow.errors import DecodeError

__all__ = ["KeptRecord"]

T = TypeVar("T")

_log = logging.getLogger(__name__)
_WITHOUT_CHECKSUM, _VERSION = 1, 2
_LIMIT_BYTES = 64 * 1024

Write = Callable[[Path, bytes], None]


class KeptRecord:
    """One record.

    Args:
        path: Its file; the spare copy lies beside it.
        key: Name of the record inside the file.
        write: Replaces a file by some bytes, durably.

    Attributes:
        needs_repair: Whether a copy is damaged, absent or older than the other, so that the record is worth writing.
    """

    def __init__(self, path: Path, key: str, write: Write) -> None:
        self._path, self._spare, self._key, self._write = path, path.with_suffix(".spare.json"), key, write
        self._sequence = 0
        self.needs_repair = False

    def read(self, decode: Callable[[Fields], T]) -> T | None:
        """Return the record that was written last, or None when there never was one.

        A copy that is damaged is logged; the next :meth:`write` puts it right.

        Raises:
            DecodeError: There are copies, and none is whole.
        """
        whole: list[tuple[int, T]] = []
        refused: DecodeError | None = None
        for path in (self._path, self._spare):
            try:
                whole.append(self._decoded(path, decode))
            except FileNotFoundError:
                continue
            except OSError as exc:
                refused = DecodeError(path.name, "a file that can be read", exc.strerror or str(exc))
                _log.warning("%s", refused)
            except DecodeError as exc:
                refused = exc
                _log.warning("%s is damaged: %s", path.name, exc)
        if not whole:
            if refused is not None:
                self.needs_repair = True
                raise refused
            return None
        self._sequence, record = max(whole, key=lambda found: found[0])
        self.needs_repair = len(whole) < 2 or any(sequence != self._sequence for sequence, _ in whole)
        return record

    def write(self, record: Mapping[str, Any]) -> None:
        """Replace the record.

        Raises:
            OSError: It could not be written; the old record holds.
        """
        content = {"version": _VERSION, "sequence": self._sequence + 1, self._key: record}
        document = encode_json({**content, "sha256": _checksum(content)})
        self._write(self._path, document)
        self._sequence += 1
        try:
            self._write(self._spare, document)
        except OSError as exc:
            # The record itself is on disk, and the spare copy is an older one.
            self.needs_repair = True
            _log.warning("the spare copy of %s could not be written: %s", self._path.name, exc)
        else:
            self.needs_repair = False

    def _decoded(self, path: Path, decode: Callable[[Fields], T]) -> tuple[int, T]:
        with path.open("rb") as file:
            document = file.read(_LIMIT_BYTES + 1)
        fields = decode_json(document, path.name, limit_bytes=_LIMIT_BYTES)
        sequence = 0
        if fields.integer("version", minimum=_WITHOUT_CHECKSUM, maximum=_VERSION) != _WITHOUT_CHECKSUM:
            sequence = fields.integer("sequence")
            content = {name: value for name, value in fields.plain().items() if name != "sha256"}
            wanted = fields.text("sha256", pattern=SHA256)
            if _checksum(content) != wanted:
                raise DecodeError(path.name, f"a record with SHA-256 {wanted[:12]}...", "another one")
        record = decode(fields.nested(self._key))
        fields.finish()
        return sequence, record


def _checksum(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(encode_json(content)).hexdigest()
