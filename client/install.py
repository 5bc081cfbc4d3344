"""Bring a release onto this device: fetch, verify, unpack into the idle slot, load, replay, swap, commit.

Every step leaves the active slot alone until the pointer moves, in one durable write. What a failure means for the
fleet is in the class of the error: :class:`RejectedError` (never again) or :class:`InstallError` (may be tried again).
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from hedgerow.client import slots as rules
from hedgerow.client.download import download
from hedgerow.client.errors import InstallError, RejectedError, SlotDamagedError
from hedgerow.client.fleet_http import FleetHttp
from hedgerow.client.loading import LoadRuntime, ReadyModel, find_runtime, load_model, replay_golden
from hedgerow.client.runtimes import load_runtime
from hedgerow.client.slot_folders import SlotFolders, needed_blobs
from hedgerow.client.slots import Slot
from hedgerow.client.trust import OpenTrust, SignedFile, Trust
from hedgerow.errors import DecodeError
from hedgerow.manifest import Artifact, Blob, Manifest, blob_path, manifest_path
from hedgerow.schema import InputError

__all__ = ["Installer", "Step", "check_signed"]

ANY_HARDWARE = "any"


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
        slots: Where releases are kept.
        http: The server.
        trust: Fetches the signed metadata.
        target: This device's hardware target.
        downloads: Folder for unfinished downloads.
        pause: Waits the seconds it is given; returns True when the agent is stopping.
        runtimes: Finds a runtime by name.
    """

    slots: SlotFolders
    http: FleetHttp
    trust: OpenTrust
    target: str
    downloads: Path
    pause: Callable[[float], bool]
    runtimes: LoadRuntime = load_runtime

    def install(
        self, release: str, *, enter: Callable[[Step], None], activate: Callable[[ReadyModel], None]
    ) -> ReadyModel:
        """Make *release* the active one.

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
            slot, ready = self._ready(release, enter)
            enter(Step.SWAP)
            self.slots.change(lambda state: rules.swapped(state, slot))
            activate(ready)
            enter(Step.COMMIT)
            self.slots.change(rules.committed)
        except (DecodeError, SlotDamagedError, InputError) as exc:
            raise InstallError(f"installing {release}", "a whole release", str(exc)) from exc
        except OSError as exc:
            raise InstallError(f"installing {release}", "room on the disk", str(exc), "make room") from exc
        return ready

    def _ready(self, release: str, enter: Callable[[Step], None]) -> tuple[Slot, ReadyModel]:
        held = self.slots.state.holds(release)
        if held is not None:
            # Going back needs no network: what lies there was verified when it came, and its hashes are checked now.
            try:
                return held, self._prepared(held, enter)
            except SlotDamagedError:
                self.slots.change(lambda state: rules.dropped(state, held))
        slot = self._fetch(release, enter)
        return slot, self._prepared(slot, enter)

    def _prepared(self, slot: Slot, enter: Callable[[Step], None]) -> ReadyModel:
        enter(Step.LOAD)
        ready = load_model(self.slots.open(slot), self.runtimes)
        enter(Step.REPLAY)
        replay_golden(ready)
        return ready

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
        for left in self.downloads.glob("*"):
            left.unlink(missing_ok=True)
        return slot

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
