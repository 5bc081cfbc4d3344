"""The agent's state on a disk that takes nothing for a while."""

from dataclasses import replace

import pytest

from hedgerow.client.agent_state import AgentState, Identity
from hedgerow.client.health import Health, Part
from hedgerow.client.slot_folders import SlotFolders
from hedgerow.client.state_folder import StateFile
from hedgerow.client.state_keeper import StateKeeper
from hedgerow.durable import write_durably
from hedgerow.wire.device import Desired

STATE = AgentState(identity=Identity(boot="b", target="t", agent_version="0", runtimes=()))
ASKED = replace(STATE, desired=Desired(version=1, release=None))


class Disk:
    """A clock, and a disk that may be full."""

    def __init__(self, folder) -> None:
        self.now, self.is_full, self.writes = 1000.0, False, 0
        self.health = Health(timer=lambda: self.now)
        self.slots = SlotFolders(folder, "t", health=self.health)
        self.path = folder / "agent.json"
        self.keeper = StateKeeper(StateFile(self.path, self.write), self.slots, self.health, timer=lambda: self.now)

    def write(self, path, content) -> None:
        self.writes += 1
        if self.is_full:
            raise OSError(28, "No space left on device")
        write_durably(path, content)


@pytest.fixture
def disk(tmp_path) -> Disk:
    return Disk(tmp_path)


def test_what_is_saved_is_left_alone(disk):
    disk.keeper.save(ASKED)
    written = disk.writes
    assert disk.path.exists()
    disk.now += 3600
    disk.keeper.tend(ASKED)
    assert (disk.writes, disk.keeper.failures, disk.health.problems) == (written, 0, ())


def test_a_state_that_could_not_be_written_is_tried_again_every_ten_seconds(disk):
    disk.is_full = True
    disk.keeper.save(ASKED)
    assert disk.keeper.failures == 1
    assert disk.health.problems == ("state: OSError: No space left on device",)
    disk.now += 9.9
    disk.keeper.tend(ASKED)
    assert disk.keeper.failures == 1
    disk.now += 0.1
    disk.keeper.tend(ASKED)
    assert disk.keeper.failures == 2
    disk.keeper.tend(ASKED)
    assert disk.keeper.failures == 2
    disk.is_full = False
    disk.now += 10
    disk.keeper.tend(ASKED)
    assert disk.path.exists()
    assert Part.STATE not in disk.health.failing


def test_what_changed_meanwhile_is_what_is_written(disk):
    disk.is_full = True
    disk.keeper.save(STATE)
    disk.is_full = False
    disk.now += 10
    disk.keeper.tend(ASKED)
    assert StateFile(disk.path).load(STATE.identity) == ASKED


def test_a_folder_that_failed_is_tried_although_the_state_is_saved(disk, monkeypatch):
    disk.keeper.save(ASKED)
    disk.health.failed(Part.STATE, "expected room, found none")
    tried = []
    monkeypatch.setattr(disk.slots, "check_writable", lambda: tried.append(disk.now))
    disk.keeper.tend(ASKED)
    disk.now += 5
    disk.keeper.tend(ASKED)
    assert tried == [1000.0]
    disk.now += 5
    disk.keeper.tend(ASKED)
    assert tried == [1000.0, 1010.0]
