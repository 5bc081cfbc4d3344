"""A folder for temporary files goes with its process, even with one that is killed; nobody else's does."""

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from hedgerow.scratch_folder import ScratchFolder
from tests.processes import nothing_left, wait_until_gone

__all__ = ["nothing_left"]

pytestmark = pytest.mark.usefixtures("nothing_left")

HOLD = """
import sys, time
from hedgerow.children.child import Child
from hedgerow.children.output import OutputFile
code = "import os, tempfile, time; tempfile.mkstemp(); print(os.getpid(), flush=True); time.sleep(600)"
child = Child([sys.executable, "-c", code], name="worker", output=OutputFile(), scratch=True)
while not child.output.last_lines():
    time.sleep(0.01)
print(child.process_id, flush=True)
time.sleep(600)
"""


@pytest.fixture
def parent(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def holder(parent) -> tuple[subprocess.Popen, int]:
    """Start a process with a child that has a scratch folder; return it and the child's id."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD], stdout=subprocess.PIPE, text=True, env={**os.environ, "TMPDIR": str(parent)}
    )
    return process, int(process.stdout.readline())


def test_a_folder_is_empty_and_goes_with_what_is_in_it(parent):
    with ScratchFolder() as folder:
        assert list(parent.iterdir()) == [folder.path]
        assert list(folder.path.iterdir()) == []
        (folder.path / "a").mkdir()
        (folder.path / "a" / "b").write_text("b")
    folder.close()
    assert list(parent.iterdir()) == []


def test_what_a_killed_process_leaves_goes_with_the_next_start_and_what_runs_keeps_its_own(parent):
    killed, its_child = holder(parent)
    (left,) = parent.iterdir()
    running, _ = holder(parent)
    (kept,) = set(parent.iterdir()) - {left}
    killed.kill()
    killed.wait()
    killed.stdout.close()
    wait_until_gone(its_child)
    assert len(list(left.iterdir())) == 1

    with ScratchFolder() as folder:
        assert set(parent.iterdir()) == {kept, folder.path}
    assert list(parent.iterdir()) == [kept]
    assert len(list(kept.iterdir())) == 1

    running.send_signal(signal.SIGKILL)
    running.wait()
    running.stdout.close()


def test_what_is_no_folder_of_ours_is_left_where_it_is(parent):
    precious = parent / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("years of work")
    (parent / "hedgerow-scratch-link").symlink_to(precious)
    (parent / "hedgerow-scratch-file").write_text("")
    before = set(parent.iterdir())
    with ScratchFolder():
        pass
    assert set(parent.iterdir()) == before
    assert (precious / "thesis.txt").read_text() == "years of work"


def test_many_at_once_take_none_from_each_other(parent):
    def make(_number: int) -> bool:
        with ScratchFolder() as folder:
            (folder.path / "file").write_text("x")
            return (folder.path / "file").read_text() == "x"

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(make, range(200)))
    assert list(parent.iterdir()) == []


def test_a_file_system_without_locks_still_has_folders(parent, monkeypatch):
    def refuse(*_arguments):
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    with ScratchFolder() as one, ScratchFolder() as other:
        assert set(parent.iterdir()) == {one.path, other.path}
    assert list(parent.iterdir()) == []
