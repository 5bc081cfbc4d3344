"""Tests of hedgerow.children.programs."""

import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from hedgerow.children.output import last_lines
from hedgerow.children.programs import Programs
from tests.processes import PYTHON, is_running, new_since, wait_until, wait_until_gone, what_is_held

SLEEP = [*PYTHON, "import time; time.sleep(60)"]
WAIT = "print('ready', flush=True); time.sleep(60)"
STUBBORN = [*PYTHON, f"import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); {WAIT}"]
ORDERLY = [*PYTHON, f"import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(7)); {WAIT}"]


def wait_ready(path):
    wait_until(lambda: path.exists() and "ready" in path.read_text())


def test_children_run_until_the_block_is_left(tmp_path):
    with Programs() as children:
        pids = [children.start(SLEEP, tmp_path / f"{n}.log", f"child {n}") for n in range(3)]
        assert children.first_ended() is None
        assert all(is_running(pid) for pid in pids)

    assert not any(is_running(pid) for pid in pids)


def test_children_are_asked_to_end_and_their_exit_codes_kept(tmp_path):
    with Programs() as children:
        children.start(ORDERLY, tmp_path / "a.log", "a")
        wait_ready(tmp_path / "a.log")

    assert children.exit_codes == {"a": 7}


def test_a_child_that_does_not_end_is_killed_in_bounded_time(tmp_path):
    with Programs(stop_timeout_s=0.2) as children:
        children.start(STUBBORN, tmp_path / "a.log", "a")
        wait_ready(tmp_path / "a.log")
        began = time.monotonic()

    assert time.monotonic() - began < 1.0
    assert children.exit_codes == {"a": -signal.SIGKILL}


def test_what_a_killed_child_started_is_killed_with_it(tmp_path):
    code = (
        "import signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "print(subprocess.Popen(['sleep', '60']).pid, 'ready', flush=True)\n"
        "time.sleep(60)"
    )
    with Programs(stop_timeout_s=0.1) as children:
        children.start([*PYTHON, code], tmp_path / "a.log", "a")
        wait_ready(tmp_path / "a.log")
    grandchild = int((tmp_path / "a.log").read_text().split()[0])

    wait_until_gone(grandchild)


def test_eight_children_are_all_asked_to_end_before_any_is_waited_for(tmp_path):
    """Each ends only when all have been asked: one after the other, the first would be killed."""
    code = textwrap.dedent(f"""
        import os, signal, sys, time

        def end(*_):
            open(os.path.join({str(tmp_path)!r}, f"asked-{{os.getpid()}}"), "w").close()
            while sum(name.startswith("asked-") for name in os.listdir({str(tmp_path)!r})) < 8:
                time.sleep(0.01)
            sys.exit(7)

        signal.signal(signal.SIGTERM, end)
        {WAIT}
    """)
    with Programs(stop_timeout_s=30.0) as children:
        for n in range(8):
            children.start([*PYTHON, code], tmp_path / f"{n}.log", f"child {n}")
        for n in range(8):
            wait_ready(tmp_path / f"{n}.log")

    assert children.exit_codes == {f"child {n}": 7 for n in range(8)}


def test_children_are_stopped_also_when_the_block_raises(tmp_path):
    pids = []

    def work():
        with Programs() as children:
            pids.append(children.start(SLEEP, tmp_path / "a.log", "a"))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
    assert not any(is_running(pid) for pid in pids)


def test_a_child_that_dies_is_named_with_its_exit_code_and_last_words(tmp_path):
    with Programs() as children:
        code = "import sys\nfor n in range(9): print('line', n)\nsys.exit(3)"
        children.start([*PYTHON, code], tmp_path / "agent.log", "agent 4")
        wait_until(children.first_ended)
        ended = children.first_ended()

    assert (ended.name, ended.code) == ("agent 4", 3)
    assert ended.last_lines == ("line 6", "line 7", "line 8")
    assert children.exit_codes == {"agent 4": 3}


def test_a_child_that_is_killed_is_said_to_be(tmp_path):
    with Programs() as children:
        os.kill(children.start(SLEEP, tmp_path / "a.log", "a"), signal.SIGKILL)
        wait_until(children.first_ended)
        assert children.first_ended().signal_name == "SIGKILL"
    assert children.exit_codes == {"a": -signal.SIGKILL}


def test_a_program_that_does_not_exist_is_a_death_with_a_reason(tmp_path):
    with Programs() as children:
        children.start(["/no/such/program"], tmp_path / "a.log", "a")
        wait_until(children.first_ended)
        ended = children.first_ended()
    assert (ended.code, ended.last_line) == (127, "cannot run /no/such/program: No such file or directory")


def test_one_child_can_be_stopped_and_started_again(tmp_path):
    with Programs() as children:
        children.start(ORDERLY, tmp_path / "a.log", "a")
        with pytest.raises(ValueError, match="started before"):
            children.start(ORDERLY, tmp_path / "a.log", "a")
        wait_ready(tmp_path / "a.log")

        assert children.stop_one("a") == 7

        children.start(SLEEP, tmp_path / "a.log", "a")
        assert children.first_ended() is None
        assert set(children.process_ids) == {"a"}


def test_stopping_twice_is_harmless(tmp_path):
    children = Programs()
    children.start(SLEEP, tmp_path / "a.log", "a")

    assert children.stop() == children.stop()


def test_children_get_the_environment_and_the_folder_they_are_given(tmp_path):
    with Programs() as children:
        code = "import os; print(os.environ['SECRET'], os.getcwd(), 'ready', flush=True)"
        children.start([*PYTHON, code], tmp_path / "a.log", "a", env={"SECRET": "s"}, cwd=tmp_path)
        wait_ready(tmp_path / "a.log")

    assert (tmp_path / "a.log").read_text().split()[:2] == ["s", str(tmp_path)]


def test_children_have_a_session_of_their_own_so_that_a_terminal_does_not_signal_them(tmp_path):
    with Programs() as children:
        pid = children.start(SLEEP, tmp_path / "a.log", "a")

        assert os.getsid(pid) == pid != os.getsid(0)


def test_nothing_is_left_after_many_starts(tmp_path):
    before = what_is_held()
    for _time in range(5):
        with Programs() as children:
            for n in range(4):
                children.start(SLEEP if n % 2 else ["true"], tmp_path / f"{n}.log", f"child {n}")
    assert new_since(before) == []


PARENT = """
import sys, time
from pathlib import Path
from hedgerow.children.programs import Programs

folder = Path(sys.argv[1])
with Programs() as children:
    pids = [children.start(sys.argv[2:], folder / f"{n}.log", f"child {n}") for n in range(3)]
    (folder / "pids.part").write_text(" ".join(map(str, pids)))
    (folder / "pids.part").rename(folder / "pids")
    time.sleep(60)
"""


def start_parent(tmp_path, argv):
    command = [sys.executable, "-c", textwrap.dedent(PARENT), str(tmp_path), *argv]
    parent = subprocess.Popen(command, stderr=subprocess.PIPE, start_new_session=True)
    wait_until((tmp_path / "pids").exists, 20.0)
    return parent, [int(pid) for pid in (tmp_path / "pids").read_text().split()]


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_children_die_with_a_parent_that_has_no_chance_to_stop_them(tmp_path, number):
    parent, pids = start_parent(tmp_path, STUBBORN)
    for n in range(3):
        wait_ready(tmp_path / f"{n}.log")

    parent.send_signal(number)
    parent.communicate()

    wait_until_gone(*pids)


def test_an_interrupted_parent_stops_its_children_in_order(tmp_path):
    answer = "signal.signal(signal.SIGTERM, lambda *_: (print('asked', flush=True), sys.exit(0)))"
    parent, pids = start_parent(tmp_path, [*PYTHON, f"import signal, sys, time; {answer}; {WAIT}"])
    for n in range(3):
        wait_ready(tmp_path / f"{n}.log")

    # What a terminal does on Ctrl-C: to the whole foreground process group.
    os.killpg(parent.pid, signal.SIGINT)
    _, error = parent.communicate(timeout=10)

    assert b"KeyboardInterrupt" in error
    assert not any(is_running(pid) for pid in pids)
    assert [last_lines(tmp_path / f"{n}.log") for n in range(3)] == [("ready", "asked")] * 3
