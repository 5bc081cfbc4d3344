"""Trust with a clock that is wrong: a repository of the real signing code, over HTTP, at exact instants."""

import datetime as dt
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from tuf.api.metadata import Metadata
from tuf.ngclient._internal import trusted_metadata_set

from hedgerow.client.errors import InstallError, RejectedError
from hedgerow.client.fleet_http import FleetHttp
from hedgerow.client.signed_time import RELEASED_AT, SIGNED_AT
from hedgerow.client.trust import open_trust
from hedgerow.fleet.folder import FleetFolder
from hedgerow.fleet.trust import signing
from hedgerow.fleet.trust.keys import create_keys, load_signers
from hedgerow.fleet.trust.signing import init_repository, refresh_online, trusted_root
from hedgerow.fleet.trust.tuf_metadata import Lifetimes

T = datetime(2027, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)
SECOND = timedelta(seconds=1)
DEAD_BATTERY = datetime(1970, 1, 1, 0, 0, 20, tzinfo=UTC)


class Scene:
    """A fleet's repository, and one device that asks for it with a clock that a test sets."""

    def __init__(self, tmp_path, fleet, monkeypatch) -> None:
        self.folder = FleetFolder(tmp_path / "fleet")
        create_keys(self.folder)
        self.signers = load_signers(self.folder)
        self.device, self.http, self.monkeypatch = tmp_path / "device", FleetHttp(fleet.url), monkeypatch
        fleet.folder = self.folder.path
        # The service signs nothing that a device would refuse; what else holds its keys does.
        monkeypatch.setattr(signing, "_check", lambda *_: None)

    def sign(self, at: datetime, **lifetimes: float) -> None:
        made = Lifetimes(**lifetimes)
        if (self.folder.tuf_metadata / "timestamp.json").exists():
            refresh_online(self.folder, self.signers, at.timestamp(), lifetimes=made)
        else:
            init_repository(self.folder, self.signers, at.timestamp(), lifetimes=made)

    def open(self, clock: datetime):
        class Clock(datetime):
            @classmethod
            def now(cls, tz=None):
                return clock.astimezone(tz)

        frozen = SimpleNamespace(datetime=Clock, timezone=dt.timezone)
        self.monkeypatch.setattr(trusted_metadata_set, "datetime", frozen)
        return open_trust(self.device / "tuf", trusted_root(self.folder), self.http, "demo@1", clock=lambda: clock)

    def timestamp(self) -> Metadata:
        return Metadata.from_file(str(self.folder.tuf_metadata / "timestamp.json"))

    def write_timestamp(self, metadata: Metadata) -> None:
        metadata.sign(self.signers["timestamp"])
        (self.folder.tuf_metadata / "timestamp.json").write_bytes(metadata.to_bytes())


@pytest.fixture
def scene(tmp_path, fleet, monkeypatch) -> Iterator[Scene]:
    made = Scene(tmp_path, fleet, monkeypatch)
    yield made
    made.http.close()


def is_trusted(scene: Scene, clock: datetime) -> bool:
    """Ask for a file that nobody signed: trust in the metadata is what it takes to hear that."""
    with pytest.raises(RejectedError, match="never signed"):
        scene.open(clock).find("demo@1", "demo/1/manifest.json")
    return True


def refusal(scene: Scene, clock: datetime) -> str:
    with pytest.raises(InstallError) as caught:
        scene.open(clock)
    assert not isinstance(caught.value, RejectedError), "it may pass: the release is not to blame"
    return str(caught.value)


def test_fresh_metadata_are_trusted_whether_the_clock_is_right_or_lost(scene):
    scene.sign(T)
    assert is_trusted(scene, T)
    assert is_trusted(scene, DEAD_BATTERY)


@pytest.mark.parametrize(
    ("asked_at", "trusted"), [(T + 10 * DAY - SECOND, True), (T + 10 * DAY, False), (T + 20 * DAY, False)]
)
def test_a_lost_clock_refuses_what_ended_before_the_newest_signature(scene, asked_at, trusted):
    scene.sign(T, targets_s=10 * 86400.0)
    scene.sign(asked_at)
    if trusted:
        assert is_trusted(scene, DEAD_BATTERY)
        return
    said = refusal(scene, DEAD_BATTERY)
    assert "targets.json that expired at 2027-03-11T00:00:00Z" in said
    assert "the signature of timestamp.json" in said
    assert "this device's clock says 1970-01-01T00:00:20Z" in said
    assert "set the clock" in said


def test_a_lost_clock_refuses_what_ended_before_the_agent_was_released(scene):
    scene.sign(RELEASED_AT - 30 * DAY)
    said = refusal(scene, DEAD_BATTERY)
    assert "the release of this agent" in said
    assert "timestamp.json" in said


def test_a_new_device_with_a_lost_clock_knows_when_its_root_was_signed(scene):
    """It was provisioned yesterday; somebody serves it a timestamp of a month ago."""
    scene.sign(T - 30 * DAY)
    path = scene.folder.tuf_metadata / "1.root.json"
    root = Metadata.from_file(str(path))
    root.signed.unrecognized_fields[SIGNED_AT] = "2027-03-01T00:00:00Z"
    root.sign(scene.signers["root"])
    path.write_bytes(root.to_bytes())
    said = refusal(scene, DEAD_BATTERY)
    assert "timestamp.json that expired at 2027-01-31T00:00:00Z" in said
    assert "it is at least 2027-03-01T00:00:00Z by the signature of root.json" in said
    scene.sign(T)
    assert is_trusted(scene, DEAD_BATTERY)


def test_a_lost_clock_refuses_after_a_restart_what_it_refused_before(scene):
    scene.sign(T, targets_s=86400.0)
    assert is_trusted(scene, DEAD_BATTERY)
    scene.sign(T + 2 * DAY)
    assert "targets.json" in refusal(scene, DEAD_BATTERY)
    assert "targets.json" in refusal(scene, DEAD_BATTERY)


def test_what_was_seen_is_kept_on_the_device_and_older_metadata_are_refused(scene):
    scene.sign(T)
    old = scene.folder.tuf.with_name("old")
    shutil.copytree(scene.folder.tuf, old)
    scene.sign(T + DAY)
    assert is_trusted(scene, DEAD_BATTERY)
    shutil.rmtree(scene.folder.tuf)
    old.rename(scene.folder.tuf)
    assert "only rise" in refusal(scene, DEAD_BATTERY)


def test_a_clock_far_ahead_refuses_and_the_message_names_the_clock(scene):
    scene.sign(T)
    said = refusal(scene, datetime(2090, 1, 1, tzinfo=UTC))
    assert "this device's clock, which says 2090-01-01T00:00:00Z" in said
    assert "set the clock" in said
    assert is_trusted(scene, T), "and passes once the clock is right"


def test_a_forged_time_far_ahead_lasts_until_the_service_signs_again(scene):
    """With the timestamp key, which is an online one: it says 2400, for four hundred years."""
    scene.sign(T)
    forged = scene.timestamp()
    forged.signed.unrecognized_fields[SIGNED_AT] = "2400-01-01T00:00:00Z"
    forged.signed.expires = datetime(2500, 1, 1, tzinfo=UTC)
    forged.signed.version += 1
    scene.write_timestamp(forged)
    assert "it is at least 2028-02-29T00:00:00Z" in refusal(scene, T), "never beyond the end of the offline keys' word"
    scene.sign(T + SECOND)
    assert is_trusted(scene, T + SECOND)
    assert is_trusted(scene, DEAD_BATTERY)


def test_a_service_whose_clock_ran_ahead_signs_again_when_it_was_set_right(scene):
    scene.sign(T)
    scene.sign(T + 700 * DAY)
    refusal(scene, T)
    scene.sign(T + SECOND)
    assert is_trusted(scene, T + SECOND)
    assert is_trusted(scene, DEAD_BATTERY)


def test_metadata_that_do_not_say_when_they_were_signed_are_judged_by_the_clock(scene):
    scene.sign(T)
    silent = scene.timestamp()
    del silent.signed.unrecognized_fields[SIGNED_AT]
    silent.signed.version += 1
    scene.write_timestamp(silent)
    assert is_trusted(scene, T + DAY - SECOND)
    assert "clock" in refusal(scene, T + DAY)


def test_metadata_of_another_fleet_are_refused_with_what_to_give_the_device(scene, tmp_path):
    scene.sign(T)
    other = FleetFolder(tmp_path / "other")
    create_keys(other)
    init_repository(other, load_signers(other), T.timestamp())

    with pytest.raises(RejectedError, match=r"give this device the root metadata of this fleet \(--trusted-root\)"):
        open_trust(scene.device / "tuf", trusted_root(other), scene.http, "demo@1", clock=lambda: T)
