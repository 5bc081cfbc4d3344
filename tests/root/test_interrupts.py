"""Signals become one exception, at any moment, and nothing cuts the unwinding short. In processes of their own."""

import signal
import subprocess
import sys
import threading
import time

import pytest

from hedgerow.interrupts import Interrupted, UndisturbedStack, hold_interrupts, interruptible
from tests.extras import needs_torch


def run_script(script: str) -> subprocess.CompletedProcess[str]:
    head = "import os, signal, time\nfrom hedgerow.interrupts import *\nme = os.getpid()\n"
    return subprocess.run(
        [sys.executable, "-c", head + script], capture_output=True, text=True, timeout=20, check=False
    )


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_each_signal_is_raised_by_its_name_and_once(name):
    done = run_script(f"""
try:
    with interruptible():
        try:
            os.kill(me, signal.{name})
            time.sleep(5)
        finally:
            os.kill(me, signal.SIGINT)
            os.kill(me, signal.SIGTERM)
            time.sleep(0.05)
            print("unwound")
except Interrupted as exc:
    os.kill(me, signal.SIGINT)
    print(exc.signal_name)
""")
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, ["unwound", name], "")


def test_an_exception_that_a_finalizer_swallowed_comes_again_at_once_and_without_a_trace():
    done = run_script("""
class Swallows:
    def __del__(self):
        try:
            os.kill(me, signal.SIGTERM)
            time.sleep(0.05)
        finally:  # here, because outside the exception may come again before anything is said
            os.write(1, b"swallowed\\n")
try:
    with interruptible():
        Swallows()
        time.sleep(1)
        print("too late")
except Interrupted as exc:
    print(exc.signal_name)
""")
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, ["swallowed", "SIGTERM"], "")


@pytest.mark.heavy
def test_an_exception_that_code_swallowed_comes_again():
    done = run_script("""
try:
    with interruptible():
        try:
            os.kill(me, signal.SIGTERM)
        except BaseException:
            print("swallowed", flush=True)
        time.sleep(10)
except Interrupted as exc:
    print(exc.signal_name)
""")
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, ["swallowed", "SIGTERM"], "")


def test_what_a_stack_stops_is_stopped_whatever_signals_come():
    done = run_script("""
def slow(name):
    os.kill(me, signal.SIGINT)
    time.sleep(0.05)
    print(name)
try:
    with interruptible():
        with UndisturbedStack() as stack:
            for name in "cba":
                stack.callback(slow, name)
        print("not reached")
except Interrupted as exc:
    print(exc.signal_name)
""")
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, ["a", "b", "c", "SIGINT"], "")


def test_an_interrupted_stack_is_unwound_and_the_first_signal_is_the_one_that_is_told():
    done = run_script("""
try:
    with interruptible():
        with UndisturbedStack() as stack:
            stack.callback(lambda: (os.kill(me, signal.SIGINT), time.sleep(0.1), print("stopped")))
            os.kill(me, signal.SIGTERM)
            time.sleep(5)
except Interrupted as exc:
    print(exc.signal_name)
""")
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, ["stopped", "SIGTERM"], "")


def test_without_a_signal_everything_is_as_before():
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM)
    before = [signal.getsignal(number) for number in numbers]
    with interruptible(), hold_interrupts(), UndisturbedStack() as stack:
        stack.callback(time.sleep, 0)
    assert [signal.getsignal(number) for number in numbers] == before


def test_other_threads_than_the_main_one_are_left_alone():
    seen = []

    def work():
        with interruptible(), UndisturbedStack() as stack:
            stack.callback(seen.append, 1)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [1]


def test_an_interrupt_is_a_keyboard_interrupt_and_no_error():
    assert isinstance(Interrupted("SIGTERM"), KeyboardInterrupt)
    assert not isinstance(Interrupted("SIGTERM"), Exception)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
@needs_torch
def test_an_interrupted_command_says_so_and_exits_with_130(tmp_path, name):
    (tmp_path / "slow.py").write_text(f"import os, signal, time\nos.kill(os.getpid(), signal.{name})\ntime.sleep(9)\n")
    command = [sys.executable, "-m", "hedgerow.cli", "task", "check", "slow.py:task"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=20, check=False)
    assert (done.returncode, done.stdout, done.stderr.strip()) == (130, "", "hedgerow: interrupted")
