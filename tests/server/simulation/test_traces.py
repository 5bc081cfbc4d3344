import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgerow.errors import DecodeError
from hedgerow.server.simulation.traces import Trace, TraceAvailability, decode_trace

CSV = b"device,start_s,end_s\na,0,10\nb,20,30.5\na,15,20\n"
FORMS = {
    "intervals as CSV": CSV,
    "intervals as JSON lines": b'{"device":"a","start_s":0,"end_s":10}\n\n{"device":"b","start_s":20,"end_s":30.5}\n'
    b'{"device":"a","start_s":15,"end_s":20}\n',
    "changes as CSV": b"device, at_s, available\r\na,0,true\r\na,10,false\r\nb,20,1\r\nb,30.5,0\r\n"
    b"a,15,TRUE\r\na,20,false",
    "changes as JSON lines": b"\n".join(
        json.dumps({"device": device, "at_s": at_s, "available": available}).encode()
        for device, at_s, available in [
            ("a", 20, False),
            ("a", 0, True),
            ("b", 20, True),
            ("a", 15, True),
            ("a", 17, True),
            ("a", 10, False),
            ("b", 30.5, False),
        ]
    ),
}

spans = st.lists(
    st.tuples(st.sampled_from("abc"), st.integers(0, 60), st.integers(1, 40)).map(lambda t: (t[0], t[1], t[1] + t[2])),
    min_size=1,
    max_size=12,
)


def _csv(rows: list[tuple[str, int, int]]) -> bytes:
    return "\n".join(["device,start_s,end_s", *(f"{name},{start},{end}" for name, start, end in rows)]).encode()


@pytest.mark.parametrize("form", FORMS)
def test_all_forms_mean_the_same(form: str):
    trace = decode_trace(FORMS[form], "trace")
    assert trace.devices == ("a", "b")
    assert trace.first.tolist() == [0, 2, 3]
    assert trace.starts_ms.tolist() == [0, 15_000, 20_000]
    assert trace.ends_ms.tolist() == [10_000, 20_000, 30_500]
    assert trace.length_ms == 30_500


def test_overlapping_intervals_are_one():
    trace = decode_trace(_csv([("a", 5, 9), ("a", 0, 5), ("a", 2, 3), ("a", 20, 21)]), "trace")
    assert list(zip(trace.starts_ms.tolist(), trace.ends_ms.tolist(), strict=True)) == [(0, 9000), (20_000, 21_000)]


def test_a_device_without_a_last_change_stays_to_the_end():
    trace = decode_trace(b"device,at_s,available\na,5,true\nb,0,false\nc,50,false\n", "trace")
    assert trace.devices == ("a", "b", "c")
    assert (trace.starts_ms.tolist(), trace.ends_ms.tolist()) == ([5000], [50_000])


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        (b"", "the header"),
        (b"device,start_s\n", "the header"),
        (b"device,start_s,end_s\n", "at least one time"),
        (b"device,start_s,end_s\na,1\n", "3 fields"),
        (b"device,start_s,end_s\na,1,1\n", "a time after start_s"),
        (b"device,start_s,end_s\na,nan,1\n", "seconds from 0"),
        (b"device,start_s,end_s\na,-1,1\n", "seconds from 0"),
        (b"device,start_s,end_s\na,0,1e300\n", "seconds from 0"),
        (b"device,start_s,end_s\n,0,1\n", "a name of"),
        (b"device,start_s,end_s\n" + b"a" * 2000, "characters"),
        (b'device,start_s,end_s\n"a,0,1\n', "CSV"),
        (b"device,at_s,available\na,0,maybe\n", "true or false"),
        (b"device,at_s,available\na,1,true\na,1,false\n", "one change"),
        (b'{"device":"a","start_s":0,"end_s":1,"x":1}\n', "only the fields"),
        (b'{"device":"a","start_s":0,"end_s":1}\n{"device":"a","at_s":0,"available":true}\n', "intervals or changes"),
        (b'{"device":"a","start_s":true,"end_s":1}\n', "finite number"),
        (b'{"device":"a"', "JSON"),
        (b"\xff\xfe", "UTF-8"),
    ],
)
def test_what_is_no_trace_is_refused_with_its_place(payload: bytes, said: str):
    with pytest.raises(DecodeError, match=said):
        decode_trace(payload, "trace")


@given(st.binary(max_size=300) | st.builds(lambda tail: b"device,start_s,end_s\n" + tail, st.binary(max_size=200)))
def test_bytes_from_anywhere_are_read_or_refused(payload: bytes):
    try:
        trace = decode_trace(payload, "trace")
    except DecodeError:
        return
    assert (trace.ends_ms > trace.starts_ms).all()


@given(
    st.sampled_from(sorted(FORMS)),
    st.lists(st.tuples(st.integers(0, 300), st.integers(0, 255)), min_size=1, max_size=4),
)
def test_damaged_traces_are_read_or_refused(form: str, damage: list[tuple[int, int]]):
    payload = bytearray(FORMS[form])
    for place, value in damage:
        payload[place % len(payload)] = value
    try:
        trace = decode_trace(bytes(payload), "trace")
    except DecodeError:
        return
    assert (np.diff(trace.first) >= 0).all()


def _inside(rows: list[tuple[str, int, int]], device: str, at: float) -> bool:
    return any(name == device and start <= at < end for name, start, end in rows)


@given(spans, st.integers(0, 5), st.integers(0, 400), st.integers(0, 50))
def test_look_ups_agree_with_the_intervals_one_by_one(
    rows: list[tuple[str, int, int]], device: int, at_s: int, pause_s: int
):
    trace = decode_trace(_csv(rows), "trace")
    period_s = trace.length_ms // 1000 + pause_s
    model = TraceAvailability(trace, period_s)
    name = trace.devices[device % len(trace.devices)]
    states = [_inside(rows, name, second % period_s) for second in range(at_s, at_s + 2 * period_s + 1)]
    devices = np.array([device])
    assert model.is_available(devices, float(at_s)).tolist() == [states[0]]
    assert model.next_start(devices, float(at_s)).tolist() == [at_s + states.index(True)]
    until = at_s + states.index(False) if False in states else np.inf
    assert model.until(devices, float(at_s)).tolist() == [until]


def test_a_device_that_was_never_there_never_comes():
    model = TraceAvailability(decode_trace(b"device,at_s,available\na,5,false\nb,0,true\n", "trace"))
    assert np.isinf(model.next_start(np.array([0, 2]), 1.0)).all()
    assert model.is_available(np.arange(4), 1.0).tolist() == [False, True, False, True]


def test_a_recording_must_fit_its_period():
    trace = decode_trace(CSV, "trace")
    assert isinstance(trace, Trace)
    with pytest.raises(ValueError, match="does not fit"):
        TraceAvailability(trace, 30.0)
