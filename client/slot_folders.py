"""The slots on disk: ``slots/A``, ``slots/B`` and ``pointer.json``. The rules are in slots.py.

A slot folder holds ``manifest.json`` and ``blobs/<sha256>``. The pointer names the hash of each slot's manifest, and
the manifest the hash of each blob; all of them are checked whenever a slot is opened, because a disk forgets.
"""

import hashlib
import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hedgerow.client import slots as rules
from hedgerow.client.disk import Disk, RealDisk
from hedgerow.client.errors import SlotDamagedError
from hedgerow.client.slots import Content, Slot, Slots, Transition
from hedgerow.decode import decode_json, encode_json
from hedgerow.durable import sha256_of
from hedgerow.errors import DecodeError
from hedgerow.manifest import Artifact, Blob, Manifest, TrainGraph
from hedgerow.reference import Reference

__all__ = ["OpenSlot", "SlotFolders", "needed_blobs"]

_log = logging.getLogger(__name__)
_VERSION = 1
_POINTER_LIMIT_BYTES = 64 * 1024


def needed_blobs(manifest: Manifest, artifact: Artifact) -> tuple[Blob, ...]:
    """Return what a device stores of a release: its artifact, golden samples, train graph and the reference."""
    graph = manifest.train_graph(artifact.runtime)
    blobs = [artifact.blob, artifact.golden, graph.blob if graph else None, manifest.reference]
    return tuple(dict.fromkeys(blob for blob in blobs if blob is not None))


@dataclass(frozen=True, slots=True)
class OpenSlot:
    """A slot whose whole content was just verified.

    Attributes:
        folder: The slot's folder.
        manifest: Of its release.
        artifact: The one for this device's target.
        reference: Bins and counts.
    """

    folder: Path
    manifest: Manifest
    artifact: Artifact
    reference: Reference

    def blob(self, blob: Blob) -> Path:
        """Return the path of one of the release's blobs."""
        return self.folder / "blobs" / blob.sha256

    @property
    def train_graph(self) -> TrainGraph | None:
        """The train graph for this artifact's runtime, or None."""
        return self.manifest.train_graph(self.artifact.runtime)


class SlotFolders:
    """The two slots of one device.

    Args:
        folder: The agent's state folder.
        target: The device's hardware target.
        disk: Where to write.
    """

    def __init__(self, folder: Path, target: str, disk: Disk | None = None) -> None:
        self._folder, self._target, self._disk = folder, target, disk or RealDisk()
        self._pointer = folder / "pointer.json"
        self._lock = threading.Lock()
        self.state = self._read_pointer()

    def _read_pointer(self) -> Slots:
        if not self._pointer.exists():
            return Slots()
        try:
            fields = decode_json(self._pointer.read_bytes(), "pointer.json", limit_bytes=_POINTER_LIMIT_BYTES)
            fields.integer("version", minimum=_VERSION, maximum=_VERSION)
            state = Slots.from_fields(fields.nested("slots"))
            fields.finish()
        except DecodeError as exc:
            # Only a failing disk does this. The slots cannot be trusted without it; the fleet will fill them again.
            _log.error("%s; both slots count as empty", exc)
            return Slots()
        return state

    def change(self, transition: Transition) -> Slots:
        """Apply *transition* to the state, durably, and return the new state. May be called from any thread.

        Raises:
            OSError: It could not be written; the old state holds.
        """
        with self._lock:
            state = transition(self.state)
            if state != self.state:
                self._disk.write(self._pointer, encode_json({"version": _VERSION, "slots": state.to_record()}))
                self.state = state
            return state

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
        self._disk.write(folder / "manifest.json", manifest)
        content = Content(release, hashlib.sha256(manifest).hexdigest())
        self.change(lambda state: rules.staged(state, content))
        return slot

    def open(self, slot: Slot) -> OpenSlot:
        """Verify everything in *slot* and return it.

        Raises:
            SlotDamagedError: A file is absent or is not what was put there.
        """
        content = self.state.contents.get(slot)
        if content is None:
            raise SlotDamagedError(slot, "a release", "an empty slot")
        folder = self.slot_folder(slot)
        try:
            document = (folder / "manifest.json").read_bytes()
            if hashlib.sha256(document).hexdigest() != content.manifest_sha256:
                raise SlotDamagedError(slot, f"the manifest of {content.release}", "another manifest")
            manifest = Manifest.decode(document)
            artifact = manifest.artifact(self._target)
            if artifact is None:
                raise SlotDamagedError(slot, f"a release for {self._target}", "one for other targets")
            opened = OpenSlot(folder, manifest, artifact, Reference(()))
            for blob in needed_blobs(manifest, artifact):
                if sha256_of(opened.blob(blob)) != blob.sha256:
                    raise SlotDamagedError(slot, f"a blob with SHA-256 {blob.sha256[:12]}...", "other bytes")
            return OpenSlot(folder, manifest, artifact, Reference.decode(opened.blob(manifest.reference).read_bytes()))
        except OSError as exc:
            raise SlotDamagedError(slot, "readable files", f"{exc.strerror} at {exc.filename}") from exc
        except DecodeError as exc:
            raise SlotDamagedError(slot, "readable files", str(exc)) from exc
