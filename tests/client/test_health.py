"""Health: what fails is said once, counted, and said again when it is over."""

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgerow.client.errors import SinkError
from hedgerow.client.health import Health, Part, after_failure, after_success


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def changes() -> list:
    return []


@pytest.fixture
def health(clock, changes, caplog) -> Health:
    caplog.set_level(logging.INFO)
    made = Health(lambda: changes.append(made.problems), timer=clock)
    return made


def lines(caplog) -> list[str]:
    return [f"{record.levelname} {record.getMessage()}" for record in caplog.records]


def test_a_thousand_failures_are_one_line_and_their_end_is_another(health, clock, changes, caplog):
    for _ in range(1000):
        health.failed(Part.WINDOWS, OSError(28, "No space left on device"))
        clock.now += 0.01
    assert health.problems == ("windows: OSError: No space left on device",)
    clock.now += 5
    health.worked(Part.WINDOWS)
    assert health.problems == ()
    assert lines(caplog) == [
        "ERROR a window could not be written: OSError: [Errno 28] No space left on device",
        "INFO windows are written again; 1,000 were not written at once in 10 s",
    ]
    assert [len(problems) for problems in changes] == [1, 0]


def test_a_fault_of_the_code_comes_with_its_traceback_and_a_known_error_without(health, caplog):
    health.failed(Part.MODEL, ZeroDivisionError("division by zero"))
    health.failed(Part.SINK, SinkError("expected a sink that keeps up"))
    health.failed(Part.STATE, OSError(30, "Read-only file system"))
    assert [record.exc_info is not None for record in caplog.records] == [True, False, False]
    assert health.problems == (
        "model: ZeroDivisionError",
        "sink: expected a sink that keeps up",
        "state: OSError: Read-only file system",
    )
    assert health.failing == {Part.MODEL, Part.SINK, Part.STATE}


def test_what_still_fails_after_an_hour_is_said_with_its_count(health, clock, caplog):
    for _ in range(3601):
        health.failed(Part.SAMPLE, "expected 4 numbers, found 5")
        clock.now += 1
    assert len(caplog.records) == 2
    assert lines(caplog)[1] == (
        "ERROR a sample of the source was refused: expected 4 numbers, found 5; by now 3,601 were refused in 60 min"
    )


def test_a_success_right_after_a_failure_ends_nothing(health, clock):
    health.failed(Part.MODEL, "x")
    clock.now += 4.9
    health.worked(Part.MODEL)
    assert health.failing == {Part.MODEL}
    clock.now += 0.1
    health.worked(Part.MODEL)
    assert health.failing == set()


def test_what_comes_and_goes_is_given_ever_longer_to_show_that_it_is_well(health, clock, caplog):
    """One failure in every 6 seconds for an hour, with successes in between."""
    for _ in range(600):
        health.failed(Part.MODEL, "x")
        clock.now += 5.5
        health.worked(Part.MODEL)
        clock.now += 0.5
    assert lines(caplog) == [
        "ERROR the model failed to predict: x",
        "INFO the model predicts again; 1 predictions failed in 0 s",
        "ERROR the model failed to predict: x",
    ]


def test_other_parts_are_others(health, clock):
    health.failed(Part.MODEL, "x")
    clock.now += 100
    health.worked(Part.SOURCE)
    assert health.failing == {Part.MODEL}
    health.forget(Part.MODEL, Part.COUNTING)
    assert health.failing == set()


def test_a_long_reason_is_cut_and_lines_become_one(health, caplog):
    health.failed(Part.SINK, SinkError("a\nb " + "x" * 1000))
    (problem,) = health.problems
    assert problem.startswith("sink: a b xxx")
    assert problem.endswith("...")
    assert len(problem) == len("sink: ") + 200
    assert lines(caplog) == ["ERROR an answer could not be handed on: " + problem.removeprefix("sink: ")]


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ValueError("could not convert 'Jane Doe, 37.2'"), "source: ValueError"),
        (
            FileNotFoundError(2, "No such file or directory", "/home/jane"),
            "source: FileNotFoundError: No such file or directory",
        ),
        (OSError("Jane"), "source: OSError"),
        (SystemExit("Jane"), "source: SystemExit"),
    ],
)
def test_the_fleet_never_hears_what_an_exception_quotes(health, caplog, error, told):
    health.failed(Part.SOURCE, error)
    assert health.problems == (told,)
    assert str(error) in caplog.text, "the device's own log does"


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 1000)), max_size=60))
def test_news_and_ends_alternate_and_every_failure_is_counted(history):
    trouble, now, said, counted, failures = None, 0.0, [], 0, 0
    for is_failure, passed_s in history:
        now += passed_s
        if is_failure:
            failures += 1
            before = trouble
            trouble, is_news = after_failure(trouble, "x", now)
            if before is not None and not before.is_over and is_news:
                continue
            if is_news:
                said.append("failed")
        elif trouble is not None:
            trouble, is_end = after_success(trouble, now)
            if is_end:
                counted += trouble.failures
                said.append("over")
    assert said == [("failed", "over")[index % 2] for index in range(len(said))]
    if trouble is not None and not trouble.is_over:
        counted += trouble.failures
    assert counted == failures
