"""The serving thread: answers come back, faults are named, and it never ends by itself."""

import asyncio
from pathlib import Path

import numpy as np
import pytest

from hedgerow.client.buffer import LabelledBuffer
from hedgerow.client.health import Health, Part
from hedgerow.client.loading import ReadyModel
from hedgerow.client.serving import ActiveModel
from hedgerow.client.slot_folders import OpenSlot
from hedgerow.client.source import Sample, SourceContext
from hedgerow.client.stream import Stream, next_pause_s
from hedgerow.reference import Reference
from tests.client.remembering import ready_of, streaming
from tests.scores import known_and_right

ZEROS = np.zeros(4, dtype=np.float32)


class Moody:
    """A model that knows one class and fails when it is told to."""

    fails = False

    def predict(self, inputs):
        if self.fails:
            raise RuntimeError("out of arena")
        return {"probabilities": np.repeat(np.asarray([[0.125, 0.75, 0.125]], np.float32), len(inputs["x"]), axis=0)}


class Bench:
    """A stream with a clock of its own, which ends after so many pauses or samples."""

    def __init__(self, folder: Path, release) -> None:
        self.now = 0.0
        self.pauses: list[float] = []
        self.windows: list = []
        self.sunk: list = []
        self.limit = 10
        self.model = Moody()
        self.health = Health(timer=lambda: self.now)
        self.buffer = LabelledBuffer(folder / "buffer")
        self.active = ActiveModel(1000, self.windows.append, health=self.health, clock=lambda: self.now)
        made = release(1)
        reference = Reference.decode(made.blobs[made.manifest.reference.sha256])
        slot = OpenSlot(Path("/nowhere"), made.manifest, made.manifest.artifacts[0], reference)
        self.ready = ReadyModel(slot, self.model)
        self.active.activate(self.ready)

    def pause(self, seconds: float) -> bool:
        if seconds:
            self.pauses.append(seconds)
            self.now += seconds
        return len(self.pauses) >= self.limit

    def stream(self, source) -> Stream:
        context = SourceContext("d1", Path("/nowhere"))
        return Stream(
            source,
            context,
            self.active,
            self.buffer,
            self.health,
            pause=self.pause,
            timer=lambda: self.now,
            sinks=[self.sunk.append],
        )

    def run(self, source, *, pauses: int = 1) -> None:
        self.limit = pauses
        self.stream(source).run()


@pytest.fixture
def bench(tmp_path, release) -> Bench:
    made = Bench(tmp_path, release)
    yield made
    made.buffer.close()


def test_a_generator_gets_the_answer_to_each_sample(bench):
    answers = []

    def source(_context):
        answers.append((yield Sample({"x": ZEROS}, 1)))
        answers.append((yield Sample({"x": ZEROS}, 1, "learn")))
        bench.active.activate(None)
        answers.append((yield Sample({"x": ZEROS})))

    bench.run(source)
    first, learned, unserved = answers
    assert (first.release, first.index, first.label, first.confidence) == ("demo@1", 1, "b", 0.75)
    assert first.outputs["probabilities"].tolist() == [0.125, 0.75, 0.125]
    assert (learned, unserved) == (None, None)
    assert [answer.index for answer in bench.sunk] == [1], "no answer, no call of the sink"


@pytest.mark.parametrize("make", [iter, list, lambda samples: (s for s in samples)])
def test_sources_that_ignore_answers_are_served_all_the_same(bench, make):
    bench.run(lambda _context: make([Sample({"x": ZEROS}, 1), Sample({"x": ZEROS}, 0)]))
    bench.active.cut(1)
    assert [(window.samples, *known_and_right(window.scores)) for window in bench.windows] == [(2, 2, 1)]


def test_a_source_that_raises_is_called_again_after_pauses_that_grow_to_a_minute(bench):
    def source(_context):
        yield Sample({"x": ZEROS})
        raise RuntimeError("the cable came off")

    bench.run(source, pauses=9)
    assert bench.pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert bench.health.problems == ("source: RuntimeError",)
    assert len(bench.sunk) == 9


def test_a_source_that_ran_well_begins_with_a_short_pause_again(bench):
    calls = []

    def source(_context):
        calls.append(bench.now)
        yield Sample({"x": ZEROS})
        if len(calls) == 3:
            bench.now += 60
        raise RuntimeError("x")

    bench.run(source, pauses=5)
    assert bench.pauses == [1, 2, 1, 2, 4]


def test_pauses_are_bounded_and_begin_anew():
    assert next_pause_s(0, 5) == 1
    assert next_pause_s(60, 59.9) == 60
    assert next_pause_s(60, 60) == 1


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (lambda _context: iter(()), "found that it ended"),
        (lambda _context: None, "found one that returned NoneType"),
        (lambda _context: 1 / 0, "ZeroDivisionError"),
        (lambda _context: exit_now(), "SystemExit"),
        (lambda _context: (exit_now() for _ in range(3)), "SystemExit"),
        (lambda _context: cancel(), "CancelledError"),
    ],
)
def test_a_source_that_ends_or_is_none_is_named(bench, source, said):
    bench.run(source, pauses=3)
    assert bench.pauses == [1, 2, 4]
    (problem,) = bench.health.problems
    assert problem.startswith("source: ")
    assert said in problem


def exit_now():
    raise SystemExit(3)


def cancel():
    """What a source that is built on asyncio may end in; no Exception."""
    raise asyncio.CancelledError


def test_a_generator_is_closed_when_the_agent_stops(bench):
    closed = []

    def source(_context):
        try:
            while True:
                bench.limit = 0
                yield Sample({"x": ZEROS})
        finally:
            closed.append(True)

    bench.run(source)
    assert closed == [True]
    assert bench.health.problems == ()


@pytest.mark.parametrize(
    ("sample", "said"),
    [
        ({"x": ZEROS}, "found dict"),
        (None, "found NoneType"),
        (Sample({"x": np.zeros(5, np.float32)}), "expected the shape"),
        (Sample({"y": ZEROS}), "expected the inputs x"),
        (Sample({"x": np.zeros(4)}), "float64"),
        (Sample({"x": [1.0, "a", None, 4.0]}), "array of numbers"),
        (Sample({"x": [[1.0], [1.0, 2.0]]}), "ValueError"),
        (Sample(None), "AttributeError"),
        (Sample({"x": ZEROS}, "seven"), "found str"),
        (Sample({"x": ZEROS}, 1.5), "found float"),
        (Sample({"x": ZEROS}, 2**70), "from 0 to"),
        (Sample({"x": ZEROS}, 1, "eat"), "'eat'"),
        (Sample({"x": ZEROS}, 1, ["serve"]), "['serve']"),
        (Sample({"x": [object()]}, 1, "learn"), "array of numbers"),
    ],
)
def test_what_is_no_sample_is_refused_and_the_next_one_is_served(bench, sample, said):
    answers = []

    def source(_context):
        answers.append((yield sample))
        answers.append((yield Sample({"x": ZEROS})))

    bench.run(source)
    assert answers[0] is None
    assert answers[1].index == 1
    problem = next(problem for problem in bench.health.problems if problem.startswith("sample: "))
    assert said in problem


def test_an_answer_that_the_model_cannot_give_is_none_and_the_model_is_named(bench):
    answers = []

    def source(_context):
        bench.model.fails = True
        answers.append((yield Sample({"x": ZEROS})))
        bench.model.fails = False
        answers.append((yield Sample({"x": ZEROS})))
        assert bench.health.problems == ("model: RuntimeError",)
        bench.now += 5
        yield Sample({"x": ZEROS})
        assert bench.health.problems == ()
        raise RuntimeError("the end")

    bench.run(source)
    assert bench.health.problems == ("source: RuntimeError",), "and no assertion of the source's"
    assert [answer and answer.index for answer in answers] == [None, 1]


def test_a_full_disk_costs_labelled_samples_and_no_answer(bench, caplog):
    def full(_inputs, _label):
        raise OSError(28, "No space left on device")

    bench.buffer.add = full
    answers = []

    def source(_context):
        for _ in range(50):
            yield Sample({"x": ZEROS}, 1, "learn")
            answers.append((yield Sample({"x": ZEROS})))

    bench.run(source)
    assert [answer.index for answer in answers] == [1] * 50
    assert any("No space left" in problem for problem in bench.health.problems if problem.startswith("buffer: "))
    assert sum("labelled sample could not be kept" in record.getMessage() for record in caplog.records) == 1


def test_a_fault_of_the_agent_itself_does_not_end_serving(bench, caplog):
    def broken(_answer):
        raise KeyError("a fault of ours")

    calls = []

    def source(_context):
        calls.append(True)
        yield Sample({"x": ZEROS})

    bench.limit = 3
    stream = bench.stream(source)
    stream._sinks = [broken]
    stream.run()
    assert len(calls) == 3
    assert "by a fault of the agent" in caplog.text
    assert Part.SOURCE not in bench.health.failing, "and the source is not to blame"


def test_a_source_says_which_stream_a_sample_belongs_to_and_where_it_begins(bench, release):
    bench.active.activate(ready_of(streaming(release(1))))
    labels = []

    def source(_context):
        for stream, begins in [("a", False), ("a", False), ("b", False), ("a", True), ("b", False), ("a", False)]:
            answer = yield Sample({"x": ZEROS}, stream=stream, begins=begins)
            labels.append(answer.label)

    bench.run(source)

    assert labels == ["a", "b", "a", "a", "b", "b"]


@pytest.mark.parametrize(
    "changes", [{"stream": 5}, {"stream": None}, {"stream": "x" * 65}, {"begins": 1}, {"begins": None}]
)
def test_a_stream_that_is_no_short_name_is_refused_and_the_next_sample_is_served(bench, changes, caplog):
    bench.run(lambda _context: iter([Sample({"x": ZEROS}, **changes), Sample({"x": ZEROS}, stream="x" * 64)]))

    assert [answer.index for answer in bench.sunk] == [1]
    assert "expected a stream of at most 64 characters and begins as True or False" in caplog.text
