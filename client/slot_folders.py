"""The slots on disk: ``slots/A``, ``slots/B`` and ``pointer.json``. The rules are in slots.py.

A slot folder holds ``manifest.json`` and ``blobs/<sha256>``. The pointer names the hash of each slot's manifest, and
the manifest the hash of each blob; all of them are checked whenever a slot is opened, because a disk forgets. When it
forgot the pointer and its spare copy too, the slots themselves say what is whole in them; nothing there counts as
proved then.
"""

import contextlib
import hashlib
import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from hedgerow.client import slots as rules
from hedgerow.client.disk import Disk, RealDisk
from hedgerow.client.errors import OtherTargetError, SlotDamagedError
from hedgerow.client.health import Health, Part
from hedgerow.client.kept_record import KeptRecord
from hedgerow.client.slots import Content, Slot, Slots, Transition
from hedgerow.durable import sha256_of
from hedgerow.errors import DecodeError
from hedgerow.manifest.artifact import Artifact
from hedgerow.manifest.content import Blob
from hedgerow.manifest.release import Manifest
from hedgerow.manifest.train_graph import TrainGraph
from hedgerow.reference import Reference

__all__ = ["OpenSlot", "SlotFolders", "needed_blobs", "open_slot"]

_log = logging.getLogger(__name__)
_MANIFEST = "manifest.json"


def needed_blobs(manifest: Manifest, artifact: Artifact) -> tuple[Blob, ...]:
    """Return what a device stores of a release: its artifact, golden samples, train graph and the reference."""
    graph = manifest.train_graph(artifact.runtime)
    prepare = artifact.prepare.blob if artifact.prepare is not None else None
    blobs = [artifact.blob, prepare, artifact.golden, graph.blob if graph else None, manifest.reference]
    return tuple(dict.fromkeys(blob for blob in blobs if blob is not None))


@dataclass(frozen=True, slots=True)
class OpenSlot:
    """A slot whose whole content was just verified.

    Attributes:
        folder: The slot's folder.
        manifest: The manifest of its release.
        artifact: The one for this device's target.
        reference: Bins and counts.
        manifest_sha256: Hash of the manifest as it lies there.
    """

    folder: Path
    manifest: Manifest
    artifact: Artifact
    reference: Reference
    manifest_sha256: str = ""

    def blob(self, blob: Blob) -> Path:
        """Return the path of one of the release's blobs."""
        return self.folder / "blobs" / blob.sha256

    @property
    def train_graph(self) -> TrainGraph | None:
        """The train graph for this artifact's runtime, or None."""
        return self.manifest.train_graph(self.artifact.runtime)


def open_slot(folder: Path, slot: Slot, target: str, content: Content, *, must_be_whole: bool = True) -> OpenSlot:
    """Verify what lies in *folder* and return it.

    Args:
        folder: The slot's folder.
        slot: Its name, for messages.
        target: The device's hardware target.
        content: What the pointer says of it.
        must_be_whole: Whether golden samples and train graph count too; serving needs neither.

    Raises:
        OtherTargetError: The release is for other targets.
        SlotDamagedError: A file is absent or is not what was put there.
    """
    try:
        document = (folder / _MANIFEST).read_bytes()
        if hashlib.sha256(document).hexdigest() != content.manifest_sha256:
            raise SlotDamagedError(slot, f"the manifest of {content.release}", "another manifest")
        manifest = Manifest.decode(document)
        artifact = manifest.artifact(target)
        if artifact is None:
            raise OtherTargetError(slot, content.release, target)
        opened = OpenSlot(folder, manifest, artifact, Reference(()))
        needed = needed_blobs(manifest, artifact)
        if not must_be_whole:
            spare = {artifact.golden, opened.train_graph.blob if opened.train_graph is not None else None}
            needed = tuple(blob for blob in needed if blob not in spare)
        for blob in needed:
            if sha256_of(opened.blob(blob)) != blob.sha256:
                raise SlotDamagedError(slot, f"a blob with SHA-256 {blob.sha256[:12]}...", "other bytes")
        reference = Reference.decode(opened.blob(manifest.reference).read_bytes())
        return replace(opened, reference=reference, manifest_sha256=content.manifest_sha256)
    except OSError as exc:
        raise SlotDamagedError(slot, "readable files", f"{exc.strerror} at {exc.filename}") from exc
    except DecodeError as exc:
        raise SlotDamagedError(slot, "readable files", str(exc)) from exc


class SlotFolders:
    """The two slots of one device.

    Args:
        folder: The agent's state folder.
        target: The device's hardware target.
        disk: What writes.
        health: Is told when that fails and need not stop the agent.

    Attributes:
        state: What lies where.
        was_rebuilt: Whether the pointer was lost, so that nothing is known of the slots but what they hold.
        is_behind: Whether the disk did not take the state, so that it still holds an older one.
    """

    def __init__(self, folder: Path, target: str, disk: Disk | None = None, *, health: Health | None = None) -> None:
        self._folder, self.target, self._disk = folder, target, disk or RealDisk()
        self._health = health if health is not None else Health()
        self._pointer = KeptRecord(folder / "pointer.json", "slots", self._disk.write)
        self._lock = threading.Lock()
        self.was_rebuilt = self.is_behind = False
        self.state = self._read_pointer()

    def _read_pointer(self) -> Slots:
        try:
            found = self._pointer.read(Slots.from_fields)
        except DecodeError:
            self.was_rebuilt = True
            return self._rebuilt()
        if found is None:
            return Slots()
        return found

    def _rebuilt(self) -> Slots:
        """Return what is whole in the slots; which one was active and which were healthy is not known any more."""
        contents = {}
        for slot in Slot:
            try:
                document = (self.slot_folder(slot) / _MANIFEST).read_bytes()
                content = Content(Manifest.decode(document).release, hashlib.sha256(document).hexdigest())
                open_slot(self.slot_folder(slot), slot, self.target, content)
            except (OSError, DecodeError, OtherTargetError, SlotDamagedError) as exc:
                _log.warning("nothing is left of slot %s: %s", slot, exc)
                continue
            contents[slot] = content
        found = ", ".join(f"{content.release} in slot {slot}" for slot, content in contents.items()) or "nothing"
        _log.error("the pointer and its spare copy are damaged; the slots hold %s, which is tried anew", found)
        return Slots(contents=contents)

    def change(self, transition: Transition) -> Slots:
        """Apply *transition* to the state, durably, and return the new state. May be called from any thread.

        Raises:
            OSError: It could not be written; the old state holds.
        """
        with self._lock:
            return self._changed(transition)

    def assume(self, transition: Transition) -> Slots:
        """Apply *transition* to the state, and write it where the disk lets us; a disk that does not must stop nobody.

        A copy of the pointer that was found damaged, and what the disk did not take before, is put right on the way.
        """
        with self._lock:
            try:
                self._changed(transition, must_write=self._pointer.needs_repair or self.is_behind)
            except OSError as exc:
                self._health.failed(Part.STATE, exc)
                self.is_behind = True
                self.state = transition(self.state)
            return self.state

    def _changed(self, transition: Transition, *, must_write: bool = False) -> Slots:
        before, state = self.state, transition(self.state)
        if state != before or must_write:
            self._write(state)
            self.state = state
        for slot in before.contents:
            if slot not in state.contents:
                # Otherwise a lost pointer would bring back what was given up.
                with contextlib.suppress(OSError):
                    (self.slot_folder(slot) / _MANIFEST).unlink(missing_ok=True)
        return state

    def _write(self, state: Slots) -> None:
        self._pointer.write(state.to_record())
        self.is_behind = False
        self._health.worked(Part.STATE)

    def check_writable(self) -> None:
        """Return if the disk takes a new copy of the pointer.

        Raises:
            OSError: It does not.
        """
        with self._lock:
            self._write(self.state)

    def slot_folder(self, slot: Slot) -> Path:
        """Return the folder of *slot*."""
        return self._folder / "slots" / slot.value

    def find_blob(self, blob: Blob) -> Path | None:
        """Return the active slot's file that really holds *blob*, or None."""
        if self.state.active is None:
            return None
        path = self.slot_folder(self.state.active) / "blobs" / blob.sha256
        if path.is_file() and path.stat().st_size == blob.length_bytes and sha256_of(path) == blob.sha256:
            return path
        return None

    def clear_leftovers(self) -> None:
        """Empty the folder of the idle slot, where an installation left its files and no release."""
        if self.state.idle not in self.state.contents:
            self._disk.clear(self.slot_folder(self.state.idle))

    def fill_idle(self, manifest: bytes, release: str, files: Mapping[Blob, Path]) -> Slot:
        """Write a release into the idle slot.

        Args:
            manifest: The manifest's bytes, verified.
            release: ``name@number``.
            files: Each blob's verified file. Files inside a slot are copied, others are moved away.

        Returns:
            The slot, now filled and synced.
        """
        slot = self.state.idle
        folder = self.slot_folder(slot)
        # A blob that both releases share is copied from the active slot; the idle one is about to be cleared.
        active = self.slot_folder(slot.other)
        self.change(rules.staging)
        self._disk.clear(folder)
        for blob, path in files.items():
            if path.is_relative_to(active):
                self._disk.copy(path, folder / "blobs" / blob.sha256)
            else:
                self._disk.move(path, folder / "blobs" / blob.sha256)
        self._disk.write(folder / _MANIFEST, manifest)
        content = Content(release, hashlib.sha256(manifest).hexdigest())
        self.change(lambda state: rules.staged(state, content))
        return slot

    def open(self, slot: Slot, *, must_be_whole: bool = True) -> OpenSlot:
        """Verify what lies in *slot* and return it (see :func:`open_slot`).

        Raises:
            SlotDamagedError: A file is absent or is not what was put there.
        """
        content = self.state.contents.get(slot)
        if content is None:
            raise SlotDamagedError(slot, "a release", "an empty slot")
        return open_slot(self.slot_folder(slot), slot, self.target, content, must_be_whole=must_be_whole)
