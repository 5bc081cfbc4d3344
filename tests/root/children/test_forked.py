"""Tests of hedgerow.children.forked: copies of this process."""

import faulthandler
import os
import select
import signal
import threading
import time

import psutil
import pytest

from hedgerow.children.forked import fork_child
from tests.processes import is_running

pytestmark = pytest.mark.usefixtures("nothing_left")


def sleep():
    time.sleep(600)


def fall():
    raise RuntimeError("out of luck")


def die():
    faulthandler.disable()
    os.kill(os.getpid(), signal.SIGSEGV)


def test_a_copy_has_what_this_process_has_and_ends_with_its_work():
    here = ["loaded"]
    reading, writing = os.pipe()
    with fork_child(lambda: os.write(writing, here[0].encode()), name="copy", leave=(reading,)) as child:
        assert child.wait().code == 0
    assert os.read(reading, 100) == b"loaded"
    os.close(reading)
    os.close(writing)


@pytest.mark.parametrize(
    ("serve", "code", "name"), [(fall, 1, ""), (die, -11, "SIGSEGV"), (lambda: os._exit(3), 3, "")]
)
def test_how_a_copy_ends_is_a_value(serve, code, name):
    with fork_child(serve, name="copy") as child:
        ended = child.wait()
        assert (ended.name, ended.code, ended.signal_name) == ("copy", code, name)
        assert child.wait() is ended


def test_the_end_of_a_copy_shows_at_its_descriptor():
    with fork_child(sleep, name="copy") as child:
        assert select.select([child], [], [], 0) == ([], [], [])
        assert not child.has_ended(0.05)
        os.kill(child.process_id, signal.SIGKILL)
        assert select.select([child], [], [], 30)[0] == [child]
        assert child.has_ended()
    assert child.has_ended()


def test_a_copy_is_killed_at_the_end_of_its_block():
    with fork_child(sleep, name="copy") as child:
        assert is_running(child.process_id)
    assert child.wait().signal_name == "SIGKILL"
    assert not is_running(child.process_id)
    child.kill()
    child.close()


def test_a_copy_that_somebody_else_has_waited_for_has_no_code():
    with fork_child(lambda: None, name="copy") as child:
        psutil.Process(child.process_id).wait(30)
        assert child.wait().code is None


def test_a_copy_is_deaf_to_what_a_terminal_sends_and_hears_what_is_sent_to_it():
    reading, writing = os.pipe()

    def serve():
        os.write(writing, b"ready")
        time.sleep(600)

    with fork_child(serve, name="copy") as child:
        assert os.read(reading, 5) == b"ready"
        os.kill(child.process_id, signal.SIGINT)
        os.kill(child.process_id, signal.SIGTERM)
        assert child.wait().signal_name == "SIGTERM"
    os.close(reading)
    os.close(writing)


def test_a_copy_outlives_the_thread_that_forked_it():
    made = []
    thread = threading.Thread(target=lambda: made.append(fork_child(sleep, name="copy")))
    thread.start()
    thread.join()
    with made[0] as child:
        assert select.select([child], [], [], 0.2) == ([], [], [])
        assert is_running(child.process_id)


def test_nothing_registered_for_our_end_runs_in_a_copy(tmp_path):
    import subprocess
    import sys

    code = (
        "import atexit, sys\nfrom hedgerow.children.forked import fork_child\n"
        "atexit.register(lambda: print('the end', flush=True))\n"
        "with fork_child(lambda: None, name='copy') as child:\n    child.wait()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "the end\n"


def test_an_interrupt_during_a_fork_comes_after_it(monkeypatch):
    fork = os.fork
    made = []

    def interrupted():
        process_id = fork()
        if process_id:
            made.append(process_id)
            os.kill(os.getpid(), signal.SIGINT)
        return process_id

    monkeypatch.setattr("os.fork", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fork_child(sleep, name="copy")
    monkeypatch.undo()
