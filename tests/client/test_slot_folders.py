"""The slots on disk: what is put there, what is refused when it is opened again, and what is cleared."""

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from hedgerow.client import slots as rules
from hedgerow.client.disk import RealDisk
from hedgerow.client.errors import OtherTargetError, SlotDamagedError
from hedgerow.client.health import Health
from hedgerow.client.slot_folders import SlotFolders, needed_blobs, open_slot
from hedgerow.client.slots import Content, Slot, Slots
from tests.client.conftest import Release
from tests.client.disks import FullDisk


def filled(folders: SlotFolders, made: Release, scratch: Path) -> Slot:
    """Put a release into the idle slot, from files that lie elsewhere."""
    files = {}
    for blob in needed_blobs(made.manifest, made.manifest.artifacts[0]):
        path = scratch / blob.sha256
        path.write_bytes(made.blobs[blob.sha256])
        files[blob] = path
    return folders.fill_idle(made.manifest.encode(), made.name, files)


def below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def folders(tmp_path, release) -> SlotFolders:
    """demo@1 runs from slot A."""
    found = SlotFolders(tmp_path / "state", "bench")
    filled(found, release(1), tmp_path)
    found.change(lambda state: rules.committed(rules.swapped(state, Slot.A)))
    return found


def refusal(folders: SlotFolders, slot: Slot = Slot.A, **options) -> str:
    with pytest.raises(SlotDamagedError) as caught:
        folders.open(slot, **options)
    assert caught.value.slot == slot
    words = str(caught.value)
    assert words.startswith(f"slot {slot} is damaged: ")
    assert words.endswith("; it will be installed again")
    return words.removeprefix(f"slot {slot} is damaged: ").removesuffix("; it will be installed again")


def test_an_empty_slot_is_refused(folders):
    assert refusal(folders, Slot.B) == "expected a release, found an empty slot"


def test_another_manifest_is_refused(folders):
    manifest = folders.slot_folder(Slot.A) / "manifest.json"
    manifest.write_bytes(manifest.read_bytes() + b" ")
    assert refusal(folders) == "expected the manifest of demo@1, found another manifest"


def test_a_slot_for_another_target_is_refused(folders, tmp_path):
    with pytest.raises(OtherTargetError) as caught:
        SlotFolders(tmp_path / "state", "other").open(Slot.A)
    assert str(caught.value) == (
        "expected a release for other, found demo@1 in slot A, which is for other targets; it is kept: correct "
        "--target, or roll out a release for this one"
    )


def test_a_manifest_that_is_none_is_refused(folders, tmp_path):
    folder, content = tmp_path / "slot", Content("demo@1", hashlib.sha256(b"{}").hexdigest())
    folder.mkdir()
    (folder / "manifest.json").write_bytes(b"{}")
    with pytest.raises(SlotDamagedError) as caught:
        open_slot(folder, Slot.B, "bench", content)
    assert str(caught.value) == (
        "slot B is damaged: expected readable files, found manifest.schema_version: expected a value, found nothing; "
        "it will be installed again"
    )


@pytest.mark.parametrize("place", range(4))
def test_each_blob_is_checked(folders, release, place):
    manifest = release(1).manifest
    blob = needed_blobs(manifest, manifest.artifacts[0])[place]
    path = folders.slot_folder(Slot.A) / "blobs" / blob.sha256
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert refusal(folders) == f"expected a blob with SHA-256 {blob.sha256[:12]}..., found other bytes"
    path.unlink()
    assert refusal(folders) == f"expected readable files, found No such file or directory at {path}"


def test_what_serving_does_not_need_may_be_damaged_for_serving(folders, release):
    manifest = release(1).manifest
    artifact, golden, graph, reference = needed_blobs(manifest, manifest.artifacts[0])
    blobs = folders.slot_folder(Slot.A) / "blobs"
    for blob in (golden, graph):
        (blobs / blob.sha256).unlink()
    opened = folders.open(Slot.A, must_be_whole=False)
    assert (opened.manifest, opened.artifact) == (manifest, manifest.artifacts[0])
    assert opened.blob(artifact).read_bytes() == release(1).blobs[artifact.sha256]
    assert opened.reference.features[0].name == "x.0"
    (blobs / reference.sha256).unlink()
    refusal(folders, must_be_whole=False)


def test_a_slot_that_is_filled_holds_the_new_release_and_nothing_of_the_old_one(folders, release, tmp_path):
    for number in (2, 3):
        assert filled(folders, release(number), tmp_path) is Slot.B
    manifest = release(3).manifest
    needed = {f"blobs/{blob.sha256}" for blob in needed_blobs(manifest, manifest.artifacts[0])}
    assert below(folders.slot_folder(Slot.B)) == {"manifest.json", *needed}
    assert folders.state.contents[Slot.B] == Content("demo@3", hashlib.sha256(manifest.encode()).hexdigest())
    assert folders.open(Slot.B).manifest == manifest


def test_a_power_cut_while_a_slot_is_filled_leaves_it_empty_by_the_pointer(folders, release, tmp_path):
    filled(folders, release(2), tmp_path)

    class PowerCutError(BaseException):
        pass

    class Dying(RealDisk):
        def clear(self, _folder: Path) -> None:
            raise PowerCutError

    with pytest.raises(PowerCutError):
        filled(SlotFolders(tmp_path / "state", "bench", Dying()), release(3), tmp_path)
    state = SlotFolders(tmp_path / "state", "bench").state
    assert (state.release, state.contents.get(Slot.B)) == ("demo@1", None)
    assert not (folders.slot_folder(Slot.B) / "manifest.json").exists(), "a lost pointer must not bring it back"


def test_files_in_the_active_slot_are_copied_and_others_moved(folders, release, tmp_path):
    made = release(2)
    files = {}
    for blob in needed_blobs(made.manifest, made.manifest.artifacts[0]):
        held = folders.find_blob(blob)
        path = held or tmp_path / blob.sha256
        if held is None:
            path.write_bytes(made.blobs[blob.sha256])
        files[blob] = path
    before = below(folders.slot_folder(Slot.A))
    folders.fill_idle(made.manifest.encode(), made.name, files)
    assert below(folders.slot_folder(Slot.A)) == before
    moved = [path for path in files.values() if not path.is_relative_to(folders.slot_folder(Slot.A))]
    assert len(moved) == 2
    assert not any(path.exists() for path in moved)
    assert folders.open(Slot.A).manifest.release == "demo@1"


def test_a_blob_is_found_only_whole_and_only_in_the_active_slot(folders, release, tmp_path):
    manifest = release(1).manifest
    artifact = manifest.artifacts[0].blob
    path = folders.slot_folder(Slot.A) / "blobs" / artifact.sha256
    assert folders.find_blob(artifact) == path
    assert folders.find_blob(replace(artifact, length_bytes=artifact.length_bytes + 1)) is None
    assert folders.find_blob(replace(artifact, sha256="0" * 64)) is None
    path.write_bytes(bytes(artifact.length_bytes))
    assert folders.find_blob(artifact) is None
    folders.change(rules.cleared)
    assert folders.find_blob(manifest.reference) is None


def test_leftovers_are_cleared_and_a_release_is_not(folders, release, tmp_path):
    idle = folders.slot_folder(Slot.B)
    filled(folders, release(2), tmp_path)
    held = below(idle)
    folders.clear_leftovers()
    assert below(idle) == held
    folders.change(rules.staging)
    assert below(idle) == held - {"manifest.json"}
    folders.clear_leftovers()
    assert below(idle) == set()
    assert folders.open(Slot.A).manifest.release == "demo@1"


def test_a_change_that_cannot_be_written_does_not_happen_and_one_that_must_is_caught_up(folders, tmp_path):
    disk, health = FullDisk(), Health()
    found = SlotFolders(tmp_path / "state", "bench", disk, health=health)
    for refused in (found.check_writable, lambda: found.change(rules.started)):
        with pytest.raises(OSError, match="No space left"):
            refused()
    assert (found.state.starts, found.is_behind) == (0, False)
    assert found.assume(rules.started).starts == 1
    assert (found.state.starts, found.is_behind) == (1, True)
    assert SlotFolders(tmp_path / "state", "bench").state.starts == 0
    disk.is_full = False
    found.assume(lambda state: state)
    assert (found.state.starts, found.is_behind) == (1, False)
    assert SlotFolders(tmp_path / "state", "bench").state.starts == 1


def test_a_lost_pointer_leaves_what_is_whole_and_trusts_none_of_it(folders, release, tmp_path):
    filled(folders, release(2), tmp_path)
    for pointer in (tmp_path / "state").glob("pointer*.json"):
        pointer.write_bytes(b"rust")
    found = SlotFolders(tmp_path / "state", "bench")
    assert found.was_rebuilt
    assert {slot: content.release for slot, content in found.state.contents.items()} == {
        Slot.A: "demo@1",
        Slot.B: "demo@2",
    }
    assert (found.state.active, found.state.previous) == (None, None)
    assert not SlotFolders(tmp_path / "elsewhere", "bench").was_rebuilt
    assert SlotFolders(tmp_path / "elsewhere", "bench").state == Slots()
