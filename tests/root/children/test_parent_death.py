"""Tests of hedgerow.children.parent_death: no child outlives its parent, of any kind."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hedgerow.children import parent_death
from tests.processes import wait_until, wait_until_gone

CHILD = "import sys, time\nfrom hedgerow.children import parent_death\n"
CHILD += "from hedgerow.children.parent_death import die_with_parent\n"
PARENT = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", sys.argv[1], str(os.getpid())], stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
time.sleep(600)
"""


def started(code: str) -> tuple["subprocess.Popen[bytes]", int]:
    parent = subprocess.Popen([sys.executable, "-c", PARENT, code], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    return parent, int(parent.stdout.readline())


@pytest.mark.parametrize(
    "asks",
    [
        "die_with_parent(int(sys.argv[1]))",
        "die_with_parent(int(sys.argv[1]), ask_kernel=False)",
        "sys.platform = 'darwin'; die_with_parent(int(sys.argv[1]))",
        "parent_death._is_tied_by_kernel = lambda: False; die_with_parent(int(sys.argv[1]))",
    ],
)
def test_a_child_ends_with_its_killed_parent_whoever_is_asked(asks):
    code = f"{CHILD}{asks}\nprint('asked', flush=True)\ntime.sleep(600)"
    parent, child = started(code)
    with parent:
        parent.kill()
    wait_until_gone(child)


@pytest.mark.parametrize("ask_kernel", [True, False])
def test_a_child_whose_parent_is_gone_already_ends_at_once(ask_kernel):
    code = f"{CHILD}die_with_parent(999999999, ask_kernel={ask_kernel})\nprint('lives')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (1, b"")


def test_a_program_whose_parent_is_gone_already_is_not_started(tmp_path):
    command = [sys.executable, "-I", "-S", parent_death.__file__, "999999999", "touch", str(tmp_path / "started")]
    assert subprocess.run(command, check=False).returncode == 127
    assert not (tmp_path / "started").exists()


def test_a_program_takes_the_place_of_this_one():
    command = [
        sys.executable,
        "-I",
        "-S",
        parent_death.__file__,
        str(os.getpid()),
        "sh",
        "-c",
        'echo $$ "$1"',
        "sh",
        "a b",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        said = child.communicate()[0]
    assert said == f"{child.pid} a b\n"


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
def test_a_program_that_knows_nothing_of_it_ends_with_its_killed_parent():
    code = (
        "import os, sys\n"
        f"print('asked', flush=True)\nos.execv(sys.executable, [sys.executable, '-I', '-S', {parent_death.__file__!r}, "
        "sys.argv[1], 'sleep', '600'])"
    )
    parent, child = started(code)
    # Until it has become that program, it has not asked.
    wait_until(lambda: Path(f"/proc/{child}/cmdline").read_bytes().startswith(b"sleep\0"))
    with parent:
        parent.send_signal(signal.SIGKILL)
    wait_until_gone(child)
