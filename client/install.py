"""Bring a release onto this device: fetch, verify, unpack into the idle slot, load, replay, swap.

Every step leaves the active slot alone until the pointer moves, in one durable write. A release that has not proved
itself here is loaded and replayed in a child process first, and what is tried is written down before it is tried. The
last step, ``commit``, is the agent's: it comes after a whole health period. What a failure means for the fleet is in
the class of the error: :class:`RejectedError` (never again) or :class:`InstallError` (may be tried again).
"""

import contextlib
import errno
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from hedgerow.client import slots as rules
from hedgerow.client.download import download
from hedgerow.client.errors import InstallError, OtherTargetError, RejectedError, SlotDamagedError
from hedgerow.client.fleet_http import FleetHttp
from hedgerow.client.loading import LoadRuntime, ReadyModel, find_runtime, load_model, try_model
from hedgerow.client.runtimes import load_runtime
from hedgerow.client.slot_folders import SlotFolders, needed_blobs
from hedgerow.client.slots import Slot
from hedgerow.client.trial import ChildTrials, Trials
from hedgerow.client.trust import OpenTrust, SignedFile, Trust
from hedgerow.errors import DecodeError, InputError
from hedgerow.manifest.artifact import Artifact
from hedgerow.manifest.content import Blob
from hedgerow.manifest.release import Manifest, blob_path, manifest_path

__all__ = ["Installer", "Step", "check_signed"]

ANY_HARDWARE = "any"
_READ_ONLY = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class Step(StrEnum):
    """What an installation is doing; the fleet sees the name."""

    VERIFY = "verify"
    DOWNLOAD = "download"
    UNPACK = "unpack"
    LOAD = "load"
    REPLAY = "replay"
    SWAP = "swap"
    COMMIT = "commit"


def check_signed(file: SignedFile, release: str, target: str) -> SignedFile:
    """Return *file* if it was signed for this release and this hardware.

    A fleet service may only combine what the signer meant to go together (Uptane's split of image and director).

    Raises:
        RejectedError: It was signed for another release or other hardware.
    """
    if file.release != release:
        raise RejectedError(
            release,
            f"{file.path} signed for {release}",
            f"it signed for {file.release or 'no release'}",
            "sign it again",
        )
    if file.hardware not in {ANY_HARDWARE, target}:
        raise RejectedError(
            release,
            f"files for {target}",
            f"{file.path} for {file.hardware or 'no hardware'}",
            "compile for this target",
        )
    return file


@dataclass(frozen=True, slots=True, kw_only=True)
class Installer:
    """Installs releases on one device.

    Attributes:
        slots: The places of releases on disk.
        http: The server.
        trust: Fetches the signed metadata.
        target: This device's hardware target.
        downloads: Folder for unfinished downloads.
        pause: Waits the seconds it is given; returns True when the agent is stopping.
        runtimes: Finds a runtime by name.
        trials: Tries a release before it is loaded here.
    """

    slots: SlotFolders
    http: FleetHttp
    trust: OpenTrust
    target: str
    downloads: Path
    pause: Callable[[float], bool]
    runtimes: LoadRuntime = load_runtime
    trials: Trials = field(default_factory=ChildTrials)

    def install(
        self, release: str, *, enter: Callable[[Step], None], activate: Callable[[ReadyModel], None]
    ) -> ReadyModel:
        """Make *release* the active one, yet to be healthy.

        Args:
            release: ``name@number``.
            enter: Told about each step before it starts.
            activate: Puts the model to work, right after the pointer moved.

        Returns:
            The loaded model.

        Raises:
            RejectedError: This device must not run it.
            InstallError: Something failed that may pass; the active release is as it was.
            StoppedError: The agent is stopping; the next start goes on.
        """
        try:
            try:
                # Before anything is asked of the network: it is no use where nothing can be kept.
                self.slots.check_writable()
                slot, ready = self._ready(release, enter)
                enter(Step.SWAP)
                self.slots.change(lambda state: rules.swapped(state, slot))
            except RejectedError:
                self.slots.assume(rules.given_up)
                raise
            except Exception:
                # Whatever it was, this process lives: the next start has nobody to blame for it.
                self.slots.assume(rules.tried)
                raise
        except (DecodeError, OtherTargetError, SlotDamagedError, InputError) as exc:
            raise InstallError(f"installing {release}", "a whole release", str(exc)) from exc
        except OSError as exc:
            if exc.errno in _NO_ROOM:
                self._make_room()
            raise _disk_error(release, exc) from exc
        activate(ready)
        return ready

    def _ready(self, release: str, enter: Callable[[Step], None]) -> tuple[Slot, ReadyModel]:
        held = self.slots.state.holds(release)
        if held is not None:
            # Going back needs no network: what lies there was verified when it came, and its hashes are checked now.
            try:
                return held, self._prepared(held, enter)
            except SlotDamagedError:
                self.slots.change(lambda state: rules.dropped(state, held))
        if not self.slots.state.may_stage:
            raise InstallError(
                f"installing {release}",
                f"that {self.slots.state.release} is healthy, since only {self.slots.state.previous} is so far",
                "that it has not run long enough",
            )
        slot = self._fetch(release, enter)
        return slot, self._prepared(slot, enter)

    def _prepared(self, slot: Slot, enter: Callable[[Step], None]) -> ReadyModel:
        opened = self.slots.open(slot)

        def enter_trial(step: str) -> None:
            self.slots.change(lambda state: rules.trying(state, slot, step))
            enter(Step(step))

        state = self.slots.state
        # The active one is only asked for here when this start could not serve it, whatever it did before.
        if state.contents[slot].was_healthy and slot is not state.active:
            return try_model(opened, self.runtimes, enter_trial)
        self.trials.model(opened, enter_trial)
        return load_model(opened, self.runtimes)

    def _fetch(self, release: str, enter: Callable[[Step], None]) -> Slot:
        enter(Step.VERIFY)
        trust = self.trust(release)
        document = self._manifest(trust, release)
        manifest = Manifest.decode(document)
        artifact = self._artifact(manifest, release)
        wanted = needed_blobs(manifest, artifact)
        signed = {blob: self._signed_blob(trust, release, blob) for blob in wanted}
        enter(Step.DOWNLOAD)
        files = {blob: self.slots.find_blob(blob) or self._download(file) for blob, file in signed.items()}
        enter(Step.UNPACK)
        slot = self.slots.fill_idle(document, release, files)
        self._clear_downloads()
        return slot

    def _clear_downloads(self) -> None:
        for left in self.downloads.glob("*"):
            left.unlink(missing_ok=True)

    def _make_room(self) -> None:
        """Give back what an installation took that the disk has no room for; windows and records need it too."""
        with contextlib.suppress(OSError):
            self._clear_downloads()
            self.slots.clear_leftovers()

    def _manifest(self, trust: Trust, release: str) -> bytes:
        file = check_signed(trust.find(release, manifest_path(release)), release, self.target)
        path = self._download(file)
        document = path.read_bytes()
        path.unlink()
        return document

    def _artifact(self, manifest: Manifest, release: str) -> Artifact:
        if manifest.release != release:
            raise RejectedError(release, f"the manifest of {release}", f"that of {manifest.release}", "sign it again")
        artifact = manifest.artifact(self.target)
        if artifact is None:
            found = ", ".join(a.target for a in manifest.artifacts) or "none"
            raise RejectedError(
                release, f"an artifact for {self.target}", f"artifacts for {found}", "compile for this target"
            )
        # Asked before anything large is fetched.
        find_runtime(artifact.runtime, release, self.runtimes)
        return artifact

    def _signed_blob(self, trust: Trust, release: str, blob: Blob) -> SignedFile:
        file = check_signed(trust.find(release, blob_path(release, blob.sha256)), release, self.target)
        if (file.sha256, file.length_bytes) != (blob.sha256, blob.length_bytes):
            raise RejectedError(
                release, f"{blob.sha256[:12]}... as the manifest says", f"{file.sha256[:12]}... signed", "sign it again"
            )
        return file

    def _download(self, file: SignedFile) -> Path:
        return download(self.http, file, self.downloads, pause=self.pause)


def _disk_error(release: str, error: OSError) -> InstallError:
    if error.errno in _READ_ONLY:
        wanted, action = "a state folder that can be written", "make it writable, or change the disk"
    elif error.errno in _NO_ROOM:
        wanted, action = "room on the disk", "make room"
    else:
        wanted, action = "a disk that works", "check the disk"
    return InstallError(f"installing {release}", wanted, str(error), action)
