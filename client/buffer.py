"""Labelled samples that this device may train on: inputs with target values of any form. They never leave it.

One append-only file of framed records; what a crash cut off is dropped at the next start. Equal samples are kept once,
with the time at which they came last: a label that is given again is as good as new. Training reads them sorted by
content, so the order in which they came does not change a trained weight.
"""

import hashlib
import io
import logging
import math
import mmap
import os
import struct
import threading
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from hedgerow.closing import Closing
from hedgerow.durable import sync_folder
from hedgerow.errors import DecodeError, InputError
from hedgerow.model_schema import ModelSchema
from hedgerow.outputs import NO_OUTPUTS, Outputs
from hedgerow.outputs.outputs import MOST_OUTPUTS
from hedgerow.outputs.wanted import ONLY, as_declared
from hedgerow.weights import Arrays, decode_arrays, encode_arrays

__all__ = ["LabelledBuffer", "LabelledSamples"]

_log = logging.getLogger(__name__)
_HEADER = struct.Struct("<4sI32s")
_TIME = struct.Struct("<dI")
"""Follows the header: when the sample came, Unix seconds, and the CRC-32 of that number's bytes."""
_MAGIC = b"HGB2"
_TIMELESS_MAGIC = b"HGB1"
"""Of agents that kept no times; such a sample is older than every change."""
_EVER = 0.0
_MAGIC_BEGIN = b"HGB"
_ONLY, _NAMED = "label", "label."
"""Of a target value without a name, as agents of before kept every class, and of those with one."""
_INPUT = "input."
_NUMBERS = "biuf"
_SAMPLE = "labelled sample"
_SAMPLE_LIMIT_BYTES = 64 * 2**20
_SYNC_EVERY = 256
_WRITE_AGAIN_S = 60.0
"""A sample that comes again and again is written again no sooner, to spare the disk; a restart makes it that older."""

Signature = frozenset[tuple[str, str, tuple[int, ...]]]


@dataclass(frozen=True, slots=True)
class _Entry:
    """The place of one sample in the file, and its form."""

    offset: int
    length: int
    signature: Signature
    came_at: float
    written_at: float


class LabelledSamples(Closing):
    """The samples of one moment, in their order for training; later changes of the buffer do not show."""

    def __init__(
        self, file: IO[bytes], entries: Mapping[bytes, _Entry], outputs: Outputs, known: Mapping[bytes, bool]
    ) -> None:
        self._file, self._outputs = file, outputs
        self.teaching = {
            digest: known[digest] if digest in known else self._teaches(entry) for digest, entry in entries.items()
        }
        """Digest -> whether the outputs can learn from that sample."""
        self._entries = [entry for digest, entry in entries.items() if self.teaching[digest]]

    def __len__(self) -> int:
        return len(self._entries)

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def read(self, indices: NDArray[np.int64]) -> tuple[Arrays, Arrays]:
        """Return the samples at *indices*, in that order.

        Returns:
            Inputs by name, each ``(len(indices), *shape)``, and target values by output, as each declares them.
        """
        samples = [self._unpacked(self._entries[index]) for index in indices.tolist()]
        inputs = {name: np.stack([sample[0][name] for sample in samples]) for name in samples[0][0]}
        # Mostly all are given in one form, and are brought into the declared one at once.
        forms = [{name: (value.dtype, value.shape) for name, value in given.items()} for _, given in samples]
        alike = [samples] if all(form == forms[0] for form in forms) else [[sample] for sample in samples]
        parts = [self._declared([given for _, given in part]) for part in alike]
        return inputs, {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _unpacked(self, entry: _Entry) -> tuple[Arrays, Arrays]:
        return _unpack(os.pread(self._file.fileno(), entry.length, entry.offset))

    def _declared(self, given: Sequence[Arrays]) -> Arrays:
        rows = {name: np.stack([values[name] for values in given]) for name in given[0]}
        return dict(as_declared(self._outputs, rows, len(given)))

    def _teaches(self, entry: _Entry) -> bool:
        """Return whether its target values are such that the outputs can learn from them."""
        outputs = self._outputs
        try:
            wanted = self._declared([self._unpacked(entry)[1]])
            is_whole = not any(output.target_mistakes(wanted[name]) for name, output in outputs.items())
            return bool(outputs) and is_whole and bool(outputs.learnable(wanted)[0])
        except (InputError, DecodeError):  # another release's, or damaged since the file was read
            return False


class LabelledBuffer:
    """A bounded store of labelled samples on disk.

    Args:
        folder: The folder of its file.
        limit_samples: The oldest are dropped beyond this.
        clock: Unix time in seconds.
    """

    def __init__(self, folder: Path, *, limit_samples: int = 2000, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._path = folder / "samples.bin"
        self._limit = limit_samples
        self._lock = threading.Lock()
        self._unsynced = 0
        self._read_only: OSError | None = None
        # Of the last outputs that were asked for: a round of training follows another, and a sample stays what it is.
        self._teaching: tuple[Outputs, Mapping[bytes, bool]] = (NO_OUTPUTS, {})
        # Insertion order is age.
        self._entries: dict[bytes, _Entry] = {}
        self._file = self._open()
        self._load()

    def _open(self) -> IO[bytes]:
        """Open the file, to be read alone where it cannot be written; what lies in it can still be trained on."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            return self._path.open("a+b")
        except OSError as exc:
            self._read_only = exc
        try:
            return self._path.open("rb")
        except OSError:
            return io.BytesIO()

    def _open_again(self) -> None:
        """Open a file that could not be written when the agent started; disks are changed, and made writable again.

        Raises:
            OSError: It still cannot be written.
        """
        if self._read_only is None:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        file = self._path.open("a+b")
        self._file.close()
        self._file, self._read_only = file, None

    def __len__(self) -> int:
        with self._lock:
            return len(self._entries)

    def add(self, inputs: Mapping[str, NDArray[Any]], given: Mapping[str, NDArray[Any]]) -> bool:
        """Keep a sample; return whether it was new.

        Args:
            inputs: Without the batch dimension.
            given: Its target values, whatever the release that serves asks for
                (:func:`hedgerow.outputs.wanted.as_given`); empty where none is known.

        Raises:
            OSError: It could not be written.
        """
        payload = _pack(inputs, given)
        digest = hashlib.sha256(payload).digest()
        with self._lock:
            if len(payload) > _SAMPLE_LIMIT_BYTES:
                return False
            self._open_again()
            now, known = self._clock(), self._entries.pop(digest, None)
            if known is not None and abs(now - known.written_at) < _WRITE_AGAIN_S:
                self._entries[digest] = replace(known, came_at=now)
                return False
            head = _head(digest, len(payload), now)
            try:
                offset = self._file.seek(0, os.SEEK_END) + len(head)
                self._file.write(head + payload)
                # Survives the end of this process at once, and a power cut after the next sync.
                self._file.flush()
            except OSError:
                if known is not None:
                    # It lies there still; only its new time is not on disk.
                    self._entries[digest] = replace(known, came_at=now)
                raise
            self._entries[digest] = _Entry(offset, len(payload), _signature(inputs), now, now)
            while len(self._entries) > self._limit:
                del self._entries[next(iter(self._entries))]
            self._unsynced += 1
            if self._unsynced >= _SYNC_EVERY:
                self._sync()
            if self._file.tell() > 2 * self._live_bytes() + 2**20:
                self._compact()
        return known is None

    def samples(self, schema: ModelSchema, *, since: float | None = None) -> LabelledSamples:
        """Return the samples that a model of *schema* can learn from, by inputs and target values, sorted by content.

        Args:
            schema: The schema of the release to train.
            since: Only samples that came at this Unix time or later, by this device's clock; None: all. One that would
                come in the future was kept under a wrong clock, and nobody knows when it came.
        """
        wanted = frozenset((spec.name, spec.dtype, spec.shape) for spec in schema.inputs)
        now = self._clock()
        with self._lock:
            entries = {
                digest: entry
                for digest, entry in sorted(self._entries.items())
                if entry.signature == wanted and (since is None or since <= entry.came_at <= now)
            }
            known = self._teaching[1] if self._teaching[0] == schema.answers else {}
            # Compaction renames a new file into place; this handle keeps the old one.
            file = self._path.open("rb") if entries else io.BytesIO()
        samples = LabelledSamples(file, entries, schema.answers, known)
        with self._lock:
            self._teaching = schema.answers, samples.teaching
        return samples

    def close(self) -> None:
        """Sync and close."""
        with self._lock:
            if not self._file.closed:
                try:
                    if self._read_only is None:
                        self._sync()
                    self._file.close()
                except OSError as exc:
                    _log.warning("the last labelled samples could not be kept: %s", exc)

    def _sync(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._unsynced = 0

    def _live_bytes(self) -> int:
        return sum(_HEADER.size + _TIME.size + entry.length for entry in self._entries.values())

    def _load(self) -> None:
        try:
            self._scan()
        except OSError as exc:
            _log.error("the labelled buffer cannot be read to its end, and what follows is left out: %s", exc)
        while len(self._entries) > self._limit:
            del self._entries[next(iter(self._entries))]

    def _scan(self) -> None:
        end, offset = self._file.seek(0, os.SEEK_END), 0
        while offset < end:
            found = self._record_at(offset, end)
            if found is None:
                following = self._next_record(offset + 1, end)
                if following is None:
                    break
                _log.warning("the labelled buffer is damaged from byte %d to %d; that is left out", offset, following)
                offset = following
                continue
            digest, payload, stamp, begin = found
            try:
                inputs, _ = _unpack(payload)
                came_at = _time(stamp)
                # The later record of a sample that came again stands at its place in the order of age.
                self._entries.pop(digest, None)
                self._entries[digest] = _Entry(begin, len(payload), _signature(inputs), came_at, came_at)
            except DecodeError as exc:
                _log.warning("a labelled sample is left out: %s", exc)
            offset = begin + len(payload)
        if offset < end:
            _log.warning("the labelled buffer ends in %d bytes of no sample; they are cut off", end - offset)
            if self._read_only is None:
                self._file.truncate(offset)

    def _record_at(self, offset: int, end: int) -> tuple[bytes, bytes, bytes, int] | None:
        """Return (digest, payload, time, where the payload begins) of a whole record, or None."""
        self._file.seek(offset)
        header = self._file.read(_HEADER.size)
        if len(header) < _HEADER.size:
            return None
        magic, length, digest = _HEADER.unpack(header)
        stamp = b"" if magic == _TIMELESS_MAGIC else self._file.read(_TIME.size)
        begin = offset + len(header) + len(stamp)
        if magic not in {_MAGIC, _TIMELESS_MAGIC} or length > _SAMPLE_LIMIT_BYTES or begin + length > end:
            return None
        payload = self._file.read(length)
        return (digest, payload, stamp, begin) if hashlib.sha256(payload).digest() == digest else None

    def _next_record(self, offset: int, end: int) -> int | None:
        """Return where the next whole record begins: one flipped bit must not cost all that came after it."""
        with mmap.mmap(self._file.fileno(), end, access=mmap.ACCESS_READ) as content:
            while (offset := content.find(_MAGIC_BEGIN, offset)) >= 0:
                if self._record_at(offset, end) is not None:
                    return offset
                offset += 1
        return None

    def _compact(self) -> None:
        """Write what counts to a new file and put it in the place of the old one."""
        part = self._path.with_suffix(".part")
        try:
            moved = self._copied(part)
            part.replace(self._path)
        except OSError:
            # What was to make room must not take it.
            part.unlink(missing_ok=True)
            raise
        self._file.close()
        self._file = self._path.open("a+b")
        self._entries = moved
        self._unsynced = 0
        sync_folder(self._path.parent)

    def _copied(self, part: Path) -> dict[bytes, _Entry]:
        """Write what counts to *part*; return where it lies there."""
        moved: dict[bytes, _Entry] = {}
        with part.open("wb") as target:
            for digest, entry in self._entries.items():
                payload = os.pread(self._file.fileno(), entry.length, entry.offset)
                target.write(_head(digest, entry.length, entry.came_at))
                moved[digest] = replace(entry, offset=target.tell(), written_at=entry.came_at)
                target.write(payload)
            target.flush()
            os.fsync(target.fileno())
        return moved


def _head(digest: bytes, length: int, came_at: float) -> bytes:
    moment = struct.pack("<d", came_at)
    return _HEADER.pack(_MAGIC, length, digest) + moment + struct.pack("<I", zlib.crc32(moment))


def _time(stamp: bytes) -> float:
    """Return when a sample came; a time that is absent or damaged was before everything."""
    if len(stamp) != _TIME.size:
        return _EVER
    came_at, crc = _TIME.unpack(stamp)
    return float(came_at) if zlib.crc32(stamp[:8]) == crc and math.isfinite(came_at) else _EVER


def _signature(inputs: Mapping[str, NDArray[Any]]) -> Signature:
    return frozenset((name, str(values.dtype), tuple(values.shape)) for name, values in inputs.items())


def _pack(inputs: Mapping[str, NDArray[Any]], given: Mapping[str, NDArray[Any]]) -> bytes:
    arrays = {_INPUT + name: np.asarray(values) for name, values in inputs.items()}
    for name, value in given.items():
        # A whole number without a name lies as a class always did, so that equal samples of before and after are one.
        is_class = name == ONLY and not value.ndim and np.can_cast(value.dtype, np.int64)
        arrays[_ONLY if name == ONLY else _NAMED + name] = value.astype(np.int64).reshape(1) if is_class else value
    return encode_arrays(arrays)


def _unpack(payload: bytes) -> tuple[Arrays, Arrays]:
    """Return the inputs and the target values of a sample.

    Raises:
        DecodeError: It holds something else, or anything but numbers.
    """
    arrays = decode_arrays(payload, _SAMPLE, limit_bytes=_SAMPLE_LIMIT_BYTES)
    inputs: Arrays = {}
    given: Arrays = {}
    for key, values in arrays.items():
        if values.dtype.kind not in _NUMBERS:
            raise DecodeError(_SAMPLE, "arrays of numbers", str(values.dtype))
        if key.startswith(_INPUT):
            inputs[key.removeprefix(_INPUT)] = values
        elif key == _ONLY:
            given[ONLY] = values
        elif key.startswith(_NAMED):
            given[key.removeprefix(_NAMED)] = values
        else:
            raise DecodeError(_SAMPLE, "inputs and target values", repr(key[:64]))
    if not inputs or len(given) > MOST_OUTPUTS or (ONLY in given and len(given) > 1):
        raise DecodeError(_SAMPLE, "inputs, and one target value or one for each output", f"{sorted(arrays)[:8]}")
    return inputs, given
