"""One holder at a time, and none that is gone."""

import errno
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from filelock import Timeout

import hedgerow
from hedgerow.file_lock import file_lock

HOLD = """
import sys, time
from pathlib import Path
from hedgerow.file_lock import file_lock
with file_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_holder_is_refused_at_once_and_the_lock_can_be_had_again(tmp_path):
    path = tmp_path / "lock"
    with file_lock(path):
        with pytest.raises(Timeout):
            file_lock(path).acquire()
        other = tmp_path / "other"
        with file_lock(other):
            pass
    with file_lock(path):
        pass
    assert path.read_bytes() == b""


def test_another_process_holds_it_until_it_is_killed(tmp_path):
    path = tmp_path / "lock"
    with subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(Timeout):
            file_lock(path).acquire()
        holder.send_signal(signal.SIGKILL)
    assert path.exists(), "the file stays; it locks nothing"
    with file_lock(path):
        pass


def test_what_is_written_in_a_lock_file_stays(tmp_path):
    path = tmp_path / "lock"
    path.write_text("mine")
    with file_lock(path):
        pass
    assert path.read_text() == "mine"


def test_a_copy_of_the_holder_neither_frees_the_lock_nor_keeps_it(tmp_path):
    path = tmp_path / "lock"
    release, wait = os.pipe(), os.pipe()
    lock = file_lock(path)
    lock.acquire()
    child = os.fork()
    if child == 0:
        os.write(wait[1], b"x")
        os.read(release[0], 1)
        os._exit(0)
    try:
        os.read(wait[0], 1)
        with pytest.raises(Timeout):
            file_lock(path).acquire()
        lock.release()
        with file_lock(path):
            pass
    finally:
        os.write(release[1], b"x")
        os.waitpid(child, 0)
        for descriptor in (*release, *wait):
            os.close(descriptor)


def test_a_waiting_lock_is_had_when_the_holder_lets_go(tmp_path):
    path = tmp_path / "lock"
    order: list[str] = []
    first = file_lock(path)
    first.acquire()

    def wait() -> None:
        with file_lock(path, waits=True):
            order.append("second")

    thread = threading.Thread(target=wait)
    thread.start()
    order.append("first")
    first.release()
    thread.join(30)
    assert order == ["first", "second"]


def test_another_thread_may_let_go(tmp_path):
    lock = file_lock(tmp_path / "lock")
    lock.acquire()
    thread = threading.Thread(target=lock.release)
    thread.start()
    thread.join()
    with file_lock(tmp_path / "lock"):
        pass


def test_the_mode_is_the_umasks_or_the_one_that_was_given(tmp_path):
    before = os.umask(0o027)
    try:
        with file_lock(tmp_path / "plain"), file_lock(tmp_path / "private", mode=0o600):
            pass
    finally:
        os.umask(before)
    modes = [(tmp_path / name).stat().st_mode & 0o777 for name in ("plain", "private")]
    assert modes == [0o640, 0o600]


def test_a_file_system_without_locks_is_an_error_and_no_marker_that_would_go_stale(tmp_path, monkeypatch):
    def refuse(_descriptor, _how):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", refuse)
    with pytest.raises(OSError, match="not implemented"):
        file_lock(tmp_path / "lock").acquire()
    assert [path.name for path in tmp_path.iterdir() if path.name != "lock"] == []


def test_a_folder_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        file_lock(tmp_path / "none" / "lock")
    assert list(tmp_path.iterdir()) == []


def test_nobody_locks_files_in_a_way_of_their_own():
    root = Path(hedgerow.__file__).parent.parent.parent
    folders = [root / "src", *(root / name for name in ("client", "compile", "fleet", "hardware", "server"))]
    texts = {path: path.read_text() for folder in folders for path in folder.rglob("*.py")}
    own = re.compile(r"\b(import fcntl|from fcntl|lockf\()")
    assert [str(path) for path, text in texts.items() if own.search(text)] == []
    assert any("file_lock" in text for text in texts.values())
