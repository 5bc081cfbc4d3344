"""What is said of progress, and when."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgerow.progress import Progress, ProgressLines, ProgressRecorder, describe, silent


def test_silence_takes_any_progress(capsys):
    silent(Progress("compile raspberry-pi-4", 1, 4, "accuracy 0.96"))

    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_the_recorder_keeps_every_step():
    recorder = ProgressRecorder()
    steps = [Progress("a", 1, 2), Progress("a", 2, 2, "done")]
    for step in steps:
        recorder(step)

    assert recorder.steps == steps


@pytest.mark.parametrize(
    ("progress", "elapsed_s", "line"),
    [
        (Progress("train digits", 3, 20, "accuracy 0.91"), 12.4, "train digits: 3 of 20, accuracy 0.91 (12 s)"),
        (Progress("compile", 0, 9), 0, "compile: 0 of 9 (0 s)"),
        (Progress("download", 1312.5, 0, "torch", unit="MB"), 61, "download: 1,312.5 MB, torch (61 s)"),
        (Progress("download", 12, 24, unit="MB"), 1, "download: 12 of 24 MB (1 s)"),
    ],
)
def test_a_step_is_one_line(progress, elapsed_s, line):
    assert describe(progress, elapsed_s) == line


@pytest.mark.parametrize(
    ("done", "total", "is_over"),
    [(0, 2, False), (1.9, 2, False), (2, 2, True), (3, 2, True), (0, 0, False), (9, 0, False)],
)
def test_work_is_over_when_all_of_a_known_total_is_done(done, total, is_over):
    assert Progress("x", done, total).is_over is is_over


def test_a_line_is_said_every_five_seconds_and_at_the_end():
    lines = ProgressLines(5)
    said = [lines.step(Progress("train", done, 100), now_s) for done, now_s in enumerate(range(100), start=1)]

    assert [line for line in said if line][:3] == [
        "train: 6 of 100 (5 s)",
        "train: 11 of 100 (10 s)",
        "train: 16 of 100 (15 s)",
    ]
    assert said[-1] == "train: 100 of 100 (99 s)"
    assert len([line for line in said if line]) == 20


def test_what_is_over_soon_says_its_end_alone():
    lines = ProgressLines(5)

    assert lines.step(Progress("train", 1, 2), 0) is None
    assert lines.tick(4.9) is None
    assert lines.step(Progress("train", 2, 2), 4.9) == "train: 2 of 2 (5 s)"


def test_a_work_that_does_not_move_shows_that_it_lives():
    lines = ProgressLines(5)
    assert lines.tick(0) is None
    lines.step(Progress("compile", 1, 9, "quantize"), 10)

    assert [line for now_s in range(10, 22) if (line := lines.tick(now_s))] == [
        "compile: 1 of 9, quantize (5 s)",
        "compile: 1 of 9, quantize (10 s)",
    ]


def test_of_several_works_the_one_that_moved_last_is_said():
    lines = ProgressLines(5)
    lines.step(Progress("a", 1, 9), 0)
    lines.step(Progress("b", 1, 9), 1)
    lines.step(Progress("a", 2, 9), 2)

    assert lines.tick(5) == "a: 2 of 9 (5 s)"


def test_the_end_of_every_work_is_said_at_once_and_after_the_last_nothing_is():
    lines = ProgressLines(5)
    lines.step(Progress("a", 1, 2), 0)
    lines.step(Progress("b", 1, 2), 0)

    assert lines.step(Progress("a", 2, 2), 1) == "a: 2 of 2 (1 s)"
    assert lines.step(Progress("b", 2, 2), 1) == "b: 2 of 2 (1 s)"
    assert lines.tick(100) is None


def test_the_same_work_may_begin_again():
    lines = ProgressLines(5)
    lines.step(Progress("a", 2, 2), 0)
    lines.step(Progress("a", 1, 2), 10)

    assert lines.step(Progress("a", 2, 2), 12) == "a: 2 of 2 (2 s)"


steps = st.lists(
    st.tuples(st.sampled_from("abc"), st.integers(0, 3), st.floats(0, 3, allow_nan=False)), min_size=1, max_size=60
)


@given(steps)
def test_lines_that_end_nothing_are_never_closer_than_asked(history):
    lines, now_s, last_s = ProgressLines(5), 0.0, 0.0
    for place, (work, done, after_s) in enumerate(history):
        now_s += after_s if place else 0.0
        progress = Progress(work, done, 3)
        line = lines.step(progress, now_s)
        if progress.is_over:
            assert line is not None
        elif line is not None:
            assert now_s - last_s >= 5
        if line is not None:
            last_s = now_s
