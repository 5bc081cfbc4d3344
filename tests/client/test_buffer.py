"""The labelled buffer: bounded, free of repeats, in one order, and whole after a crash."""

import contextlib
import hashlib
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgerow.client.buffer import LabelledBuffer
from hedgerow.model_schema import ModelSchema
from hedgerow.outputs import Classes, Custom, Labels, Outputs, Reconstruction, Tokens, Values
from hedgerow.outputs.wanted import as_declared, as_given
from hedgerow.schema import TensorSpec
from hedgerow.weights import encode_arrays

SCHEMA = ModelSchema(
    (TensorSpec("x", (3,)),), (TensorSpec("probabilities", (5,)),), Outputs.of(Classes(tuple("abcde")))
)


def sample(number: int) -> dict[str, np.ndarray]:
    return {"x": np.full(3, number, dtype=np.float32)}


def of_class(number: int) -> dict[str, np.ndarray]:
    return as_given(number)


def everything(buffer: LabelledBuffer) -> list[tuple[float, int]]:
    with buffer.samples(SCHEMA) as samples:
        if len(samples) == 0:
            return []
        inputs, wanted = samples.read(np.arange(len(samples)))
        (labels,) = wanted.values()
        assert inputs["x"].shape == (len(samples), 3)
        assert labels.dtype == np.int64
        return list(zip(inputs["x"][:, 0].tolist(), labels.tolist(), strict=True))


def test_equal_samples_are_kept_once_and_another_label_is_another_sample(tmp_path):
    buffer = LabelledBuffer(tmp_path)
    assert buffer.add(sample(1), of_class(0))
    assert not buffer.add(sample(1), of_class(0))
    assert buffer.add(sample(1), of_class(1))
    assert len(buffer) == 2
    buffer.close()


@given(st.permutations(range(8)))
def test_the_order_of_arrival_does_not_show(tmp_path_factory, order):
    buffer = LabelledBuffer(tmp_path_factory.mktemp("b"))
    for number in order:
        buffer.add(sample(number), of_class(number % 5))
    assert [label for _, label in everything(buffer)] == [int(value) % 5 for value, _ in everything(buffer)]
    straight = LabelledBuffer(tmp_path_factory.mktemp("b"))
    for number in range(8):
        straight.add(sample(number), of_class(number % 5))
    assert everything(buffer) == everything(straight)
    buffer.close()
    straight.close()


def test_the_oldest_go_first_also_after_a_restart(tmp_path):
    buffer = LabelledBuffer(tmp_path, limit_samples=4)
    for number in range(10):
        buffer.add(sample(number), of_class(0))
    assert sorted(value for value, _ in everything(buffer)) == [6, 7, 8, 9]
    buffer.close()
    again = LabelledBuffer(tmp_path, limit_samples=3)
    assert sorted(value for value, _ in everything(again)) == [7, 8, 9]
    assert not again.add(sample(9), of_class(0))
    again.close()


@given(st.integers(0, 400))
def test_a_file_cut_anywhere_gives_the_samples_before_the_cut(tmp_path_factory, kept):
    folder = tmp_path_factory.mktemp("b")
    buffer = LabelledBuffer(folder)
    for number in range(5):
        buffer.add(sample(number), of_class(0))
    buffer.close()
    path = folder / "samples.bin"
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:kept])
    again = LabelledBuffer(folder)
    whole = min(kept, size) // (size // 5)
    assert len(again) == whole
    again.add(sample(9), of_class(1))
    again.close()
    last = LabelledBuffer(folder)
    assert len(last) == whole + 1
    last.close()


def test_a_damaged_sample_is_left_out_and_the_rest_stays(tmp_path):
    buffer = LabelledBuffer(tmp_path)
    for number in range(3):
        buffer.add(sample(number), of_class(0))
    buffer.close()
    path = tmp_path / "samples.bin"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)
    again = LabelledBuffer(tmp_path)
    assert sorted(value for value, _ in everything(again)) == [0, 2]
    again.close()


def test_dropped_samples_give_their_room_back_while_a_reader_goes_on(tmp_path):
    big = {"x": np.zeros((64, 1024), dtype=np.float32)}
    buffer = LabelledBuffer(tmp_path, limit_samples=4)
    buffer.add(sample(1), of_class(0))
    reader = buffer.samples(SCHEMA)
    for number in range(40):
        buffer.add({"x": big["x"] + number}, of_class(0))
    assert (tmp_path / "samples.bin").stat().st_size < 16 * big["x"].nbytes
    assert len(buffer) == 4
    assert reader.read(np.asarray([0]))[0]["x"].tolist() == [[1, 1, 1]]
    reader.close()
    buffer.close()
    again = LabelledBuffer(tmp_path, limit_samples=4)
    assert len(again) == 4
    again.close()


@pytest.mark.parametrize(
    ("inputs", "label"),
    [
        ({"y": np.zeros(3, np.float32)}, 0),
        ({"x": np.zeros(4, np.float32)}, 0),
        ({"x": np.zeros(3, np.float64)}, 0),
        ({"x": np.zeros(3, np.float32)}, 5),
        ({"x": np.zeros(3, np.float32)}, -1),
    ],
)
def test_samples_of_another_schema_are_kept_but_not_read(tmp_path, inputs, label):
    buffer = LabelledBuffer(tmp_path)
    buffer.add(inputs, of_class(label))
    assert len(buffer) == 1
    assert everything(buffer) == []
    buffer.close()


class Clock:
    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def since(buffer: LabelledBuffer, moment: float | None) -> list[float]:
    with buffer.samples(SCHEMA, since=moment) as samples:
        if not len(samples):
            return []
        return sorted(samples.read(np.arange(len(samples)))[0]["x"][:, 0].tolist())


def test_samples_from_before_a_change_can_be_left_out_also_after_a_restart(tmp_path):
    clock = Clock(1000.0)
    buffer = LabelledBuffer(tmp_path, clock=clock)
    for number in range(4):
        clock.now = 1000.0 + number
        buffer.add(sample(number), of_class(0))
    assert since(buffer, None) == [0, 1, 2, 3]
    assert since(buffer, 1002.0) == [2, 3]
    assert since(buffer, 1003.5) == []
    buffer.close()
    again = LabelledBuffer(tmp_path, clock=clock)
    assert since(again, 1002.0) == [2, 3]
    again.close()


@pytest.mark.parametrize(("later_s", "after_restart"), [(30.0, []), (90.0, [1])])
def test_a_sample_that_is_labelled_again_is_as_new_as_its_last_label(tmp_path, later_s, after_restart):
    """On the disk no more often than once a minute; a restart may make it older, never newer."""
    clock = Clock(1000.0)
    buffer = LabelledBuffer(tmp_path, limit_samples=2, clock=clock)
    buffer.add(sample(1), of_class(0))
    buffer.add(sample(2), of_class(0))
    clock.now += later_s
    assert not buffer.add(sample(1), of_class(0))
    assert since(buffer, 1000.0 + later_s) == [1]
    assert len(buffer) == 2
    buffer.close()
    again = LabelledBuffer(tmp_path, limit_samples=2, clock=clock)
    assert since(again, 1000.0 + later_s) == after_restart
    assert since(again, 1000.0) == [1, 2]
    if after_restart:
        again.add(sample(3), of_class(0))
        assert since(again, None) == [1, 3], "the oldest goes first"
    again.close()


def test_compaction_keeps_the_times(tmp_path):
    clock = Clock(1000.0)
    buffer = LabelledBuffer(tmp_path, limit_samples=3, clock=clock)
    big = np.zeros((64, 1024), dtype=np.float32)
    buffer.add(sample(1), of_class(0))
    for number in range(20):
        clock.now += 100
        buffer.add(sample(1), of_class(0))
        buffer.add({"x": big + number}, of_class(0))
    assert (tmp_path / "samples.bin").stat().st_size < 12 * big.nbytes
    buffer.close()
    again = LabelledBuffer(tmp_path, limit_samples=3, clock=clock)
    assert since(again, clock.now) == [1]
    assert since(again, clock.now + 1) == []
    again.close()


def without_times(content: bytes) -> bytes:
    """Return the file as an agent wrote it before samples had times."""
    old, place = b"", 0
    while place < len(content):
        length = int.from_bytes(content[place + 4 : place + 8], "little")
        old += b"HGB1" + content[place + 4 : place + 40] + content[place + 52 : place + 52 + length]
        place += 52 + length
    return old


def test_samples_of_an_agent_that_kept_no_times_are_older_than_every_change(tmp_path):
    buffer = LabelledBuffer(tmp_path)
    for number in range(3):
        buffer.add(sample(number), of_class(0))
    buffer.close()
    path = tmp_path / "samples.bin"
    path.write_bytes(without_times(path.read_bytes()))
    again = LabelledBuffer(tmp_path, clock=Clock(5000.0))
    assert since(again, None) == [0, 1, 2]
    assert since(again, 1.0) == []
    again.add(sample(1), of_class(0))
    assert since(again, 1.0) == [1]
    again.close()
    last = LabelledBuffer(tmp_path)
    assert (since(last, None), since(last, 1.0)) == ([0, 1, 2], [1])
    last.close()


@pytest.mark.parametrize("byte", range(40, 52))
def test_a_damaged_time_makes_a_sample_old_and_no_other(tmp_path, byte):
    buffer = LabelledBuffer(tmp_path, clock=Clock(5000.0))
    for number in range(2):
        buffer.add(sample(number), of_class(0))
    buffer.close()
    path = tmp_path / "samples.bin"
    content = bytearray(path.read_bytes())
    content[byte] ^= 255
    path.write_bytes(content)
    again = LabelledBuffer(tmp_path)
    assert since(again, None) == [0, 1]
    assert since(again, 1.0) == [1]
    again.close()


def test_a_buffer_that_cannot_be_written_is_read(tmp_path, monkeypatch):
    buffer = LabelledBuffer(tmp_path)
    for number in range(4):
        buffer.add(sample(number), of_class(number))
    buffer.close()
    with (tmp_path / "samples.bin").open("ab") as file:
        file.write(b"cut off")
    content = (tmp_path / "samples.bin").read_bytes()
    real = type(tmp_path).open

    def refuse(path, mode="r", *more, **options):
        if "a" in mode or "w" in mode:
            raise OSError(30, "Read-only file system")
        return real(path, mode, *more, **options)

    monkeypatch.setattr("pathlib.Path.open", refuse)
    worn = LabelledBuffer(tmp_path)
    assert sorted(everything(worn)) == [(0, 0), (1, 1), (2, 2), (3, 3)]
    with pytest.raises(OSError, match="Read-only"):
        worn.add(sample(9), of_class(0))
    worn.close()
    assert (tmp_path / "samples.bin").read_bytes() == content
    empty = LabelledBuffer(tmp_path / "none")
    assert everything(empty) == []
    empty.close()


@given(position=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_one_flipped_bit_costs_one_sample_at_most(tmp_path_factory, position, bit):
    folder = tmp_path_factory.mktemp("b")
    buffer = LabelledBuffer(folder)
    for number in range(6):
        buffer.add(sample(number), of_class(number % 5))
    wanted = everything(buffer)
    buffer.close()
    content = bytearray((folder / "samples.bin").read_bytes())
    content[position % len(content)] ^= 1 << bit
    (folder / "samples.bin").write_bytes(bytes(content))
    for _start in range(2):
        damaged = LabelledBuffer(folder)
        assert set(everything(damaged)) <= {*wanted, (9.0, 0)}
        assert len(damaged) >= 5
        damaged.add(sample(9), of_class(0))
        assert (9, 0) in everything(damaged)
        damaged.close()


class NoRoom:
    """A file on a disk that is full as long as it is told so: nothing is written, as by the kernel."""

    def __init__(self, file) -> None:
        self.file, self.is_full = file, True

    def write(self, content: bytes) -> int:
        if self.is_full:
            raise OSError(28, "No space left on device")
        return self.file.write(content)

    def __getattr__(self, name: str):
        return getattr(self.file, name)


def test_a_known_sample_that_comes_again_on_a_full_disk_is_not_lost(tmp_path):
    now = [1000.0]
    buffer = LabelledBuffer(tmp_path, clock=lambda: now[0])
    for number in range(3):
        buffer.add(sample(number), of_class(number))
    buffer._file = disk = NoRoom(buffer._file)
    now[0] = 2000.0
    with pytest.raises(OSError, match="No space"):
        buffer.add(sample(1), of_class(1))
    with pytest.raises(OSError, match="No space"):
        buffer.add(sample(7), of_class(1))
    assert sorted(everything(buffer)) == [(0, 0), (1, 1), (2, 2)]
    assert since(buffer, 1500.0) == [1], "as new as its last label"
    disk.is_full = False
    assert buffer.add(sample(7), of_class(1))
    assert sorted(everything(buffer)) == [(0, 0), (1, 1), (2, 2), (7, 1)]
    buffer.close()
    again = LabelledBuffer(tmp_path)
    assert sorted(everything(again)) == [(0, 0), (1, 1), (2, 2), (7, 1)]
    again.close()


def test_a_compaction_that_finds_no_room_loses_no_sample_and_leaves_nothing_behind(tmp_path, monkeypatch):
    buffer = LabelledBuffer(tmp_path, limit_samples=2)
    large = {"x": np.zeros(300_000, np.float32)}
    buffer.add(large, of_class(0))
    buffer.add({"x": np.ones(300_000, np.float32)}, of_class(1))
    real = os.fsync

    def full(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("hedgerow.client.buffer.os.fsync", full)
    for number in range(2, 6):
        with contextlib.suppress(OSError):
            buffer.add({"x": np.full(300_000, number, np.float32)}, of_class(number))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["samples.bin"]
    monkeypatch.setattr("hedgerow.client.buffer.os.fsync", real)
    buffer.add({"x": np.full(300_000, 6, np.float32)}, of_class(6))
    assert (tmp_path / "samples.bin").stat().st_size < 3 * 1_200_000 + 1000
    buffer.close()
    again = LabelledBuffer(tmp_path, limit_samples=2)
    large_schema = ModelSchema(
        (TensorSpec("x", (300_000,)),), (TensorSpec("probabilities", (7,)),), Outputs.of(Classes(tuple("abcdefg")))
    )
    with again.samples(large_schema) as samples:
        assert sorted(samples.read(np.arange(2))[1]["probabilities"].tolist()) == [5, 6]
    again.close()


def test_a_folder_that_can_be_written_again_takes_samples_again(tmp_path, monkeypatch):
    LabelledBuffer(tmp_path).close()
    real, is_worn = type(tmp_path).open, [True]

    def refuse(path, mode="r", *more, **options):
        if is_worn and ("a" in mode or "w" in mode):
            raise OSError(30, "Read-only file system")
        return real(path, mode, *more, **options)

    monkeypatch.setattr("pathlib.Path.open", refuse)
    buffer = LabelledBuffer(tmp_path)
    with pytest.raises(OSError, match="Read-only"):
        buffer.add(sample(1), of_class(1))
    is_worn.clear()
    assert buffer.add(sample(2), of_class(2))
    assert everything(buffer) == [(2, 2)]
    buffer.close()
    again = LabelledBuffer(tmp_path)
    assert everything(again) == [(2, 2)]
    again.close()


def test_a_card_that_cannot_be_read_any_more_gives_what_was_read_before(tmp_path, monkeypatch, caplog):
    buffer = LabelledBuffer(tmp_path)
    for number in range(4):
        buffer.add(sample(number), of_class(number))
    buffer.close()
    content = (tmp_path / "samples.bin").read_bytes()
    real = LabelledBuffer._record_at
    read = []

    def failing(self, offset, end):
        if len(read) == 2:
            raise OSError(5, "Input/output error")
        read.append(offset)
        return real(self, offset, end)

    monkeypatch.setattr(LabelledBuffer, "_record_at", failing)
    worn = LabelledBuffer(tmp_path)
    assert len(worn) == 2
    assert "Input/output error" in caplog.text
    worn.close()
    assert (tmp_path / "samples.bin").read_bytes() == content, "what cannot be read is not cut off"


def test_a_sample_from_the_future_is_no_news(tmp_path):
    now = [5000.0]
    buffer = LabelledBuffer(tmp_path, clock=lambda: now[0])
    buffer.add(sample(1), of_class(1))
    now[0] = 1000.0
    buffer.add(sample(2), of_class(2))
    assert since(buffer, 900.0) == [2], "when it came is not known: the clock was wrong"
    assert sorted(everything(buffer)) == [(1, 1), (2, 2)]
    buffer.add(sample(1), of_class(1))
    assert sorted(since(buffer, 900.0)) == [1, 2]
    buffer.close()


KINDS = {
    "labels": (Labels(("hot", "wet")), [1, 0], [1, 2]),
    "values": (Values(("level", "flow"), 1.0), [1.5, 2.5], [1.5, np.nan]),
    "one value": (Values("level", 1.0), 1.5, np.inf),
    "reconstruction": (Reconstruction(), 0, 1),
    "tokens": (Tokens(("lo", "hi"), 3), [0, 1, -1], [-1, -1, -1]),
    "custom": (Custom((2,), wanted_shape=(2, 2)), [[1, 2], [3, 4]], [1, 2, 3, 4, 5]),
    "several": (
        {"state": Classes(("a", "b")), "level": Values("level", 1.0)},
        {"state": 1, "level": 2.5},
        {"state": 1},
    ),
    "flags beside classes": (
        {"state": Classes(("a", "b")), "odd": Reconstruction()},
        {"state": 1},
        {"state": 1, "odd": 1},
    ),
}
"""Kind -> its output, a target value that teaches, and one that does not."""


def schema_of(outputs) -> ModelSchema:
    found = Outputs.of(outputs)
    return ModelSchema((TensorSpec("x", (3,)),), found.tensors(), found)


@pytest.mark.parametrize("kind", KINDS)
def test_target_values_of_any_form_survive_and_those_that_teach_nothing_are_left_out(tmp_path, kind):
    output, good, useless = KINDS[kind]
    schema = schema_of(output)
    buffer = LabelledBuffer(tmp_path)
    assert buffer.add(sample(1), as_given(good))
    assert buffer.add(sample(2), as_given(useless))
    assert not buffer.add(sample(1), as_given(good))
    buffer.close()

    again = LabelledBuffer(tmp_path)
    assert len(again) == 2
    with again.samples(schema) as samples:
        assert len(samples) == 1
        inputs, wanted = samples.read(np.zeros(2, np.int64))
    assert inputs["x"].tolist() == [[1, 1, 1]] * 2
    assert list(wanted) == list(schema.answers)
    rows = {name: np.asarray(value)[None] for name, value in as_given(good).items()}
    for name, values in as_declared(schema.answers, rows, 1).items():
        assert (values.dtype, values.shape[1:]) == (wanted[name].dtype, wanted[name].shape[1:])
        np.testing.assert_array_equal(wanted[name], np.repeat(values, 2, axis=0))
    again.close()


def test_without_a_target_value_a_sample_teaches_only_what_learns_alone(tmp_path):
    buffer = LabelledBuffer(tmp_path)
    buffer.add(sample(1), as_given(None))
    for outputs, count in ((Reconstruction(), 1), (Classes(("a", "b")), 0), (Values("level", 1.0), 0)):
        with buffer.samples(schema_of(outputs)) as samples:
            assert len(samples) == count
    buffer.close()


def test_a_target_value_that_another_release_asked_for_teaches_this_one_nothing(tmp_path):
    buffer = LabelledBuffer(tmp_path)
    for number, value in enumerate((2, [1, 0], 1.5, {"state": 1, "level": 2.5}, {"probabilities": 1})):
        buffer.add(sample(number), as_given(value))
    assert sorted(everything(buffer)) == [(0, 2), (4, 1)]
    with buffer.samples(schema_of({"state": Classes(("a", "b")), "level": Values("level", 1.0)})) as samples:
        assert samples.read(np.arange(len(samples)))[0]["x"][:, 0].tolist() == [3]
    with buffer.samples(ModelSchema(SCHEMA.inputs, SCHEMA.outputs)) as samples:
        assert len(samples) == 0, "of a model of which nobody has said what it gives"
    buffer.close()


def test_a_file_of_classes_is_what_it_always_was(tmp_path):
    """Agents of before kept a class as ``label``, one int64 in a row; so its samples keep their order in training."""
    arrays = {"label": np.asarray([3], np.int64), "input.x": np.full(3, 7, np.float32)}
    payload = encode_arrays(arrays)
    old = b"HGB1" + len(payload).to_bytes(4, "little") + hashlib.sha256(payload).digest() + payload
    (tmp_path / "samples.bin").write_bytes(old)

    buffer = LabelledBuffer(tmp_path)
    assert everything(buffer) == [(7, 3)]
    assert not buffer.add(sample(7), of_class(3)), "the same sample, and the same bytes"
    buffer.close()


@pytest.mark.parametrize(
    "arrays",
    [
        {"label": np.zeros(1, np.int64)},
        {"input.x": np.zeros(3, np.float32), "weight": np.zeros(3, np.float32)},
        {"input.x": np.zeros(3, np.float32), "label": np.zeros(1), "label.state": np.zeros(1)},
        {"input.x": np.zeros(3, np.float32), **{f"label.o{number}": np.zeros(1) for number in range(17)}},
    ],
)
def test_a_record_that_is_no_sample_is_left_out_and_the_next_one_is_read(tmp_path, arrays, caplog):
    payload = encode_arrays(arrays)
    record = b"HGB1" + len(payload).to_bytes(4, "little") + hashlib.sha256(payload).digest() + payload
    buffer = LabelledBuffer(tmp_path)
    buffer.add(sample(1), of_class(1))
    buffer.close()
    path = tmp_path / "samples.bin"
    path.write_bytes(record + path.read_bytes())

    again = LabelledBuffer(tmp_path)
    assert everything(again) == [(1, 1)]
    assert "a labelled sample is left out: " in caplog.text
    again.close()


def test_a_sample_is_judged_once_for_the_same_outputs_and_anew_for_others(tmp_path, monkeypatch):
    from hedgerow.client import buffer as module

    read = []
    unpacked = module._unpack
    monkeypatch.setattr(module, "_unpack", lambda payload: read.append(payload) or unpacked(payload))
    buffer = LabelledBuffer(tmp_path)
    for number in range(4):
        buffer.add(sample(number), of_class(number))
    fewer = ModelSchema(SCHEMA.inputs, (TensorSpec("probabilities", (2,)),), Outputs.of(Classes(("a", "b"))))
    lengths = []
    for schema in (SCHEMA, SCHEMA, fewer, fewer, SCHEMA):
        with buffer.samples(schema) as samples:
            lengths.append((len(samples), len(read)))
    assert lengths == [(4, 4), (4, 4), (2, 8), (2, 8), (4, 12)]

    buffer.add(sample(4), of_class(4))
    with buffer.samples(SCHEMA) as samples:
        assert (len(samples), len(read)) == (5, 13), "only what came is looked at"
    buffer.close()


def test_target_values_given_in_two_forms_are_one_batch(tmp_path):
    buffer = LabelledBuffer(tmp_path)
    for number in range(6):
        target = number % 5
        buffer.add(sample(number), as_given(target) if number % 2 else as_given({"probabilities": np.int64(target)}))
    assert sorted(everything(buffer)) == [(float(number), number % 5) for number in range(6)]
    buffer.close()
