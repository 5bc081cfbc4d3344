"""Installing: power cuts at every durable step, and everything that signatures are for."""

import json
import random
import shutil
from datetime import UTC, datetime, timezone
from pathlib import Path
from types import SimpleNamespace

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
from hedgerow.client.install import Installer, Step
from hedgerow.client.loading import ReadyModel, load_model, replay_golden
from hedgerow.client.runtimes.linear import load_linear
from hedgerow.client.slot_folders import SlotFolders
from hedgerow.client.slots import Slot, Trial
from hedgerow.client.start_up import settle
from hedgerow.client.trial import DirectTrials
from hedgerow.client.trust import open_trust


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


def test_wrong_hardware_is_rejected_by_manifest_and_by_signature(device, repository, release):
    repository.add(release(1))
    with pytest.raises(RejectedError, match="artifact for other"):
        device.install("demo@1", target="other")
    made = release(2)
    repository.add(made, hardware={made.manifest.artifacts[0].blob.sha256: "other"})
    with pytest.raises(RejectedError, match="files for bench"):
        device.install("demo@2")


def test_files_signed_for_another_release_are_rejected(device, repository, release):
    repository.add(release(1), signed_as="demo@2")
    with pytest.raises(RejectedError, match="signed for demo@1"):
        device.install("demo@1")


def test_a_missing_runtime_is_rejected_before_the_download(device, repository, release):
    repository.add(release(1, runtime="coreml"))
    with pytest.raises(RejectedError, match="coreml"):
        device.install("demo@1")
    assert Step.DOWNLOAD not in device.entered


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
