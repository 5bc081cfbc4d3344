"""Bars on a terminal, lines elsewhere, lines of a log; the standard output is never touched."""

import io
import logging
import os
import pty
import re
import subprocess
import sys
import threading
import time

import pytest

from hedgerow.progress import Progress
from hedgerow.progress_display import ProgressDisplay, progress_log


def test_off_a_terminal_it_writes_lines_on_the_standard_error(capsys):
    with ProgressDisplay() as display:
        display.report(Progress("train", 1, 2, "accuracy 0.5"))
        display.report(Progress("train", 2, 2, "accuracy 0.9"))
        display.say("well")

    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "train: 2 of 2, accuracy 0.9 (0 s)\nwell\n"


def test_work_that_says_nothing_leaves_nothing(capsys):
    with ProgressDisplay():
        pass

    assert capsys.readouterr() == ("", "")
    assert "progress" not in {thread.name for thread in threading.enumerate()}


def test_work_that_does_not_move_is_said_again():
    stream, now = io.StringIO(), [0.0]
    with ProgressDisplay(stream=stream, every_s=0.05, clock=lambda: now[0]) as display:
        display.report(Progress("compile", 1, 9, "quantize"))
        for count, now[0] in ((1, 60.0), (2, 90.0)):
            deadline = time.monotonic() + 10
            while stream.getvalue().count("\n") < count and time.monotonic() < deadline:
                time.sleep(0.005)

    assert stream.getvalue() == "compile: 1 of 9, quantize (60 s)\ncompile: 1 of 9, quantize (90 s)\n"
    assert "progress" not in {thread.name for thread in threading.enumerate()}


def test_lines_of_work_are_indented_and_what_is_said_is_not():
    stream = io.StringIO()
    with ProgressDisplay(stream=stream, indent="  ") as display:
        display.say("a headline", bold=True)
        display.report(Progress("train", 2, 2))

    assert stream.getvalue() == "a headline\n  train: 2 of 2 (0 s)\n"


class Gone(io.StringIO):
    def write(self, _text):
        raise BrokenPipeError


def test_work_goes_on_when_nobody_reads_any_more():
    with ProgressDisplay(stream=Gone()) as display:
        display.report(Progress("train", 1, 2))


def test_a_log_gets_the_same_lines(caplog):
    now = [0.0]
    report = progress_log(logging.getLogger("hedgerow.test"), clock=lambda: now[0])
    with caplog.at_level(logging.INFO, "hedgerow.test"):
        for done in range(1, 4):
            now[0] += 5
            report(Progress("round 1", done, 3))

    assert caplog.messages == ["round 1: 2 of 3 (5 s)", "round 1: 3 of 3 (10 s)"]


def on_a_terminal(code):
    """Run Python code whose standard error is a terminal; return what appears there, without its control sequences."""
    ours, theirs = pty.openpty()
    head = "from hedgerow.progress import Progress\nfrom hedgerow.progress_display import ProgressDisplay\n"
    env = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", head + code], stderr=theirs, stdout=subprocess.PIPE, env=env
    )
    os.close(theirs)
    shown = b""
    while True:
        try:
            more = os.read(ours, 65536)
        except OSError:
            break
        if not more:
            break
        shown += more
    os.close(ours)
    out, _ = process.communicate()
    assert (process.returncode, out) == (0, b"")
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())


@pytest.mark.heavy  # rich
def test_on_a_terminal_a_bar_moves_and_its_end_is_a_line():
    shown = on_a_terminal(
        "with ProgressDisplay() as display:\n"
        "    display.report(Progress('train [x]', 1, 2, 'accuracy 0.5'))\n"
        "    display.say('well')\n"
        "    display.report(Progress('train [x]', 2, 2, 'accuracy 0.9'))\n"
    )

    assert "train [x]" in shown
    assert "1 of 2, accuracy 0.5" in shown
    assert "\rwell\r" in shown
    assert "train [x]: 2 of 2, accuracy 0.9 (0 s)" in shown


@pytest.mark.heavy
@pytest.mark.parametrize("steps", ["pass", "display.report(Progress('quick', 1, 1))"])
def test_on_a_terminal_no_empty_bar_is_drawn(steps):
    shown = on_a_terminal(f"with ProgressDisplay() as display:\n    {steps}\n")

    assert shown.split() in ([], ["quick:", "1", "of", "1", "(0", "s)"])


@pytest.mark.heavy
def test_a_terminal_gets_lines_where_bars_are_not_wanted():
    shown = on_a_terminal(
        "with ProgressDisplay(bars=False) as display:\n"
        "    display.report(Progress('install', 1, 1))\n"
        "import sys\n"
        "assert 'rich' not in sys.modules\n"
    )

    assert shown == "install: 1 of 1 (0 s)\r\n"
