"""Outlets: a sink that raises, hangs or leaves holds nothing up."""

import json
import os
import threading
from asyncio import CancelledError

import numpy as np
import pytest

from hedgerow.client.answer import Answer
from hedgerow.client.health import Health, Part
from hedgerow.client.outlet import AnswerLines, Outlet


def answer(number: int) -> Answer:
    told = {"label": "é", "index": number, "confidence": 0.5}
    return Answer("demo@1", {"probabilities": np.asarray([0.5, 0.5], np.float32)}, told)


@pytest.fixture
def health() -> Health:
    return Health()


def test_answers_arrive_in_order_and_what_waits_is_handed_over_at_the_end(health):
    taken = []
    outlet = Outlet(lambda given: taken.append(given.index), health, limit_answers=50)
    outlet.start()
    for number in range(40):
        outlet.offer(answer(number))
    outlet.close(5)
    assert taken == list(range(40))
    assert health.problems == ()


@pytest.mark.parametrize("error", [RuntimeError("no hands"), SystemExit(3), BrokenPipeError(), CancelledError()])
def test_a_sink_that_raises_is_named_and_gets_the_next_answer(health, error):
    taken = []

    def sink(given: Answer) -> None:
        taken.append(given.index)
        if given.index == 0:
            raise error

    outlet = Outlet(sink, health)
    outlet.start()
    outlet.offer(answer(0))
    outlet.offer(answer(1))
    outlet.close(5)
    assert taken == [0, 1]
    assert health.failing == {Part.SINK}
    assert type(error).__name__ in health.problems[0]


def test_a_sink_that_hangs_costs_the_oldest_answers_and_no_time(health):
    is_free, began, taken = threading.Event(), threading.Event(), []

    def sink(given: Answer) -> None:
        began.set()
        is_free.wait(10)
        taken.append(given.index)

    outlet = Outlet(sink, health, limit_answers=3)
    outlet.start()
    outlet.offer(answer(0))
    assert began.wait(5)
    for number in range(1, 11):
        outlet.offer(answer(number))
    assert health.problems == ("sink: expected a sink that keeps up, found 3 answers waiting; the oldest is dropped",)
    is_free.set()
    outlet.close(5)
    assert taken == [0, 8, 9, 10]


def test_closing_does_not_wait_for_a_sink_that_hangs(health):
    forever, began = threading.Event(), threading.Event()

    def sink(_given: Answer) -> None:
        began.set()
        forever.wait(20)

    outlet = Outlet(sink, health)
    outlet.start()
    outlet.offer(answer(0))
    assert began.wait(5)
    outlet.close(0.01)
    forever.set()


def test_lines_are_json_one_each_and_flushed():
    reader, writer = os.pipe()
    with os.fdopen(writer, "w", encoding="utf-8") as file:
        lines = AnswerLines(file, lambda: pytest.fail("it is open"))
        lines(answer(1))
        lines(answer(2))
        got = os.read(reader, 10_000).decode()
    os.close(reader)
    assert [json.loads(line)["told"]["index"] for line in got.splitlines()] == [1, 2]
    assert json.loads(got.splitlines()[0]) == answer(1).to_record()


def test_a_reader_that_has_gone_is_noted_once():
    reader, writer = os.pipe()
    os.close(reader)
    noted = []
    file = os.fdopen(writer, "w", encoding="utf-8")
    lines = AnswerLines(file, lambda: noted.append(True))
    lines(answer(1))
    lines(answer(2))
    assert (lines.is_closed, noted) == (True, [True])
    with pytest.raises(BrokenPipeError):
        file.close()
