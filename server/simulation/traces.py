"""Recorded availability: when each of some real devices could train, read from a file and repeated for ever.

A trace is CSV with a header, or JSON lines (one object a line), in one of two forms; the four mean the same::

    device,start_s,end_s            {"device": "a", "start_s": 0, "end_s": 3600}
    a,0,3600

    device,at_s,available           {"device": "a", "at_s": 0, "available": true}
    a,0,true                        {"device": "a", "at_s": 3600, "available": false}
    a,3600,false

Times are seconds since the start of the recording, kept to the millisecond. Intervals of a device may come in any order
and may overlap. A device whose last change says ``true`` stays until the end of the recording, which is the latest time
that the file names. No file is read here: the caller brings the bytes.
"""

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hedgerow.decode import decode_json
from hedgerow.errors import DecodeError
from hedgerow.server.simulation.draws import Floats, Numbers

__all__ = ["MAX_TRACE_BYTES", "Trace", "TraceAvailability", "decode_trace"]

MAX_TRACE_BYTES = 2**28
_MAX_ROWS = 5_000_000
_MAX_TIME_S = 10 * 366 * 86400.0
_MAX_NAME_CHARS = 64
_MAX_LINE_CHARS = 1024
_MS = 1000
_INTERVALS = ("device", "start_s", "end_s")
_CHANGES = ("device", "at_s", "available")
_STATES = {"true": True, "1": True, "false": False, "0": False}


@dataclass(frozen=True, slots=True)
class Trace:
    """When each recorded device was available.

    Attributes:
        devices: Names, in the order in which the file first names them.
        first: Where each device's intervals begin, and the end of the last one's: ``int64[devices + 1]``.
        starts_ms: Sorted within a device, ``int64[m]``.
        ends_ms: Each after its start and before the device's next start, ``int64[m]``.
        length_ms: Length of the recording.
    """

    devices: tuple[str, ...]
    first: Numbers
    starts_ms: Numbers
    ends_ms: Numbers
    length_ms: int


@dataclass(frozen=True, slots=True)
class _Row:
    """One line: an interval of milliseconds, or a change at *start_ms* to *available*."""

    line: int
    device: str
    start_ms: int
    end_ms: int | None = None
    available: bool = True


def decode_trace(payload: bytes, where: str) -> Trace:
    """Read a trace.

    Args:
        payload: CSV or JSON lines, told apart by the first character.
        where: What the bytes are, for messages; such as the file's name.

    Raises:
        DecodeError: It is too large, in neither form, a line has other fields, a time is no number from 0 to ten years,
            an interval does not end after it begins, or a device changes twice at one time.
    """
    if len(payload) > MAX_TRACE_BYTES:
        raise DecodeError(where, f"at most {MAX_TRACE_BYTES} bytes", f"{len(payload)} bytes")
    try:
        text = payload.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise DecodeError(where, "text in UTF-8", str(exc)) from exc
    lines = text.split("\n")
    if len(lines) > _MAX_ROWS:
        raise DecodeError(where, f"at most {_MAX_ROWS} lines", str(len(lines)))
    read = _json_rows if text.lstrip().startswith("{") else _csv_rows
    by_device: dict[str, list[_Row]] = {}
    length_ms = 0
    for row in read(lines, where):
        by_device.setdefault(row.device, []).append(row)
        length_ms = max(length_ms, row.start_ms, row.end_ms or 0)
    if length_ms == 0:
        raise DecodeError(where, "at least one time after the start", "none")
    return _trace({device: _spans(rows, length_ms, where) for device, rows in by_device.items()}, length_ms)


def _csv_rows(lines: Sequence[str], where: str) -> Iterator[_Row]:
    reader = csv.reader((_bounded(line, number, where) for number, line in enumerate(lines, 1)), strict=True)
    try:
        header = tuple(field.strip() for field in next(reader, []))
        if header not in (_INTERVALS, _CHANGES):
            expected = f"the header {','.join(_INTERVALS)} or {','.join(_CHANGES)}"
            raise DecodeError(f"{where} line 1", expected, repr(",".join(header))[:80])
        for fields in reader:
            if not fields:
                continue
            place = f"{where} line {reader.line_num}"
            if len(fields) != len(header):
                raise DecodeError(place, f"{len(header)} fields", str(len(fields)))
            device, one, two = (field.strip() for field in fields)
            if header == _CHANGES and two.lower() not in _STATES:
                raise DecodeError(f"{place}.available", "true or false", repr(two)[:80])
            start_s = _number(one, f"{place}.{header[1]}")
            yield (
                _change(device, start_s, _STATES[two.lower()], reader.line_num, where)
                if header == _CHANGES
                else _interval(device, start_s, _number(two, f"{place}.end_s"), reader.line_num, where)
            )
    except csv.Error as exc:
        raise DecodeError(f"{where} line {reader.line_num}", "CSV", str(exc)) from exc


def _json_rows(lines: Sequence[str], where: str) -> Iterator[_Row]:
    form: bool | None = None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        place = f"{where} line {number}"
        fields = decode_json(line.encode(), place, limit_bytes=4 * _MAX_LINE_CHARS)
        changes = "at_s" in fields.names()
        if form is not None and changes != form:
            raise DecodeError(place, "intervals or changes, the same as in the lines before", "the other")
        form = changes
        device = fields.text("device", maximum_chars=_MAX_NAME_CHARS)
        if changes:
            at_s, available = fields.number("at_s", minimum=0, maximum=_MAX_TIME_S), fields.boolean("available")
            row = _change(device, at_s, available, number, where)
        else:
            start_s = fields.number("start_s", minimum=0, maximum=_MAX_TIME_S)
            row = _interval(device, start_s, fields.number("end_s", minimum=0, maximum=_MAX_TIME_S), number, where)
        fields.finish()
        yield row


def _bounded(line: str, number: int, where: str) -> str:
    if len(line) > _MAX_LINE_CHARS:
        raise DecodeError(f"{where} line {number}", f"at most {_MAX_LINE_CHARS} characters", str(len(line)))
    return line


def _number(text: str, place: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= _MAX_TIME_S:  # also refuses NaN
        raise DecodeError(place, f"seconds from 0 to {_MAX_TIME_S:.0f}", repr(text)[:80])
    return value


def _interval(device: str, start_s: float, end_s: float, line: int, where: str) -> _Row:
    start_ms, end_ms = round(start_s * _MS), round(end_s * _MS)
    if end_ms <= start_ms:
        raise DecodeError(f"{where} line {line}.end_s", f"a time after start_s, {start_s:g}", f"{end_s:g}")
    return _Row(line, _name(device, line, where), start_ms, end_ms)


def _change(device: str, at_s: float, available: bool, line: int, where: str) -> _Row:
    return _Row(line, _name(device, line, where), round(at_s * _MS), None, available)


def _name(device: str, line: int, where: str) -> str:
    if not 1 <= len(device) <= _MAX_NAME_CHARS:
        expected = f"a name of 1 to {_MAX_NAME_CHARS} characters"
        raise DecodeError(f"{where} line {line}.device", expected, f"{len(device)} characters")
    return device


def _spans(rows: Sequence[_Row], length_ms: int, where: str) -> list[tuple[int, int]]:
    """Return one device's intervals, sorted and merged."""
    ordered = sorted(rows, key=lambda row: (row.start_ms, row.line))
    spans: list[tuple[int, int]] = []
    if ordered[0].end_ms is not None:
        for row in ordered:
            end_ms = row.end_ms if row.end_ms is not None else row.start_ms
            if spans and row.start_ms <= spans[-1][1]:
                spans[-1] = (spans[-1][0], max(spans[-1][1], end_ms))
            else:
                spans.append((row.start_ms, end_ms))
        return spans
    since: int | None = None
    for before, row in zip([None, *ordered], ordered, strict=False):
        if before is not None and before.start_ms == row.start_ms:
            raise DecodeError(f"{where} line {row.line}.at_s", "one change of a device at one time", "a second one")
        if row.available and since is None:
            since = row.start_ms
        elif not row.available and since is not None:
            spans.append((since, row.start_ms))
            since = None
    if since is not None and since < length_ms:
        spans.append((since, length_ms))
    return spans


def _trace(spans: Mapping[str, Sequence[tuple[int, int]]], length_ms: int) -> Trace:
    first = np.zeros(len(spans) + 1, dtype=np.int64)
    np.cumsum([len(listed) for listed in spans.values()], out=first[1:])
    flat = np.array([span for listed in spans.values() for span in listed], dtype=np.int64).reshape(-1, 2)
    return Trace(tuple(spans), first, flat[:, 0].copy(), flat[:, 1].copy(), length_ms)


class TraceAvailability:
    """Devices that repeat a recording.

    Device i does what the recording's device ``i % len(trace.devices)`` did, time after time with the same period.
    """

    def __init__(self, trace: Trace, period_s: float | None = None) -> None:
        """Prepare the recording for look-ups.

        Args:
            trace: What was recorded.
            period_s: After how long it repeats; None: at once when it ends. Nobody is there between its end and that.

        Raises:
            ValueError: The recording is longer than *period_s*.
        """
        self.trace = trace
        self._period_ms = trace.length_ms if period_s is None else round(period_s * _MS)
        if self._period_ms < trace.length_ms:
            raise ValueError(f"the recording of {trace.length_ms / _MS} s does not fit a period of {period_s} s")
        # One sorted array for all devices, so that one binary search answers for any number of them.
        self._counts = np.diff(trace.first)
        self._keys = np.repeat(np.arange(len(trace.devices)), self._counts) * self._period_ms + trace.starts_ms

    def is_available(self, devices: Numbers, at_s: Floats | float) -> NDArray[np.bool_]:
        """Look the devices' intervals up."""
        return self._look_up(devices, at_s)[0]

    def until(self, devices: Numbers, at_s: Floats | float) -> Floats:
        """Return when the interval ends; one that goes on in the next repetition goes on."""
        inside, row, at, cycle_ms, offset_ms = self._look_up(devices, at_s)
        ends_ms = np.append(self.trace.ends_ms, 0)[at]
        found = np.where(inside, (cycle_ms + ends_ms) / _MS, (cycle_ms + offset_ms) / _MS)
        head = self.trace.first[row]
        starts, ends = np.append(self.trace.starts_ms, -1), np.append(self.trace.ends_ms, -1)
        wraps = inside & (ends_ms == self._period_ms) & (starts[head] == 0)
        found = np.where(wraps, (cycle_ms + self._period_ms + ends[head]) / _MS, found)
        return np.where(wraps & (ends[head] == self._period_ms), np.inf, found)

    def next_start(self, devices: Numbers, at_s: Floats | float) -> Floats:
        """Return the start of the next interval, in this repetition or the next."""
        inside, row, at, cycle_ms, offset_ms = self._look_up(devices, at_s)
        starts = np.append(self.trace.starts_ms, -1)
        following = at + 1
        this = following < self.trace.first[row + 1]
        begins_ms = np.where(
            this,
            cycle_ms + starts[np.minimum(following, len(starts) - 1)],
            cycle_ms + self._period_ms + starts[self.trace.first[row]],
        )
        found = np.where(inside, (cycle_ms + offset_ms) / _MS, begins_ms / _MS)
        return np.where(self._counts[row] == 0, np.inf, found)

    def _look_up(
        self, devices: Numbers, at_s: Floats | float
    ) -> tuple[NDArray[np.bool_], Numbers, Numbers, Numbers, Numbers]:
        """Return who is inside an interval, rows, last intervals begun (or the one before the row's), cycle, offset."""
        row = np.asarray(devices, dtype=np.int64) % len(self.trace.devices)
        at_ms = np.broadcast_to(np.rint(np.asarray(at_s) * _MS).astype(np.int64), row.shape)
        offset_ms = at_ms % self._period_ms
        at = np.searchsorted(self._keys, row * self._period_ms + offset_ms, side="right") - 1
        ends = np.append(self.trace.ends_ms, 0)
        inside = (at >= self.trace.first[row]) & (offset_ms < ends[at])
        return inside, row, at, at_ms - offset_ms, offset_ms
