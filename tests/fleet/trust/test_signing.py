import json
import os
import shutil
import time
from pathlib import Path
from urllib.parse import unquote, urlparse

import pytest
from tuf.api.exceptions import (
    BadVersionNumberError,
    DownloadError,
    DownloadHTTPError,
    DownloadLengthMismatchError,
    ExpiredMetadataError,
    LengthOrHashMismatchError,
    RepositoryError,
    UnsignedMetadataError,
)
from tuf.api.metadata import Metadata
from tuf.ngclient import FetcherInterface, Updater

from hedgerow.fleet.errors import ReleaseError, SigningError, UnknownReleaseError
from hedgerow.fleet.folder import FleetFolder
from hedgerow.fleet.trust.keys import ONLINE_ROLES, create_keys, load_signers
from hedgerow.fleet.trust.signing import (
    expiries,
    init_repository,
    publish,
    refresh_online,
    renew_offline,
    revoke,
    signed_releases,
    trusted_root,
)
from hedgerow.fleet.trust.tuf_metadata import Lifetimes
from tests.fleet.sample_release import write_release

DAY_S = 86400.0


class FolderFetcher(FetcherInterface):
    """Serves a TUF repository from a folder, as the fleet service does over HTTP."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.asked = folder, []

    def _fetch(self, url):
        path = unquote(urlparse(url).path).lstrip("/")
        self.asked.append(path)
        try:
            return iter([(self.folder / path).read_bytes()])
        except FileNotFoundError:
            raise DownloadHTTPError(f"no {path}", 404) from None


class Device:
    """A device's trust: its metadata folder outlives its updaters."""

    def __init__(self, folder: Path, root: bytes) -> None:
        self.folder, self.root = folder, root
        (folder / "metadata").mkdir(parents=True)
        (folder / "targets").mkdir()

    def updater(self, tuf: Path) -> Updater:
        self.fetcher = FolderFetcher(tuf)
        return Updater(
            str(self.folder / "metadata"),
            "http://fleet/metadata/",
            str(self.folder / "targets"),
            "http://fleet/targets/",
            self.fetcher,
            bootstrap=self.root,
        )

    def refresh(self, tuf: Path) -> Updater:
        updater = self.updater(tuf)
        updater.refresh()
        return updater


@pytest.fixture
def now():
    # The client's clock is the real one.
    return time.time()


@pytest.fixture
def folder(tmp_path, now):
    folder = FleetFolder(tmp_path / "fleet")
    create_keys(folder)
    init_repository(folder, load_signers(folder), now)
    return folder


@pytest.fixture
def signers(folder):
    return load_signers(folder)


@pytest.fixture
def device(tmp_path, folder):
    return Device(tmp_path / "device", trusted_root(folder))


@pytest.fixture
def release(tmp_path):
    """Make the release ``digits@<number>`` in a folder and return (manifest, folder)."""

    def make(number, salt=b""):
        path = tmp_path / f"release-{number}"
        return write_release(path, number, salt=salt), path

    return make


def copy_of(folder, tmp_path, name):
    return Path(shutil.copytree(folder.tuf, tmp_path / name))


def names(folder):
    return sorted(path.name for path in folder.tuf_metadata.iterdir())


# What a client sees


def test_a_client_refreshes_verifies_and_downloads_every_file(folder, signers, release, device, now):
    manifest, path = release(1)
    publish(folder, manifest, path, signers, now)

    updater = device.refresh(folder.tuf)
    got = Path(updater.download_target(updater.get_targetinfo("digits/1/manifest.json")))

    assert got.read_bytes() == manifest.encode()
    for blob in manifest.blobs():
        got = Path(updater.download_target(updater.get_targetinfo(f"digits/1/{blob.sha256}")))
        assert got.read_bytes() == (path / "blobs" / blob.sha256).read_bytes()


def test_files_lie_where_consistent_snapshot_clients_ask(folder, signers, release, now):
    manifest, path = release(1)
    publish(folder, manifest, path, signers, now)

    digest = manifest.reference.sha256
    assert (folder.tuf_targets / "digits" / "1" / f"{digest}.{digest}").is_file()
    assert names(folder) == sorted(
        ["1.root.json", "1.snapshot.json", "1.targets.json", "2.snapshot.json", "2.targets.json", "timestamp.json"]
    )


def test_custom_metadata_names_release_and_hardware_and_any_where_shared(folder, signers, release, device, now):
    manifest, path = release(1)
    publish(folder, manifest, path, signers, now)
    updater = device.refresh(folder.tuf)

    def custom(name):
        return updater.get_targetinfo(f"digits/1/{name}").custom

    assert custom("manifest.json") == {"release": "digits@1", "hardware": "any"}
    assert custom(manifest.artifact("android-arm64").blob.sha256)["hardware"] == "android-arm64"
    assert custom(manifest.artifact("raspberry-pi-4").blob.sha256)["hardware"] == "any"
    assert custom(manifest.artifact("raspberry-pi-4").golden.sha256)["hardware"] == "raspberry-pi-4"
    assert custom(manifest.reference.sha256)["hardware"] == "any"


def test_a_revoked_release_can_neither_be_verified_nor_fetched(folder, signers, release, device, now):
    for number in (1, 2):
        publish(folder, *release(number), signers, now)
    old = device.refresh(folder.tuf)
    target = old.get_targetinfo("digits/1/manifest.json")

    revoke(folder, "digits@1", signers, now)

    assert device.refresh(folder.tuf).get_targetinfo("digits/1/manifest.json") is None
    with pytest.raises(DownloadHTTPError):
        old.download_target(target)
    assert device.refresh(folder.tuf).get_targetinfo("digits/2/manifest.json") is not None
    assert signed_releases(folder) == ("digits@2",)
    with pytest.raises(UnknownReleaseError):
        revoke(folder, "digits@1", signers, now)


def test_releases_are_listed_by_number_not_by_text(folder, signers, release, now):
    for number in (10, 9, 2):
        publish(folder, *release(number), signers, now)

    assert signed_releases(folder) == ("digits@2", "digits@9", "digits@10")


# Attacks (TUF specification 1.0.34, section 1.5.2)


def test_a_rollback_of_the_timestamp_is_refused(tmp_path, folder, signers, release, device, now):
    old = copy_of(folder, tmp_path, "old")
    publish(folder, *release(1), signers, now)
    device.refresh(folder.tuf)

    with pytest.raises(BadVersionNumberError):
        device.refresh(old)


def test_a_frozen_repository_is_noticed_when_its_timestamp_ends(tmp_path, release, now):
    frozen = FleetFolder(tmp_path / "frozen")
    create_keys(frozen)
    init_repository(frozen, load_signers(frozen), now - DAY_S + 3)
    time.sleep(max(0.0, expiries(frozen)["timestamp"] - time.time() + 0.1))

    with pytest.raises(ExpiredMetadataError):
        Device(tmp_path / "d", trusted_root(frozen)).refresh(frozen.tuf)


def test_a_mix_of_old_and_new_documents_is_refused(tmp_path, folder, signers, release, device, now):
    publish(folder, *release(1), signers, now)
    mixed = copy_of(folder, tmp_path, "mixed")
    publish(folder, *release(2), signers, now)
    # The new timestamp and snapshot, with the targets of before under the new name.
    for name in ("timestamp.json", "3.snapshot.json"):
        shutil.copy(folder.tuf_metadata / name, mixed / "metadata" / name)
    shutil.copy(mixed / "metadata" / "2.targets.json", mixed / "metadata" / "3.targets.json")

    with pytest.raises((LengthOrHashMismatchError, BadVersionNumberError, DownloadLengthMismatchError)):
        device.refresh(mixed)


@pytest.mark.parametrize("role", ["targets", "snapshot", "timestamp"])
def test_documents_signed_with_another_key_are_refused(tmp_path, folder, release, device, now, role):
    thief = FleetFolder(tmp_path / "thief")
    create_keys(thief)
    stolen = load_signers(folder) | {role: load_signers(thief)[role]}
    forged = FleetFolder(tmp_path / "forged")
    init_repository(forged, stolen, now)
    publish(forged, *release(1), stolen, now)

    with pytest.raises(UnsignedMetadataError):
        device.refresh(forged.tuf)


def test_stolen_online_keys_cannot_list_a_release(tmp_path, folder, signers, release, device, now):
    """Snapshot and timestamp keys alone cannot make a device accept a new target."""
    thief = FleetFolder(tmp_path / "thief")
    create_keys(thief)
    shutil.copytree(folder.tuf, thief.tuf)
    online = {role: signers[role] for role in ONLINE_ROLES}

    with pytest.raises(SigningError, match="other keys of root, targets"):
        publish(thief, *release(1), load_signers(thief) | online, now)


def test_a_changed_target_file_is_refused(folder, signers, release, device, now):
    manifest, path = release(1)
    publish(folder, manifest, path, signers, now)
    digest = manifest.artifact("android-arm64").blob.sha256
    served = folder.tuf_targets / "digits" / "1" / f"{digest}.{digest}"
    served.unlink()
    served.write_bytes(b"evil"[: manifest.artifact("android-arm64").blob.length_bytes])
    updater = device.refresh(folder.tuf)

    with pytest.raises(RepositoryError):
        updater.download_target(updater.get_targetinfo(f"digits/1/{digest}"))


def test_endless_data_is_cut_off(folder, signers, release, device, now):
    manifest, path = release(1)
    publish(folder, manifest, path, signers, now)
    digest = manifest.reference.sha256
    served = folder.tuf_targets / "digits" / "1" / f"{digest}.{digest}"
    served.unlink()
    served.write_bytes(bytes(10**6))
    updater = device.refresh(folder.tuf)

    with pytest.raises(DownloadLengthMismatchError):
        updater.download_target(updater.get_targetinfo(f"digits/1/{digest}"))


def test_targets_changed_on_the_online_machine_are_not_blessed_by_the_offline_key(folder, signers, release, now):
    publish(folder, *release(1), signers, now)
    path = folder.tuf_metadata / "2.targets.json"
    document = json.loads(path.read_bytes())
    document["signed"]["targets"]["digits/9/manifest.json"] = document["signed"]["targets"]["digits/1/manifest.json"]
    path.write_text(json.dumps(document))

    with pytest.raises(SigningError, match="that its root vouches for"):
        publish(folder, *release(2), signers, now)


def test_a_list_of_targets_made_with_online_keys_is_not_built_upon(tmp_path, folder, signers, release, now):
    """Even if snapshot and timestamp fit it, the targets' own signature is checked before signing on top."""
    thief = FleetFolder(tmp_path / "thief")
    create_keys(thief)
    forger = load_signers(thief) | {role: signers[role] for role in ONLINE_ROLES}
    init_repository(thief, forger, now)
    publish(thief, *release(7), forger, now)
    for name in ("2.targets.json", "2.snapshot.json", "timestamp.json"):
        shutil.copy(thief.tuf_metadata / name, folder.tuf_metadata / name)

    with pytest.raises(SigningError, match="UnsignedMetadataError"):
        publish(folder, *release(1), signers, now)


# Order and crashes


class Crash(BaseException):
    """A power cut between two steps."""


def crash_at(step, action):
    """Run *action* with a power cut at the *step*-th rename or link, and return whether it came so far."""
    count = 0
    real_replace, real_link, real_rmtree = Path.replace, os.link, shutil.rmtree

    def counted(real):
        def call(*args, **kwargs):
            nonlocal count
            count += 1
            if count == step:
                raise Crash
            return real(*args, **kwargs)

        return call

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "replace", counted(real_replace))
        patch.setattr(os, "link", counted(real_link))
        patch.setattr(shutil, "rmtree", counted(real_rmtree))
        try:
            action()
        except Crash:
            return True
    return False


def test_a_crash_between_any_two_steps_leaves_the_old_state_and_a_second_run_finishes(
    tmp_path, folder, signers, release, now
):
    publish(folder, *release(1), signers, now)
    manifest, path = release(2)
    before = copy_of(folder, tmp_path, "before")
    steps = 0
    while True:
        steps += 1
        shutil.rmtree(folder.tuf)
        shutil.copytree(before, folder.tuf)
        if not crash_at(steps, lambda: publish(folder, manifest, path, signers, now)):
            break
        device = Device(tmp_path / f"device-{steps}", trusted_root(folder))
        updater = device.refresh(folder.tuf)
        assert updater.get_targetinfo("digits/2/manifest.json") is None
        assert signed_releases(folder) == ("digits@1",)

        publish(folder, manifest, path, signers, now)

        updater = device.refresh(folder.tuf)
        assert updater.download_target(updater.get_targetinfo("digits/2/manifest.json"))
    # Each target file, the end of the look that a device would take, targets, snapshot and timestamp.
    assert steps - 1 == len(manifest.blobs()) + 1 + 1 + 3


def test_a_crash_while_revoking_leaves_a_whole_state_and_a_second_run_finishes(tmp_path, folder, signers, release, now):
    publish(folder, *release(1), signers, now)
    before = copy_of(folder, tmp_path, "before")
    steps = 0
    while True:
        steps += 1
        shutil.rmtree(folder.tuf)
        shutil.copytree(before, folder.tuf)
        if not crash_at(steps, lambda: revoke(folder, "digits@1", signers, now)):
            break
        device = Device(tmp_path / f"device-{steps}", trusted_root(folder))
        updater = device.refresh(folder.tuf)
        target = updater.get_targetinfo("digits/1/manifest.json")
        assert target is None or updater.download_target(target)

        revoke(folder, "digits@1", signers, now)

        assert device.refresh(folder.tuf).get_targetinfo("digits/1/manifest.json") is None
        assert not (folder.tuf_targets / "digits" / "1").exists()
    assert steps > 3


def test_the_timestamp_is_written_after_all_that_it_leads_to(folder, signers, release, now):
    publish(folder, *release(1), signers, now)

    timestamp = (folder.tuf_metadata / "timestamp.json").stat().st_mtime_ns
    others = [path for path in folder.tuf.rglob("*") if path.is_file() and path.name not in {"timestamp.json", ".lock"}]
    assert max(path.stat().st_mtime_ns for path in others) <= timestamp


def test_nothing_half_written_is_served(folder, signers, release, now):
    publish(folder, *release(1), signers, now)

    served = [*folder.tuf_metadata.rglob("*"), *folder.tuf_targets.rglob("*")]
    assert not [path for path in served if path.name.startswith(".")]


# The rest


def test_the_online_keys_alone_keep_the_repository_fresh(tmp_path, folder, signers, release, device, now):
    publish(folder, *release(1), signers, now - DAY_S * 0.9)
    folder.offline_keys.rename(tmp_path / "stick")
    online = load_signers(folder, ONLINE_ROLES)

    assert refresh_online(folder, online, now)

    assert expiries(folder)["timestamp"] == pytest.approx(now + DAY_S, abs=1)
    assert expiries(folder)["snapshot"] == pytest.approx(now + DAY_S, abs=1)
    assert device.refresh(folder.tuf).get_targetinfo("digits/1/manifest.json") is not None


def test_what_has_more_than_half_its_life_left_is_not_signed_again(folder, now):
    online = load_signers(folder, ONLINE_ROLES)
    before = names(folder), (folder.tuf_metadata / "timestamp.json").read_bytes()

    assert not refresh_online(folder, online, now + 0.4 * DAY_S)

    assert (names(folder), (folder.tuf_metadata / "timestamp.json").read_bytes()) == before


def test_a_snapshot_that_lives_longer_is_signed_less_often(folder, now):
    lifetimes = Lifetimes(snapshot_s=7 * DAY_S)
    signers = load_signers(folder)
    refresh_online(folder, signers, now + DAY_S, lifetimes=lifetimes)
    before = names(folder)

    assert refresh_online(folder, signers, now + 2 * DAY_S, lifetimes=lifetimes)

    assert names(folder) == before
    assert expiries(folder)["snapshot"] == pytest.approx(now + 8 * DAY_S, abs=1)


# What no device would accept is not published.


def published(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.tuf_metadata.iterdir())}


def at_the_end_of_root(folder, signers, now):
    """Make a repository whose root has just ended; everything else is fresh."""
    shutil.rmtree(folder.tuf)
    init_repository(folder, signers, now, lifetimes=Lifetimes(root_s=2))
    time.sleep(max(0.0, expiries(folder)["root"] - time.time() + 0.1))


def test_a_release_under_an_expired_root_is_not_called_signed_and_changes_nothing(folder, signers, release, now):
    at_the_end_of_root(folder, signers, now)
    before = published(folder)
    for action in (
        lambda: publish(folder, *release(1), signers, time.time()),
        lambda: refresh_online(folder, signers, time.time() + 0.6 * DAY_S),
    ):
        with pytest.raises(
            SigningError, match=r"from 1\.root\.json refuses.*root\.json is expired.*hedgerow fleet renew"
        ):
            action()
        assert published(folder) == before
    assert signed_releases(folder) == ()


def test_renewing_the_root_makes_everything_acceptable_from_the_first_root_on(folder, signers, release, now, tmp_path):
    at_the_end_of_root(folder, signers, now)
    first = (folder.tuf_metadata / "1.root.json").read_bytes()
    renew_offline(folder, signers, time.time())
    publish(folder, *release(1), signers, time.time())
    for number, root in enumerate((first, trusted_root(folder))):
        updater = Device(tmp_path / f"device-{number}", root).refresh(folder.tuf)
        assert updater.get_targetinfo("digits/1/manifest.json")
    assert sorted(path.name for path in folder.tuf_metadata.glob("*.root.json")) == ["1.root.json", "2.root.json"]
    assert expiries(folder)["root"] == pytest.approx(time.time() + 365 * DAY_S, abs=60)


def test_renewing_keeps_what_is_listed_and_needs_the_offline_keys(folder, signers, release, now, tmp_path):
    publish(folder, *release(1), signers, now)
    thief = FleetFolder(tmp_path / "thief")
    create_keys(thief)
    before = published(folder)
    with pytest.raises(SigningError, match="other keys of root"):
        renew_offline(folder, {**signers, "root": load_signers(thief)["root"]}, now)
    assert published(folder) == before
    renew_offline(folder, signers, now + 60)
    assert signed_releases(folder) == ("digits@1",)
    assert expiries(folder)["targets"] == pytest.approx(now + 60 + 365 * DAY_S, abs=1)


def test_a_clock_in_the_past_signs_nothing_that_devices_would_refuse(folder, signers, release, now):
    before = published(folder)
    for behind_days in (2, 400, 20_000):
        with pytest.raises(SigningError, match="expired"):
            publish(folder, *release(1), signers, now - behind_days * DAY_S)
        assert published(folder) == before
    publish(folder, *release(2), signers, now)
    assert signed_releases(folder) == ("digits@2",)


def test_an_empty_repository_that_no_device_would_accept_is_not_begun(tmp_path, now):
    folder = FleetFolder(tmp_path / "late")
    create_keys(folder)
    with pytest.raises(SigningError, match="a device accepts"):
        init_repository(folder, load_signers(folder), now - 400 * DAY_S)
    assert published(folder) == {}
    init_repository(folder, load_signers(folder), now)
    assert signed_releases(folder) == ()


def test_a_chain_of_roots_that_a_first_device_cannot_follow_is_noticed(folder, signers, release, now, tmp_path):
    """The newest root alone vouches for everything; who was provisioned with the first one cannot get there."""
    thief = FleetFolder(tmp_path / "thief")
    create_keys(thief)
    theirs = load_signers(thief)
    root = Metadata.from_file(str(folder.tuf_metadata / "1.root.json")).signed
    root.version = 2
    root.revoke_key(signers["root"].public_key.keyid, "root")
    root.add_key(theirs["root"].public_key, "root")
    second = Metadata(root)
    second.sign(theirs["root"])
    (folder.tuf_metadata / "2.root.json").write_bytes(second.to_bytes())
    before = published(folder)
    with pytest.raises(SigningError, match=r"which starts from 1\.root\.json refuses"):
        publish(folder, *release(1), {role: signers[role] for role in ("targets", *ONLINE_ROLES)}, now)
    assert published(folder) == before


def test_a_repository_is_made_once(folder, signers, now):
    before = {path.name: path.read_bytes() for path in folder.tuf_metadata.iterdir()}

    init_repository(folder, signers, now + DAY_S)

    assert {path.name: path.read_bytes() for path in folder.tuf_metadata.iterdir()} == before


def test_a_repository_that_was_begun_is_finished(folder, signers, now, device):
    (folder.tuf_metadata / "timestamp.json").unlink()

    init_repository(folder, signers, now)

    device.root = trusted_root(folder)
    device.refresh(folder.tuf)


def test_a_repository_that_lost_its_timestamp_is_not_begun_again(folder, signers, release, now):
    publish(folder, *release(1), signers, now)
    (folder.tuf_metadata / "timestamp.json").unlink()

    with pytest.raises(SigningError, match="restore the fleet folder from its copy"):
        init_repository(folder, signers, now)


def test_no_new_keys_are_made_for_a_fleet_whose_keys_are_away(tmp_path, folder):
    folder.offline_keys.rename(tmp_path / "stick")

    create_keys(folder)

    assert not folder.offline_keys.exists()


def test_keys_of_another_fleet_are_refused(tmp_path, folder, release, now):
    other = FleetFolder(tmp_path / "other")
    create_keys(other)

    with pytest.raises(SigningError, match=r"found other keys of root, targets, snapshot, timestamp; bring the keys"):
        publish(folder, *release(1), load_signers(other), now)


def test_the_same_release_is_not_signed_twice(folder, signers, release, now):
    publish(folder, *release(1), signers, now)

    with pytest.raises(SigningError, match="digits@1 signed already"):
        publish(folder, *release(1, salt=b"other"), signers, now)


def test_a_release_whose_files_are_not_its_own_is_refused_and_nothing_changes(folder, signers, release, now):
    manifest, path = release(1)
    blob = path / "blobs" / manifest.artifact("android-arm64").blob.sha256
    blob.write_bytes(b"xxx")
    before = names(folder)

    with pytest.raises(ReleaseError):
        publish(folder, manifest, path, signers, now)

    assert names(folder) == before
    assert signed_releases(folder) == ()


def test_no_repository_is_one_clear_sentence(tmp_path):
    with pytest.raises(SigningError, match=r"a TUF repository at .*, found none; make one with `hedgerow fleet init`"):
        signed_releases(FleetFolder(tmp_path))
    with pytest.raises(SigningError, match="found none"):
        refresh_online(FleetFolder(tmp_path), dict.fromkeys(ONLINE_ROLES), 0.0)


def test_a_lost_document_is_named(folder):
    (folder.tuf_metadata / "1.snapshot.json").unlink()

    with pytest.raises(SigningError, match=r"no 1\.snapshot\.json"):
        signed_releases(folder)


def test_documents_carry_the_expiries_of_their_role(folder, now):
    ends = expiries(folder)

    assert ends["root"] == pytest.approx(now + 365 * DAY_S, abs=1)
    assert ends["targets"] == pytest.approx(now + 365 * DAY_S, abs=1)
    assert ends["snapshot"] == pytest.approx(now + DAY_S, abs=1)
    assert Metadata.from_bytes(trusted_root(folder)).signed.consistent_snapshot


def test_a_second_refresh_downloads_the_timestamp_and_asks_for_the_next_root_only(
    folder, signers, release, device, now
):
    publish(folder, *release(1), signers, now)
    device.refresh(folder.tuf)

    device.refresh(folder.tuf)

    assert device.fetcher.asked == ["metadata/2.root.json", "metadata/timestamp.json"]


def test_errors_of_the_client_are_of_two_families():
    """What the agent catches is enough: everything above derives from one of these."""
    assert issubclass(DownloadHTTPError, DownloadError)
    assert issubclass(UnsignedMetadataError, RepositoryError)


def test_a_list_that_clients_would_not_read_to_its_end_is_not_signed(folder, signers, release, now, monkeypatch):
    monkeypatch.setattr("hedgerow.fleet.trust.signing._CLIENTS_LIMIT_BYTES", 1000)
    before = names(folder)
    with pytest.raises(SigningError, match=r"at most 1000 bytes of target list at .*, found more; revoke old releases"):
        publish(folder, *release(1), signers, now)
    assert names(folder) == before
    assert signed_releases(folder) == ()
