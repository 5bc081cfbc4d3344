"""The first thing an agent does: find something to serve."""

from pathlib import Path

import pytest

from hedgerow.client.disk import RealDisk
from hedgerow.client.events import Restored
from hedgerow.client.runtimes.linear import load_linear
from hedgerow.client.slot_folders import SlotFolders
from hedgerow.client.slots import swapped
from hedgerow.client.start_up import load_active, settle


def fill(folder: Path, made) -> SlotFolders:
    folders = SlotFolders(folder, "bench")
    files = {}
    for sha256, content in made.blobs.items():
        path = folder / "downloads" / sha256
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        files[next(blob for blob in made.manifest.blobs() if blob.sha256 == sha256)] = path
    slot = folders.fill_idle(made.manifest.encode(), made.name, files)
    folders.change(lambda state: swapped(state, slot))
    return SlotFolders(folder, "bench")


@pytest.fixture
def two(tmp_path, release) -> Path:
    fill(tmp_path, release(1))
    fill(tmp_path, release(2))
    return tmp_path


def test_nothing_installed_is_no_error(tmp_path):
    assert load_active(SlotFolders(tmp_path, "bench"), load_linear, 3) == (None, Restored(None, None))


def test_starts_are_counted_until_the_release_is_healthy(two):
    for _ in range(2):
        load_active(SlotFolders(two, "bench"), load_linear, 3)
    folders = SlotFolders(two, "bench")
    assert (folders.state.starts, folders.state.is_committed) == (2, False)
    settle(folders)
    for _ in range(2):
        ready, restored = load_active(SlotFolders(two, "bench"), load_linear, 3)
    assert ready.release == "demo@2"
    assert restored == Restored("demo@2", "demo@1")


def test_the_third_start_without_health_gives_the_release_up(two):
    for _ in range(3):
        load_active(SlotFolders(two, "bench"), load_linear, 3)
    ready, restored = load_active(SlotFolders(two, "bench"), load_linear, 3)
    assert ready.release == "demo@1"
    assert restored == Restored("demo@1", None, crashed="demo@2")


def test_a_damaged_slot_gives_way_to_the_other(two):
    for path in (two / "slots" / "B" / "blobs").iterdir():
        path.write_bytes(b"rust")
    ready, restored = load_active(SlotFolders(two, "bench"), load_linear, 3)
    assert ready.release == "demo@1"
    assert restored.is_lost


def test_a_damaged_pointer_counts_as_empty_slots(two):
    (two / "pointer.json").write_bytes(b"{")
    assert load_active(SlotFolders(two, "bench"), load_linear, 3)[0] is None


def test_a_disk_that_cannot_be_written_is_served_from(two):
    class ReadOnly(RealDisk):
        def write(self, _path: Path, _content: bytes) -> None:
            raise OSError(30, "Read-only file system")

    ready, restored = load_active(SlotFolders(two, "bench", ReadOnly()), load_linear, 3)
    assert ready.release == restored.active == "demo@2"
