"""Tests of hedgerow.children.child: programs."""

import gc
import os
import signal
import subprocess
import sys
import threading
import warnings

import pytest

from hedgerow.children.child import Child, numeric_threads
from hedgerow.children.output import OutputFile
from hedgerow.children.parent_death import CANNOT_RUN
from tests.processes import PYTHON, is_running, new_since, wait_until, wait_until_gone, what_is_held

SLEEP = ["sleep", "600"]


def python(code: str, **more) -> Child:
    return Child([*PYTHON, code], name="python", output=OutputFile(), **more)


def test_a_program_runs_until_it_is_ended():
    with Child(SLEEP, name="sleeper") as child:
        assert child.is_running
        assert not child.wait(0.01)
    assert not child.is_running
    assert child.wait(0)
    assert not is_running(child.process_id)
    assert child.end() == child.end()
    assert child.end().signal_name == "SIGKILL"


def test_an_end_by_itself_is_a_value_with_code_and_last_words():
    with python("import sys\nfor n in range(9): print('line', n)\nsys.exit(3)") as child:
        child.doing = "counting"
        assert child.wait(30)
        ended = child.end()
    assert (ended.name, ended.code, ended.signal_name, ended.doing) == ("python", 3, "", "counting")
    assert ended.last_lines == ("line 6", "line 7", "line 8")


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGABRT", "SIGKILL", "SIGTERM"])
def test_an_end_by_a_signal_is_a_value_with_its_name(name):
    with python(f"import os, signal; os.kill(os.getpid(), signal.{name})") as child:
        assert child.wait(30)
        assert child.end().signal_name == name


def test_what_cannot_be_run_ends_with_a_code_and_a_reason():
    with Child(["/no/such/program"], name="nothing", output=OutputFile()) as child:
        assert child.wait(30)
        ended = child.end()
    assert ended.code == CANNOT_RUN
    assert ended.last_line == "cannot run /no/such/program: No such file or directory"


def test_an_interpreter_that_cannot_be_started_is_an_error_and_leaves_nothing(monkeypatch):
    before = what_is_held()
    monkeypatch.setattr("sys.executable", "/no/such/python")
    with pytest.raises(FileNotFoundError):
        Child(SLEEP, name="sleeper", output=OutputFile(), scratch=True)
    assert new_since(before) == []


def test_a_system_without_room_for_a_thread_is_an_error_of_the_system(monkeypatch):
    def refuse(_thread):
        raise RuntimeError("can't start new thread")

    before = what_is_held()
    monkeypatch.setattr("threading.Thread.start", refuse)
    with pytest.raises(BlockingIOError, match="can't start new thread"):
        Child(SLEEP, name="sleeper", output=OutputFile(), scratch=True)
    monkeypatch.undo()
    assert new_since(before) == []


def test_a_program_is_asked_to_end_and_what_it_started_is_not():
    code = "import signal, subprocess, sys, time\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(7))\n"
    with python(code + "print(subprocess.Popen(['sleep', '600']).pid, flush=True)\ntime.sleep(600)") as child:
        wait_until(child.output.last_lines)
        grandchild = int(child.output.last_lines()[0])
        child.ask_to_end()
        assert child.wait(30)
        assert is_running(grandchild)
        child.ask_to_end()
        assert child.end().code == 7
    wait_until_gone(grandchild)


def test_a_program_has_a_session_of_its_own_and_reads_nothing_of_ours():
    code = "import os, sys; print(os.getsid(0) == os.getpid() == os.getpgid(0), repr(sys.stdin.read()))"
    with python(code) as child:
        child.wait(30)
        assert child.end().last_line == "True ''"


def test_a_program_gets_what_it_is_given(tmp_path):
    code = "import os; print(os.environ.get('HOME'), os.environ['A'], os.getcwd())"
    for given, home in ((None, os.environ.get("HOME")), ({"B": "b"}, None)):
        with python(code, environment={"A": "a"}, whole_environment=given, folder=tmp_path) as child:
            child.wait(30)
            assert child.end().last_line == f"{home} a {tmp_path}"


def test_temporary_files_of_a_killed_program_go_with_it(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    code = "import os, tempfile, time; tempfile.mkstemp(); print(tempfile.gettempdir(), flush=True); time.sleep(600)"
    with Child([sys.executable, "-c", code], name="python", output=OutputFile(), scratch=True) as child:
        wait_until(child.output.last_lines)
        (folder,) = tmp_path.iterdir()
        assert child.output.last_lines() == (str(folder),)
        assert len(list(folder.iterdir())) == 1
    assert list(tmp_path.iterdir()) == []


def test_the_thread_that_starts_a_program_may_end_before_it():
    """The kernel's parent-death signal goes by thread; ours must not."""
    made = []
    code = "import time; print('ready', flush=True); time.sleep(600)"
    thread = threading.Thread(target=lambda: made.append(python(code)))
    thread.start()
    thread.join()
    with made[0] as child:
        wait_until(child.output.last_lines)
        assert child.is_running
        assert not child.wait(0.1)


def test_nothing_is_left_after_many_starts(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with python("pass"):
        pass
    before = what_is_held()
    for number in range(20):
        with python("import time; time.sleep(600)" if number % 2 else "pass", scratch=True) as child:
            child.wait(0.02)
    assert new_since(before) == []
    assert list(tmp_path.iterdir()) == []


def test_a_program_that_nobody_ended_ends_with_its_object():
    before = what_is_held()
    forgotten = Child(SLEEP, name="sleeper", output=OutputFile(), scratch=True)
    process_id = forgotten.process_id
    del forgotten
    gc.collect()
    wait_until_gone(process_id)
    assert new_since(before) == []


def test_a_program_that_nobody_ended_does_not_hold_up_the_interpreters_end():
    code = (
        "from hedgerow.children.child import Child\n"
        "child = Child(['sleep', '600'], name='sleeper', scratch=True)\nprint(child.process_id, flush=True)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr == ""
    wait_until_gone(int(done.stdout))


def test_an_interrupt_during_the_start_comes_after_it_and_leaves_no_process(monkeypatch):
    real, started = subprocess.Popen, []

    def popen(*arguments, **more):
        made = real(*arguments, **more)
        started.append(made.pid)
        os.kill(os.getpid(), signal.SIGINT)
        return made

    monkeypatch.setattr("subprocess.Popen", popen)
    before = what_is_held()
    with pytest.raises(KeyboardInterrupt):
        Child(SLEEP, name="sleeper")
    wait_until_gone(*started)
    assert len(started) == 1
    assert new_since(before) == []


def test_a_fork_of_ours_ends_none_of_our_programs():
    with Child(SLEEP, name="sleeper") as child:
        with warnings.catch_warnings():
            # Python 3.12 warns of a fork beside threads, such as the one that keeps the program.
            warnings.simplefilter("ignore", DeprecationWarning)
            process_id = os.fork()
        if process_id == 0:
            child._let_go()
            os._exit(0)
        os.waitpid(process_id, 0)
        assert child.is_running


def test_numerical_libraries_are_told_their_threads():
    assert numeric_threads(3) == {"OMP_NUM_THREADS": "3", "MKL_NUM_THREADS": "3", "OPENBLAS_NUM_THREADS": "3"}
