"""Installing: power cuts at every durable step, and everything that signatures are for."""

import errno
import hashlib
import json
import os
import random
import shutil
import threading
from dataclasses import replace
from datetime import UTC, datetime, timezone
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from securesystemslib.signer import CryptoSigner
from tuf.ngclient._internal import trusted_metadata_set

from hedgerow.client.disk import RealDisk
from hedgerow.client.errors import (
    InstallError,
    RejectedError,
    SlotDamagedError,
    StoppedError,
    TransferError,
    TrialFailedError,
    TrialRejectedError,
)
from hedgerow.client.fleet_http import FleetHttp
from hedgerow.client.install import Installer, Step, check_signed
from hedgerow.client.loading import ReadyModel, load_model, replay_golden
from hedgerow.client.runtimes.linear import load_linear
from hedgerow.client.slot_folders import SlotFolders, needed_blobs
from hedgerow.client.slots import Slot, Trial
from hedgerow.client.start_up import settle
from hedgerow.client.trial import DirectTrials
from hedgerow.client.trust import SignedFile, open_trust
from hedgerow.errors import HedgerowError
from tests.client.conftest import with_golden


class PowerCutError(BaseException):
    """The machine went off. No handler of ours may catch it."""


class DyingDisk(RealDisk):
    """A disk whose machine goes off before, or in the middle of, one of its durable steps."""

    def __init__(self, dies_at: int, *, halfway: bool) -> None:
        self.steps, self.dies_at, self.halfway = 0, dies_at, halfway

    def _step(self, half) -> None:
        self.steps += 1
        if self.steps == self.dies_at:
            if self.halfway:
                half()
            raise PowerCutError

    def write(self, path: Path, content: bytes) -> None:
        def half() -> None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.with_name(f".{path.name}.x.part").write_bytes(content[: len(content) // 2])

        self._step(half)
        super().write(path, content)

    def move(self, source: Path, destination: Path) -> None:
        self._step(lambda: destination.parent.mkdir(parents=True, exist_ok=True))
        super().move(source, destination)

    def copy(self, source: Path, destination: Path) -> None:
        def half() -> None:
            destination.parent.mkdir(parents=True, exist_ok=True)
            destination.with_name(f".{destination.name}.part").write_bytes(source.read_bytes()[:7])

        self._step(half)
        super().copy(source, destination)

    def clear(self, folder: Path) -> None:
        def half() -> None:
            for path in list(folder.rglob("*"))[:2]:
                if path.is_file():
                    path.unlink()

        self._step(half)
        super().clear(folder)


class Device:
    """A state folder and what is needed to install into it. Whatever it installs is healthy, unless told otherwise."""

    def __init__(self, folder: Path, url: str, root: bytes) -> None:
        self.folder, self.http, self.root = folder, FleetHttp(url, timeout_s=2), root
        self.entered: list[Step] = []
        self.activated: list[str] = []

    def install(
        self,
        release: str,
        *,
        disk=None,
        target: str = "bench",
        pause=lambda _seconds: False,
        trials=None,
        is_healthy: bool = True,
    ) -> SlotFolders:
        slots = SlotFolders(self.folder, target, disk)
        installer = Installer(
            slots=slots,
            http=self.http,
            trust=lambda name: open_trust(self.folder / "tuf", self.root, self.http, name),
            target=target,
            downloads=self.folder / "downloads",
            pause=pause,
            runtimes=load_linear,
            trials=trials or DirectTrials(load_linear),
        )
        self.entered.clear()
        installer.install(
            release, enter=self.entered.append, activate=lambda ready: self.activated.append(ready.release)
        )
        if is_healthy:
            settle(slots, release)
        return slots

    def release(self) -> str | None:
        """What a start after a power cut would load; raises when that is damaged."""
        slots = SlotFolders(self.folder, "bench")
        if slots.state.active is None:
            return None
        return load_model(slots.open(slots.state.active), load_linear).release


@pytest.fixture
def device(tmp_path, repository, fleet) -> Device:
    return Device(tmp_path / "device", fleet.url, repository.trusted_root.read_bytes())


def test_the_first_and_the_second_release_take_a_slot_each(device, repository, fleet, release):
    repository.add(release(1))
    repository.add(release(2))
    device.install("demo@1")
    assert device.entered == [Step.VERIFY, Step.DOWNLOAD, Step.UNPACK, Step.LOAD, Step.REPLAY, Step.SWAP]
    fleet.requests.clear()
    slots = device.install("demo@2")
    assert (slots.state.release, slots.state.previous, slots.state.is_committed) == ("demo@2", "demo@1", True)
    assert device.activated == ["demo@1", "demo@2"]
    # Manifest, artifact and golden samples are new; the train graph and the reference are copied from the active slot.
    assert sum("/targets/" in path for path in fleet.paths()) == 3
    assert list((device.folder / "downloads").iterdir()) == []


def test_a_power_cut_at_any_step_leaves_the_old_release_or_the_new_one(device, repository, release, tmp_path):
    repository.add(release(1))
    repository.add(release(2))
    repository.add(release(3))
    device.install("demo@1")
    device.install("demo@2")
    shutil.copytree(device.folder, tmp_path / "before")
    seen = set()
    for halfway in (False, True):
        for dies_at in range(1, 100):
            shutil.rmtree(device.folder)
            shutil.copytree(tmp_path / "before", device.folder)
            try:
                device.install("demo@3", disk=DyingDisk(dies_at, halfway=halfway))
            except PowerCutError:
                seen.add(device.release())
                # And the next start goes on to the end.
                assert device.install("demo@3").state.release == "demo@3"
                assert device.release() == "demo@3"
                continue
            break
        assert dies_at > 8, "every durable step was cut"
    assert seen == {"demo@2", "demo@3"}


def test_a_power_cut_in_the_first_installation_leaves_nothing_or_the_new_release(device, repository, release):
    repository.add(release(1))
    for dies_at in range(1, 100):
        shutil.rmtree(device.folder, ignore_errors=True)
        try:
            device.install("demo@1", disk=DyingDisk(dies_at, halfway=True))
        except PowerCutError:
            assert device.release() in {None, "demo@1"}
            continue
        break
    assert device.release() == "demo@1"


def test_a_release_in_the_other_slot_needs_no_server(device, repository, fleet, release):
    repository.add(release(1))
    repository.add(release(2))
    device.install("demo@1")
    device.install("demo@2")
    fleet.requests.clear()
    slots = device.install("demo@1")
    assert (slots.state.release, slots.state.previous) == ("demo@1", "demo@2")
    assert fleet.requests == []
    assert Step.REPLAY in device.entered


def test_a_damaged_other_slot_is_fetched_again(device, repository, release):
    repository.add(release(1))
    repository.add(release(2))
    device.install("demo@1")
    device.install("demo@2")
    for path in (device.folder / "slots" / "A" / "blobs").iterdir():
        path.write_bytes(b"rust")
    assert device.install("demo@1").state.release == "demo@1"
    assert device.release() == "demo@1"


def test_a_changed_blob_or_manifest_is_not_loaded(device, repository, release):
    repository.add(release(1))
    slots = device.install("demo@1")
    manifest = slots.slot_folder(Slot.A) / "manifest.json"
    manifest.write_bytes(manifest.read_bytes().replace(b'"number":1', b'"number":7'))
    with pytest.raises(SlotDamagedError, match="manifest"):
        device.release()
    manifest.unlink()
    with pytest.raises(SlotDamagedError):
        device.release()


def test_a_corrupted_artifact_never_reaches_the_slot(device, repository, release, corrupt):
    repository.add(release(1))
    made = release(2)
    repository.add(made)
    corrupt(repository, made)
    device.install("demo@1")
    with pytest.raises(InstallError, match="SHA-256"):
        device.install("demo@2")
    assert device.release() == "demo@1"
    assert Step.UNPACK not in device.entered
    assert list((device.folder / "downloads").glob("*.part")) == []


def test_golden_samples_that_come_out_otherwise_fail_the_installation(device, repository, release):
    repository.add(release(1))
    repository.add(release(2, golden_error=0.01))
    device.install("demo@1")
    with pytest.raises(InstallError, match="golden samples"):
        device.install("demo@2")
    assert device.release() == "demo@1"


def test_a_model_that_leaves_outputs_out_has_not_replayed_its_golden_samples(device, repository, release):
    repository.add(release(1))
    device.install("demo@1")

    class Mute:
        def predict(self, _inputs):
            return {}

    slot = SlotFolders(device.folder, "bench").open(Slot.A)
    assert replay_golden(load_model(slot, load_linear)) < 1e-4
    with pytest.raises(InstallError, match="the outputs probabilities, found a model without them"):
        replay_golden(ReadyModel(slot, Mute()))


class SmallDisk(RealDisk):
    """Has no room for the blobs of another release."""

    def move(self, source: Path, destination: Path) -> None:
        if any(destination.parent.glob("*")):
            raise OSError(28, "No space left on device")
        super().move(source, destination)


def test_an_installation_without_room_gives_back_what_it_took(device, repository, release):
    repository.add(release(1))
    repository.add(release(2))
    device.install("demo@1")
    with pytest.raises(InstallError, match="expected room on the disk"):
        device.install("demo@2", disk=SmallDisk())
    assert list((device.folder / "downloads").iterdir()) == []
    assert list((device.folder / "slots" / "B").iterdir()) == []
    assert device.release() == "demo@1"
    assert device.install("demo@2").state.previous == "demo@1"


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file below *folder*, but for the signed metadata, which rise by themselves."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.relative_to(folder).parts[0] != "tuf"
    }


class Refused:
    """How an installation was refused and what it left behind."""

    def __init__(self, device: Device, release: str, **options) -> None:
        self.folder, before = device.folder, files_of(device.folder)
        with pytest.raises(HedgerowError) as caught:
            device.install(release, **options)
        after = files_of(device.folder)
        self.error, self.steps = caught.value, [str(step) for step in device.entered]
        self.changed = {name for name in before | after if before.get(name) != after.get(name)}
        self.running = device.release()


POINTERS = {"pointer.json", "pointer.spare.json"}


@pytest.fixture
def running(device, repository, release) -> Device:
    """demo@1 runs, proved; the disk writes the pointer when it is asked whether it takes writes at all."""
    repository.add(release(1))
    device.install("demo@1")
    return device


def test_files_signed_for_another_release_are_rejected(running, repository, release):
    repository.add(release(2), signed_as="demo@9")
    refused = Refused(running, "demo@2")
    assert type(refused.error) is RejectedError
    assert str(refused.error) == (
        "demo@2 is refused: expected demo/2/manifest.json signed for demo@2, found it signed for demo@9; sign it again"
    )
    assert (refused.error.release, refused.error.expected, refused.error.found) == (
        "demo@2",
        "demo/2/manifest.json signed for demo@2",
        "it signed for demo@9",
    )
    assert (refused.steps, refused.running) == (["verify"], "demo@1")
    assert refused.changed <= POINTERS


def test_a_file_that_was_signed_for_nothing_says_so():
    unnamed = SignedFile(path="a", url_path="/a", sha256="0" * 64, length_bytes=1, release="", hardware="any")
    with pytest.raises(RejectedError) as caught:
        check_signed(unnamed, "demo@1", "bench")
    assert caught.value.found == "it signed for no release"
    with pytest.raises(RejectedError) as caught:
        check_signed(replace(unnamed, release="demo@1", hardware=""), "demo@1", "bench")
    assert (caught.value.expected, caught.value.found) == ("files for bench", "a for no hardware")
    for hardware in ("any", "bench"):
        taken = replace(unnamed, release="demo@1", hardware=hardware)
        assert check_signed(taken, "demo@1", "bench") is taken


def test_a_blob_that_was_signed_for_other_hardware_is_rejected(running, repository, release):
    made = release(2)
    sha256 = made.manifest.artifacts[0].blob.sha256
    repository.add(made, hardware={sha256: "other"})
    refused = Refused(running, "demo@2")
    assert type(refused.error) is RejectedError
    assert str(refused.error) == (
        f"demo@2 is refused: expected files for bench, found demo/2/{sha256} for other; compile for this target"
    )
    assert (refused.steps, refused.running) == (["verify"], "demo@1")
    assert refused.changed <= POINTERS


def test_a_release_for_other_targets_is_rejected_and_names_them(running, repository, release):
    repository.add(release(2, target="other"))
    refused = Refused(running, "demo@2")
    assert type(refused.error) is RejectedError
    assert str(refused.error) == (
        "demo@2 is refused: expected an artifact for bench, found artifacts for other; compile for this target"
    )
    assert (refused.steps, refused.running) == (["verify"], "demo@1")
    assert refused.changed <= POINTERS


def test_a_release_without_artifacts_is_rejected(running, repository, release):
    made = release(2)
    repository.add(type(made)(replace(made.manifest, artifacts=()), made.blobs))
    assert Refused(running, "demo@2").error.found == "artifacts for none"


def test_the_manifest_of_another_release_is_rejected_though_it_was_signed_for_this_one(running, repository, release):
    made = release(3)

    class Renamed(type(made)):
        name = "demo@2"

    repository.add(Renamed(made.manifest, made.blobs))
    refused = Refused(running, "demo@2")
    assert type(refused.error) is RejectedError
    assert str(refused.error) == (
        "demo@2 is refused: expected the manifest of demo@2, found that of demo@3; sign it again"
    )
    assert (refused.steps, refused.running) == (["verify"], "demo@1")
    assert refused.changed <= POINTERS


def test_a_blob_that_was_signed_with_another_hash_than_the_manifest_says_is_rejected(running, repository, release):
    made = release(2)
    sha256 = made.manifest.artifacts[0].blob.sha256
    made.blobs[sha256] = b"other"
    repository.add(made)
    refused = Refused(running, "demo@2")
    signed = hashlib.sha256(b"other").hexdigest()
    assert type(refused.error) is RejectedError
    assert str(refused.error) == (
        f"demo@2 is refused: expected {sha256[:12]}... as the manifest says, found {signed[:12]}... signed; "
        "sign it again"
    )
    assert (refused.steps, refused.running) == (["verify"], "demo@1")
    assert refused.changed <= POINTERS


def test_a_missing_runtime_is_rejected_before_the_download(running, repository, release):
    repository.add(release(2, runtime="coreml"))
    refused = Refused(running, "demo@2")
    assert type(refused.error) is RejectedError
    assert refused.error.expected == "the runtime coreml"
    assert (refused.steps, refused.running) == (["verify"], "demo@1")
    assert refused.changed <= POINTERS


def test_a_manifest_that_is_none_may_be_tried_again_and_its_download_is_gone(running, repository, release):
    made = release(2)

    class Garbage(type(made)):
        manifest = SimpleNamespace(encode=lambda: b"{}", release="demo@2")
        name = "demo@2"

        def __init__(self) -> None:
            self.blobs = {}

    repository.add(Garbage())
    refused = Refused(running, "demo@2")
    assert type(refused.error) is InstallError
    assert str(refused.error) == (
        "installing demo@2: expected a whole release, found manifest.schema_version: expected a value, found nothing; "
        "it may be tried again"
    )
    assert (refused.steps, refused.running) == (["verify"], "demo@1")
    assert refused.changed <= POINTERS


class BrokenDisk(RealDisk):
    """A disk that fails with one error at the first durable step of a kind."""

    def __init__(self, number: int, step: str) -> None:
        self.number, self.step = number, step

    def _fail(self, step: str) -> None:
        if step == self.step:
            raise OSError(self.number, os.strerror(self.number), "the disk")

    def write(self, path: Path, content: bytes) -> None:
        self._fail("write")
        super().write(path, content)

    def move(self, source: Path, destination: Path) -> None:
        self._fail("move")
        super().move(source, destination)

    def copy(self, source: Path, destination: Path) -> None:
        self._fail("copy")
        super().copy(source, destination)

    def clear(self, folder: Path) -> None:
        self._fail("clear")
        super().clear(folder)


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.EPERM])
def test_a_disk_that_cannot_be_written_is_told_before_the_network_is_asked(running, repository, fleet, release, number):
    repository.add(release(2))
    fleet.requests.clear()
    refused = Refused(running, "demo@2", disk=BrokenDisk(number, "write"))
    assert type(refused.error) is InstallError
    assert str(refused.error) == (
        "installing demo@2: expected a state folder that can be written, found "
        f"[Errno {number}] {os.strerror(number)}: 'the disk'; make it writable, or change the disk"
    )
    assert (refused.steps, refused.running, refused.changed, fleet.requests) == ([], "demo@1", set(), [])


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
@pytest.mark.parametrize("step", ["move", "copy"])
def test_a_disk_without_room_gives_back_what_was_taken(running, repository, release, number, step):
    repository.add(release(2))
    refused = Refused(running, "demo@2", disk=BrokenDisk(number, step))
    assert type(refused.error) is InstallError
    assert str(refused.error) == (
        f"installing demo@2: expected room on the disk, found [Errno {number}] {os.strerror(number)}: 'the disk'; "
        "make room"
    )
    assert (refused.steps, refused.running) == (["verify", "download", "unpack"], "demo@1")
    assert refused.changed <= POINTERS


def test_another_fault_of_the_disk_keeps_what_was_fetched_for_the_next_attempt(running, repository, fleet, release):
    repository.add(release(2))
    refused = Refused(running, "demo@2", disk=BrokenDisk(errno.EIO, "move"))
    assert type(refused.error) is InstallError
    assert str(refused.error) == (
        f"installing demo@2: expected a disk that works, found [Errno {errno.EIO}] {os.strerror(errno.EIO)}: "
        "'the disk'; check the disk"
    )
    assert len([name for name in refused.changed if name.startswith("downloads/")]) == 2
    fleet.requests.clear()
    running.install("demo@2")
    assert sum("/targets/" in path for path in fleet.paths()) == 1, "the manifest alone is fetched again"


def test_a_slot_that_rots_between_unpacking_and_loading_may_be_tried_again(running, repository, release):
    class RottingDisk(RealDisk):
        def write(self, path: Path, content: bytes) -> None:
            super().write(path, b"rust" if path.name == "manifest.json" else content)

    repository.add(release(2))
    refused = Refused(running, "demo@2", disk=RottingDisk())
    assert type(refused.error) is InstallError
    assert str(refused.error) == (
        "installing demo@2: expected a whole release, found slot B is damaged: expected the manifest of demo@2, found "
        "another manifest; it will be installed again; it may be tried again"
    )
    assert refused.running == "demo@1"
    assert running.install("demo@2").state.release == "demo@2"


def test_golden_samples_of_other_inputs_may_be_tried_again_with_another_release(running, repository, release):
    repository.add(with_golden(release(2), {"input.y": np.zeros((1, 4), np.float32)}))
    refused = Refused(running, "demo@2")
    assert type(refused.error) is InstallError
    assert str(refused.error) == (
        "the golden samples: expected inputs of the schema, found expected the inputs x, found y; "
        "compile the release again"
    )
    assert (refused.steps[-2:], refused.running) == (["load", "replay"], "demo@1")


def test_five_installations_leave_exactly_the_files_of_the_last_two(device, repository, release):
    made = {number: release(number) for number in range(1, 6)}

    def own_threads() -> set[threading.Thread]:
        return {thread for thread in threading.enumerate() if "process_request" not in thread.name}

    threads, kept_bytes = own_threads(), []
    for number, what in made.items():
        repository.add(what)
        slots = device.install(f"demo@{number}")
        kept_bytes.append(sum(map(len, files_of(device.folder).values())))
        assert own_threads() == threads, "but for the server's"
        held = {slot: content.release for slot, content in slots.state.contents.items()}
        assert sorted(held.values()) == [f"demo@{n}" for n in (number - 1, number) if n]
        expected = set(POINTERS)
        for slot, name in held.items():
            manifest = made[int(name.partition("@")[2])].manifest
            needed = {blob.sha256 for blob in needed_blobs(manifest, manifest.artifacts[0])}
            expected |= {f"slots/{slot}/manifest.json", *(f"slots/{slot}/blobs/{sha256}" for sha256 in needed)}
        assert set(files_of(device.folder)) == expected
    # The pointer's sequence number grows by a digit.
    assert max(kept_bytes[1:]) - min(kept_bytes[1:]) < 10
    metadata = [path.name for path in (device.folder / "tuf").rglob("*") if path.is_file()]
    assert len(metadata) == len(set(metadata)) <= 6


def test_a_release_that_nobody_signed_or_that_was_revoked_is_rejected(device, repository, release):
    with pytest.raises(RejectedError, match="never signed, or revoked"):
        device.install("demo@1")
    made = release(1)
    repository.add(made)
    repository.revoke(made)
    with pytest.raises(RejectedError, match="never signed, or revoked"):
        device.install("demo@1")


def test_a_stolen_server_cannot_sign(device, repository, release):
    """Arbitrary installation: metadata signed by a key that the root does not name."""
    repository.add(release(1))
    device.install("demo@1")
    repository.signers["targets"] = CryptoSigner.generate_ed25519()
    repository.add(release(2))
    with pytest.raises(RejectedError, match="signed by the keys"):
        device.install("demo@2")


def test_a_changed_target_in_signed_metadata_is_rejected(device, repository, release):
    repository.add(release(1))
    path = max((repository.folder / "tuf" / "metadata").glob("*.targets.json"))
    document = json.loads(path.read_bytes())
    next(iter(document["signed"]["targets"].values()))["custom"]["hardware"] = "bench"
    path.write_bytes(json.dumps(document).encode())
    with pytest.raises(RejectedError):
        device.install("demo@1")


def test_expired_metadata_is_a_failure_that_may_pass(device, repository, release):
    """Indefinite freeze: old metadata is not served for ever."""
    repository.timestamp.signed.expires = datetime(2020, 1, 1, tzinfo=UTC)
    repository.add(release(1))
    with pytest.raises(InstallError, match="expired") as caught:
        device.install("demo@1")
    assert not isinstance(caught.value, RejectedError)


def test_a_clock_far_ahead_stops_no_verified_release(device, repository, release, monkeypatch):
    repository.add(release(1))
    repository.add(release(2))
    device.install("demo@1")
    device.install("demo@2")
    repository.add(release(3))

    class Clock(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime(2090, 1, 1, tzinfo=tz)

    monkeypatch.setattr(trusted_metadata_set, "datetime", SimpleNamespace(datetime=Clock, timezone=timezone))
    with pytest.raises(InstallError, match="set the clock"):
        device.install("demo@3")
    assert device.release() == "demo@2"
    assert device.install("demo@1").state.release == "demo@1", "nor the way back"


def test_metadata_never_goes_back(device, repository, release):
    """Rollback: metadata that was valid once, served again after newer was seen."""
    repository.add(release(1))
    shutil.copytree(repository.folder / "tuf", repository.folder / "old")
    repository.add(release(2))
    device.install("demo@2")
    shutil.rmtree(repository.folder / "tuf")
    (repository.folder / "old").rename(repository.folder / "tuf")
    with pytest.raises(InstallError, match="only rise"):
        device.install("demo@1")
    assert device.release() == "demo@2"


def test_a_flipped_bit_in_the_metadata_of_the_device_does_not_refuse_a_release(device, repository, release, tmp_path):
    repository.add(release(1))
    device.install("demo@1")
    shutil.copytree(device.folder, tmp_path / "before")
    repository.add(release(2))
    rng = random.Random(0)
    names = [path.relative_to(device.folder) for path in (device.folder / "tuf").rglob("*.json")]
    assert {name.name for name in names} >= {"root.json", "timestamp.json", "snapshot.json", "targets.json"}
    for name in names:
        shutil.rmtree(device.folder)
        shutil.copytree(tmp_path / "before", device.folder)
        content = bytearray((device.folder / name).read_bytes())
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        (device.folder / name).write_bytes(bytes(content))
        assert device.install("demo@2").state.release == "demo@2"


def test_what_fails_its_trial_is_no_place_to_fall_back_to(device, repository, release):
    class Deadly(DirectTrials):
        def model(self, slot, enter=lambda _step: None) -> None:
            enter("load")
            raise TrialRejectedError(slot.manifest.release, "SIGABRT")

    repository.add(release(1))
    repository.add(release(2))
    device.install("demo@1")
    with pytest.raises(RejectedError, match="SIGABRT"):
        device.install("demo@2", trials=Deadly(load_linear))
    state = SlotFolders(device.folder, "bench").state
    assert (state.release, state.previous, state.trial, state.holds("demo@2")) == ("demo@1", None, None, None)


def test_a_trial_that_may_pass_leaves_the_files_for_another_one(device, repository, fleet, release):
    class Slow(DirectTrials):
        def model(self, _slot, enter=lambda _step: None) -> None:
            enter("replay")
            raise TrialFailedError("too slow")

    repository.add(release(1))
    repository.add(release(2))
    device.install("demo@1")
    with pytest.raises(InstallError, match="too slow"):
        device.install("demo@2", trials=Slow(load_linear))
    state = SlotFolders(device.folder, "bench").state
    assert (state.release, state.previous, state.trial) == ("demo@1", None, None)
    fleet.requests.clear()
    assert device.install("demo@2").state.release == "demo@2"
    assert fleet.requests == []


def test_what_is_tried_is_on_disk_before_it_is_tried(device, repository, release):
    class PowerCut(DirectTrials):
        def model(self, _slot, enter=lambda _step: None) -> None:
            enter("load")
            enter("replay")
            raise PowerCutError

    repository.add(release(1))
    repository.add(release(2))
    device.install("demo@1")
    with pytest.raises(PowerCutError):
        device.install("demo@2", trials=PowerCut(load_linear))
    assert SlotFolders(device.folder, "bench").state.trial == Trial(Slot.B, "demo@2", "replay", 0)


def test_a_third_release_is_not_installed_over_the_only_proved_one(device, repository, release):
    for number in (1, 2, 3):
        repository.add(release(number))
    device.install("demo@1")
    device.install("demo@2", is_healthy=False)
    with pytest.raises(InstallError, match="demo@2 is healthy, since only demo@1 is so far"):
        device.install("demo@3")
    state = SlotFolders(device.folder, "bench").state
    assert (state.release, state.previous) == ("demo@2", "demo@1")


def test_another_root_than_the_provisioned_one_is_no_authority(tmp_path, repository, fleet, release):
    repository.add(release(1))
    stranger = type(repository)(tmp_path)
    device = Device(tmp_path / "device", fleet.url, stranger.trusted_root.read_bytes())
    with pytest.raises(RejectedError):
        device.install("demo@1")


def test_an_endless_answer_is_cut(device, repository, release):
    """Endless data: the server sends more than a metadata file may have."""
    repository.add(release(1))
    (repository.folder / "tuf" / "metadata" / "timestamp.json").write_bytes(b"{" + b" " * 20_000_000)
    with pytest.raises(TransferError):
        device.install("demo@1")


def test_no_server_is_a_failure_that_may_pass(tmp_path, repository):
    device = Device(tmp_path / "device", "http://127.0.0.1:9", repository.trusted_root.read_bytes())
    with pytest.raises(TransferError, match="signed metadata"):
        device.install("demo@1")


def test_stopping_ends_an_installation(device, repository, release):
    repository.add(release(1))
    with pytest.raises(StoppedError):
        device.install("demo@1", pause=lambda _seconds: True)
    assert device.release() is None


def test_a_full_disk_leaves_the_old_release(device, repository, release):
    class FullDisk(RealDisk):
        def move(self, _source: Path, _destination: Path) -> None:
            raise OSError(28, "No space left on device")

    repository.add(release(1))
    repository.add(release(2))
    device.install("demo@1")
    with pytest.raises(InstallError, match="No space left"):
        device.install("demo@2", disk=FullDisk())
    assert device.release() == "demo@1"
