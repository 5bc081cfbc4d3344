"""Who may use a state folder, and what is left of the agent's state."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hedgerow.client.agent_state import AgentState, Identity
from hedgerow.client.errors import AgentSettingsError
from hedgerow.client.state_folder import StateFile, StateFolderLock
from hedgerow.wire.device import Desired

IDENTITY = Identity(boot="b", target="t", agent_version="0", runtimes=())
ASKED = AgentState(identity=IDENTITY, desired=Desired(version=3, release="demo@1"), is_settled=False)


def refuse(number: int, text: str):
    """Return an `os.open` of a disk that cannot be written."""
    real = os.open

    def opened(path, flags, *more):
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            raise OSError(number, text)
        return real(path, flags, *more)

    return opened


def test_one_agent_at_a_time(tmp_path):
    with StateFolderLock(tmp_path / "s") as lock:
        lock.check_writable()
        with pytest.raises(AgentSettingsError, match="another agent"):
            StateFolderLock(tmp_path / "s")
    with StateFolderLock(tmp_path / "s"):
        pass


@pytest.mark.parametrize(
    ("number", "text"), [(30, "Read-only file system"), (13, "Permission denied"), (28, "No space")]
)
@pytest.mark.parametrize("has_lock", [False, True])
def test_a_folder_that_cannot_be_written_is_locked_all_the_same(tmp_path, monkeypatch, number, text, has_lock):
    if has_lock:
        (tmp_path / "agent.lock").touch()
    monkeypatch.setattr("os.open", refuse(number, text))
    with StateFolderLock(tmp_path) as lock:
        with pytest.raises(AgentSettingsError, match=f"can be written.*{text}"):
            lock.check_writable()
        with pytest.raises(AgentSettingsError, match="another agent"):
            StateFolderLock(tmp_path)
    with StateFolderLock(tmp_path):
        pass


def test_a_lock_that_is_given_back_twice_is_somebody_elses_by_then(tmp_path):
    first = StateFolderLock(tmp_path)
    first.close()
    with StateFolderLock(tmp_path):
        first.close()
        with pytest.raises(AgentSettingsError, match="another agent"):
            StateFolderLock(tmp_path)


def test_a_file_system_without_locks_is_not_called_another_agent(tmp_path, monkeypatch):
    def refuse_locks(_descriptor, *, blocking):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("hedgerow.client.state_folder.lock_descriptor", refuse_locks)
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(AgentSettingsError, match=r"can be locked .*found none \(No locks available\).*--state"):
        StateFolderLock(tmp_path / "s")
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_an_agent_that_is_killed_leaves_no_lock(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from hedgerow.client.state_folder import StateFolderLock\n"
        "with StateFolderLock(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    )
    agent = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    with agent:
        assert agent.stdout.readline() == "held\n"
        with pytest.raises(AgentSettingsError, match="another agent"):
            StateFolderLock(tmp_path)
        agent.kill()
    with StateFolderLock(tmp_path):
        pass


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(AgentSettingsError, match="--state"):
        StateFolderLock(tmp_path / "file" / "state")


def test_the_state_comes_back(tmp_path):
    assert StateFile(tmp_path / "agent.json").load(IDENTITY) == AgentState(identity=IDENTITY)
    assert StateFile(tmp_path / "agent.json").save(ASKED)
    again = StateFile(tmp_path / "agent.json")
    assert again.load(IDENTITY) == ASKED
    assert not again.save(ASKED), "nothing has changed"
    assert (tmp_path / "agent.json").stat().st_mode & 0o777 == 0o600


def test_a_damaged_copy_of_the_state_costs_nothing_and_is_put_right(tmp_path):
    StateFile(tmp_path / "agent.json").save(ASKED)
    for name in ("agent.json", "agent.spare.json"):
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(whole.replace(b"demo@1", b"demo@3"))
        file = StateFile(tmp_path / "agent.json")
        assert file.load(IDENTITY) == ASKED
        assert file.save(ASKED)
        assert (tmp_path / name).read_bytes() == (tmp_path / "agent.json").read_bytes()


def test_a_state_that_is_lost_begins_anew(tmp_path):
    StateFile(tmp_path / "agent.json").save(ASKED)
    for name in ("agent.json", "agent.spare.json"):
        (tmp_path / name).write_bytes(b"rust")
    assert StateFile(tmp_path / "agent.json").load(IDENTITY) == AgentState(identity=IDENTITY)


def test_a_card_that_takes_nothing_leaves_the_old_state(tmp_path):
    def full(_path: Path, _content: bytes) -> None:
        raise OSError(28, "No space left on device")

    StateFile(tmp_path / "agent.json").save(ASKED)
    file = StateFile(tmp_path / "agent.json", full)
    file.load(IDENTITY)
    with pytest.raises(OSError, match="No space"):
        file.save(AgentState(identity=IDENTITY))
    assert StateFile(tmp_path / "agent.json").load(IDENTITY) == ASKED


def test_what_a_killed_start_left_of_a_record_is_removed_by_the_next_one(tmp_path):
    (tmp_path / ".pointer.json.ab12cd34.part").write_bytes(b"{")
    (tmp_path / "agent.json").write_bytes(b"{}")
    with StateFolderLock(tmp_path):
        (tmp_path / ".agent.json.x.part").write_bytes(b"{")
        with pytest.raises(AgentSettingsError, match="another agent"):
            StateFolderLock(tmp_path)
        assert sorted(path.name for path in tmp_path.iterdir()) == [".agent.json.x.part", "agent.json", "agent.lock"]
