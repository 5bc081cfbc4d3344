"""The first thing an agent does: find something to serve."""

import json
from pathlib import Path

import pytest

from hedgerow.client.disk import RealDisk
from hedgerow.client.errors import InstallError, TrialFailedError, TrialRejectedError
from hedgerow.client.events import Restored
from hedgerow.client.loading import load_model
from hedgerow.client.runtimes.linear import LinearRuntime, load_linear
from hedgerow.client.slot_folders import SlotFolders
from hedgerow.client.slots import Slot, Slots, Trial, committed, dropped, swapped, trying
from hedgerow.client.start_up import load_active, rest, settle
from hedgerow.client.trial import DirectTrials
from hedgerow.errors import UnknownNameError
from tests.client.disks import FullDisk

TRIALS = DirectTrials(load_linear)


def fill(folder: Path, made, *, is_healthy: bool = True) -> SlotFolders:
    folders = SlotFolders(folder, "bench")
    files = {}
    for sha256, content in made.blobs.items():
        path = folder / "downloads" / sha256
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        files[next(blob for blob in made.manifest.blobs() if blob.sha256 == sha256)] = path
    slot = folders.fill_idle(made.manifest.encode(), made.name, files)
    folders.change(lambda state: swapped(state, slot))
    if is_healthy:
        settle(folders, made.name)
    return SlotFolders(folder, "bench")


def stage(folder: Path, made) -> Slot:
    """Put a release into the idle slot, and leave it at that."""
    folders = SlotFolders(folder, "bench")
    active = folders.state.active
    fill(folder, made, is_healthy=False)
    folders = SlotFolders(folder, "bench")
    slot = folders.state.active
    folders.change(lambda state: swapped(state, active))
    folders.change(committed)
    return slot


@pytest.fixture
def two(tmp_path, release) -> Path:
    fill(tmp_path, release(1))
    fill(tmp_path, release(2))
    return tmp_path


def test_nothing_installed_is_no_error(tmp_path):
    assert load_active(SlotFolders(tmp_path, "bench"), load_linear, 3, TRIALS) == (None, Restored(None, None))


def start(folder: Path, trials=TRIALS, **more):
    return load_active(SlotFolders(folder, "bench"), load_linear, 3, trials, **more)


class Refusing(DirectTrials):
    """Refuses some releases, for good or not, and notes what was tried."""

    def __init__(self, *refused: str, is_final: bool = True) -> None:
        super().__init__(load_linear)
        self.refused, self.is_final, self.tried = refused, is_final, []

    def model(self, slot, enter=lambda _step: None) -> None:
        release = slot.manifest.release
        self.tried.append(release)
        if release in self.refused:
            raise TrialRejectedError(release, "SIGABRT") if self.is_final else TrialFailedError("too slow")
        super().model(slot, enter)


def test_starts_are_counted_until_the_release_is_healthy(tmp_path, release):
    fill(tmp_path, release(1))
    fill(tmp_path, release(2), is_healthy=False)
    for _ in range(2):
        start(tmp_path)
    folders = SlotFolders(tmp_path, "bench")
    assert (folders.state.starts, folders.state.is_committed) == (2, False)
    settle(folders, "demo@1")
    assert not folders.state.is_committed, "another release's health"
    settle(folders, "demo@2")
    for _ in range(2):
        ready, restored = start(tmp_path)
    assert ready.release == "demo@2"
    assert restored == Restored("demo@2", "demo@1")


def test_a_stop_in_order_ends_the_count_and_proves_nothing(tmp_path, release):
    fill(tmp_path, release(1), is_healthy=False)
    for _ in range(9):
        ready, restored = start(tmp_path)
        rest(SlotFolders(tmp_path, "bench"))
    assert ready.release == "demo@1"
    assert restored == Restored("demo@1", None, is_proved=False)


def test_the_third_start_without_health_gives_the_release_up(two):
    for _ in range(3):
        start(two)
    ready, restored = start(two)
    assert ready.release == "demo@1"
    why = "the agent crashed 3 times with demo@2 and fell back to demo@1"
    assert restored == Restored("demo@1", None, crashed="demo@2", reason=why)


def test_a_release_that_was_only_staged_is_never_fallen_back_to(tmp_path, release):
    fill(tmp_path, release(1))
    stage(tmp_path, release(3))
    for _ in range(9):
        ready, restored = start(tmp_path)
        assert ready.release == "demo@1"
    assert restored == Restored("demo@1", None)


def test_a_crash_during_a_trial_blames_the_trial(tmp_path, release):
    fill(tmp_path, release(1))
    slot = stage(tmp_path, release(3))
    for count in range(3):
        folders = SlotFolders(tmp_path, "bench")
        folders.change(lambda state: trying(state, slot, "replay"))
        ready, restored = start(tmp_path)
        assert (ready.release, restored) == ("demo@1", Restored("demo@1", None))
        assert SlotFolders(tmp_path, "bench").state.trial == Trial(slot, "demo@3", "replay", count + 1)
    ready, restored = start(tmp_path)
    assert ready.release == "demo@1"
    why = "the agent ended 3 times while demo@3 was in step replay"
    assert restored == Restored("demo@1", None, crashed="demo@3", reason=why)
    state = SlotFolders(tmp_path, "bench").state
    assert (state.holds("demo@3"), state.trial, state.starts) == (None, None, 1)


def test_a_first_release_that_kills_the_agent_is_given_up_and_nothing_loops(tmp_path, release):
    fill(tmp_path, release(1), is_healthy=False)
    for _ in range(3):
        start(tmp_path)
    ready, restored = start(tmp_path)
    assert ready is None
    assert (restored.active, restored.crashed) == (None, "demo@1")
    assert "fell back to no release" in restored.reason
    assert start(tmp_path)[1] == Restored(None, None)


def test_an_active_release_that_was_never_healthy_is_tried_first(tmp_path, release):
    fill(tmp_path, release(1))
    fill(tmp_path, release(2), is_healthy=False)
    trials = Refusing("demo@2")
    ready, restored = start(tmp_path, trials)
    assert (ready.release, trials.tried) == ("demo@1", ["demo@2"])
    assert (restored.crashed, restored.previous, restored.is_proved) == ("demo@2", None, True)
    assert "SIGABRT" in restored.reason
    assert SlotFolders(tmp_path, "bench").state.holds("demo@2") is None
    assert start(tmp_path, trials)[0].release == "demo@1"
    assert trials.tried == ["demo@2"], "what was healthy is not tried again"


def test_a_trial_that_may_pass_keeps_the_release_for_another_one(tmp_path, release):
    fill(tmp_path, release(1), is_healthy=False)
    ready, restored = start(tmp_path, Refusing("demo@1", is_final=False))
    assert ready is None
    assert restored == Restored(None, None, is_lost=True, is_proved=False)
    assert start(tmp_path)[0].release == "demo@1"


def test_a_runtime_that_went_away_costs_no_release(two):
    def gone(name: str):
        raise UnknownNameError("runtime", name, ())

    ready, restored = load_active(SlotFolders(two, "bench"), gone, 3, TRIALS)
    assert (ready, restored.active, restored.is_lost) == (None, None, True)
    assert start(two)[0].release == "demo@2"


def test_a_damaged_slot_gives_way_to_the_other(two):
    for path in (two / "slots" / "B" / "blobs").iterdir():
        path.write_bytes(b"rust")
    ready, restored = load_active(SlotFolders(two, "bench"), load_linear, 3, TRIALS)
    assert ready.release == "demo@1"
    assert restored.is_lost


def test_an_agent_that_is_started_for_another_target_keeps_what_is_installed(two, caplog):
    before = {path: path.read_bytes() for path in two.rglob("*") if path.is_file() and path.parent.name != "state"}
    other = SlotFolders(two, "raspbery-pi")

    ready, restored = load_active(other, load_linear, 3, TRIALS)

    assert (ready, restored.crashed, restored.is_lost) == (None, None, True)
    assert "expected a release for raspbery-pi, found demo@2 in slot B, which is for other targets" in caplog.text
    assert set(other.state.contents) == {Slot.A, Slot.B}
    blobs = {path: content for path, content in before.items() if "blobs" in path.parts or path.name == "manifest.json"}
    assert {path: path.read_bytes() for path in blobs} == blobs
    # With the right target again, and no network, it serves as before.
    assert load_active(SlotFolders(two, "bench"), load_linear, 3, TRIALS)[0].release == "demo@2"


def test_both_slots_damaged_serve_nothing_and_are_installed_again(two):
    for path in (two / "slots").rglob("*"):
        if path.is_file():
            path.write_bytes(b"rust")
    ready, restored = start(two)
    assert ready is None
    assert restored == Restored(None, None, is_lost=True)
    assert SlotFolders(two, "bench").state == Slots()


@pytest.mark.parametrize("blob", ["golden", "train"])
def test_a_release_without_a_stand_in_serves_though_what_serving_does_not_need_is_damaged(tmp_path, release, blob):
    made = release(1)
    fill(tmp_path, made)
    artifact, graph = made.manifest.artifacts[0], made.manifest.train_graphs[0]
    damaged = artifact.golden if blob == "golden" else graph.blob
    (tmp_path / "slots" / "A" / "blobs" / damaged.sha256).write_bytes(b"rust")
    for _ in range(2):
        ready, restored = start(tmp_path)
        assert ready.release == restored.active == "demo@1"


def test_one_damaged_copy_of_the_pointer_is_put_right(two):
    whole = (two / "pointer.json").read_bytes()
    for name in ("pointer.json", "pointer.spare.json"):
        (two / name).write_bytes(whole[:-9] + b"rust" + whole[-5:])
        ready, restored = start(two)
        assert (ready.release, restored) == ("demo@2", Restored("demo@2", "demo@1"))
        settle(SlotFolders(two, "bench"), "demo@2")
        assert (two / "pointer.json").read_bytes() == (two / "pointer.spare.json").read_bytes()


def test_a_lost_pointer_is_rebuilt_from_the_slots_and_their_releases_are_tried_anew(two):
    for name in ("pointer.json", "pointer.spare.json"):
        (two / name).write_bytes(b"{")
    trials = Refusing()
    ready, restored = start(two, trials, wanted="demo@1")
    assert (ready.release, trials.tried) == ("demo@1", ["demo@1"])
    assert restored == Restored("demo@1", None, is_lost=True, is_proved=False)
    folders = SlotFolders(two, "bench")
    assert not folders.was_rebuilt
    assert folders.state.holds("demo@2") is Slot.B, "its slot still holds it"


def test_a_lost_pointer_brings_nothing_back_that_was_given_up(tmp_path, release):
    fill(tmp_path, release(1))
    fill(tmp_path, release(2), is_healthy=False)
    start(tmp_path, Refusing("demo@2"))
    for name in ("pointer.json", "pointer.spare.json"):
        (tmp_path / name).write_bytes(b"{")
    trials = Refusing()
    assert start(tmp_path, trials)[0].release == "demo@1"
    assert trials.tried == ["demo@1"]


def test_the_next_one_is_tried_when_the_first_of_a_rebuilt_pointer_is_refused(two):
    for name in ("pointer.json", "pointer.spare.json"):
        (two / name).write_bytes(b"{")
    trials = Refusing("demo@2")
    ready, restored = start(two, trials)
    assert (ready.release, trials.tried) == ("demo@1", ["demo@2", "demo@1"])
    assert restored.crashed == "demo@2"


def test_a_pointer_of_an_agent_without_checksums_is_read_and_written_anew(two):
    state = json.loads((two / "pointer.json").read_bytes())["slots"]
    for content in state["contents"].values():
        del content["was_healthy"]
    del state["trial"]
    (two / "pointer.json").write_bytes(json.dumps({"version": 1, "slots": state}).encode())
    (two / "pointer.spare.json").unlink()
    ready, restored = start(two)
    assert (ready.release, restored) == ("demo@2", Restored("demo@2", None))
    assert json.loads((two / "pointer.json").read_bytes())["version"] == 2


class ReadOnly(RealDisk):
    def write(self, _path: Path, _content: bytes) -> None:
        raise OSError(30, "Read-only file system")


def test_a_disk_that_cannot_be_written_is_served_from_and_said_once(two, caplog):
    folders = SlotFolders(two, "bench", ReadOnly())
    ready, restored = load_active(folders, load_linear, 3, TRIALS)
    assert ready.release == restored.active == "demo@2"
    settle(folders, "demo@2")
    rest(folders)
    assert [record.levelname for record in caplog.records if "cannot be written" in record.message] == ["ERROR"]


def test_a_disk_that_cannot_be_written_serves_the_other_slot_when_one_is_damaged(two):
    for path in (two / "slots" / "B" / "blobs").iterdir():
        path.write_bytes(b"rust")
    ready, restored = load_active(SlotFolders(two, "bench", ReadOnly()), load_linear, 3, TRIALS)
    assert ready.release == "demo@1"
    assert restored == Restored("demo@1", None, is_lost=True)


def test_what_a_full_disk_did_not_take_is_written_when_there_is_room(two):
    disk = FullDisk()
    folders = SlotFolders(two, "bench", disk)
    assert load_active(folders, load_linear, 3, TRIALS)[0].release == "demo@2"
    settle(folders, "demo@2")
    folders.assume(lambda state: dropped(state, Slot.A))
    assert folders.is_behind
    assert SlotFolders(two, "bench").state.previous == "demo@1", "the disk holds what it held"
    disk.is_full = False
    folders.assume(lambda state: state)
    assert not folders.is_behind
    assert SlotFolders(two, "bench").state == folders.state
    assert SlotFolders(two, "bench").state.previous is None


class Odd(LinearRuntime):
    def load(self, path, artifact):
        if artifact.golden is not None:
            raise TypeError("a runtime that was changed under the agent")
        return super().load(path, artifact)


def test_a_runtime_that_raises_what_it_likes_ends_no_start(two):
    ready, restored = load_active(SlotFolders(two, "bench"), lambda _name: Odd(), 3, TRIALS)
    assert (ready, restored.active, restored.is_lost) == (None, None, True)
    assert start(two)[0].release == "demo@2", "and nothing was thrown away"


def test_a_proved_release_that_crashes_with_nothing_behind_it_is_tried_before_it_may_crash_again(tmp_path, release):
    fill(tmp_path, release(1))
    for _ in range(3):
        assert start(tmp_path, Refusing("demo@1"))[0].release == "demo@1", "it has proved itself"
    trials, loaded = Refusing("demo@1"), []

    def runtimes(name):
        loaded.append(name)
        return load_linear(name)

    ready, restored = load_active(SlotFolders(tmp_path, "bench"), runtimes, 3, trials)
    assert (ready, restored.active, restored.crashed, loaded) == (None, None, "demo@1", [])
    assert "SIGABRT" in restored.reason
    assert SlotFolders(tmp_path, "bench").state.previous is None
    assert start(tmp_path, trials)[0] is None, "and no start after it dies"
    trials.refused = ()
    assert start(tmp_path, trials)[0].release == "demo@1", "it was kept, and serves as long as it passes"
    folders = SlotFolders(tmp_path, "bench")
    settle(folders, "demo@1")
    trials.tried.clear()
    assert start(tmp_path, trials)[0].release == "demo@1"
    assert trials.tried == [], "it is healthy again"


@pytest.mark.parametrize("error", [ImportError("GLIBC_2.38 not found"), OSError(2, "libtensorflowlite.so")])
def test_a_runtime_that_cannot_be_imported_ends_no_start_and_is_named(two, error):
    def broken(_name):
        raise error

    ready, restored = load_active(SlotFolders(two, "bench"), broken, 3, TRIALS)
    assert (ready, restored.is_lost, restored.crashed) == (None, True, None)
    with pytest.raises(InstallError, match=r"loading the runtime linear: expected .* found (ImportError|FileNotFound)"):
        load_model(SlotFolders(two, "bench").open(Slot.B), broken)
    assert start(two)[0].release == "demo@2", "and nothing was thrown away"
