"""Downloads over a real loopback server that cuts connections."""

import hashlib

import pytest

from hedgerow.client.download import download
from hedgerow.client.errors import AgentSettingsError, InstallError, StoppedError, TransferError
from hedgerow.client.fleet_http import FleetHttp
from hedgerow.client.trust import SignedFile

CONTENT = bytes(range(256)) * 2000


@pytest.fixture
def file(fleet) -> SignedFile:
    place = fleet.folder / "tuf" / "targets" / "blob"
    place.parent.mkdir(parents=True)
    place.write_bytes(CONTENT)
    return SignedFile("blob", "tuf/targets/blob", len(CONTENT), hashlib.sha256(CONTENT).hexdigest(), "demo@1", "any")


def fetch(fleet, file, folder, **changes):
    return download(FleetHttp(fleet.url, timeout_s=2), file, folder, **{"pause": lambda _seconds: False, **changes})


def test_a_cut_download_goes_on_where_it_was(fleet, file, tmp_path):
    fleet.cuts += [200_000, 100_000]
    path = fetch(fleet, file, tmp_path / "d")
    assert path.read_bytes() == CONTENT
    asked = [wanted for _, _, wanted in fleet.requests]
    assert asked[0] == ""
    assert len(asked) == 3
    assert all(wanted.startswith("bytes=") for wanted in asked[1:])


def test_a_part_of_an_earlier_start_is_used(fleet, file, tmp_path):
    folder = tmp_path / "d"
    folder.mkdir()
    (folder / f"{file.sha256}.part").write_bytes(CONTENT[:500_000])
    assert fetch(fleet, file, folder).read_bytes() == CONTENT
    assert [wanted for _, _, wanted in fleet.requests] == ["bytes=500000-"]


def test_a_server_without_ranges_is_asked_again_from_the_start(fleet, file, tmp_path):
    fleet.ranges = False
    fleet.cuts += [200_000]
    assert fetch(fleet, file, tmp_path / "d").read_bytes() == CONTENT


def test_a_finished_download_is_not_repeated(fleet, file, tmp_path):
    fetch(fleet, file, tmp_path / "d")
    fetch(fleet, file, tmp_path / "d")
    assert len(fleet.requests) == 1


def test_other_bytes_are_refused_and_deleted(fleet, file, tmp_path):
    (fleet.folder / file.url_path).write_bytes(bytes(len(CONTENT)))
    with pytest.raises(InstallError, match="SHA-256"):
        fetch(fleet, file, tmp_path / "d")
    assert list((tmp_path / "d").iterdir()) == []


def test_more_bytes_than_signed_are_refused(fleet, file, tmp_path):
    (fleet.folder / file.url_path).write_bytes(CONTENT + b"x")
    with pytest.raises(InstallError, match="more"):
        fetch(fleet, file, tmp_path / "d")


@pytest.mark.parametrize("ranges", [True, False])
def test_fewer_bytes_than_signed_are_refused_without_asking_for_ever(fleet, file, tmp_path, ranges):
    fleet.ranges = ranges
    (fleet.folder / file.url_path).write_bytes(CONTENT[:5])
    with pytest.raises(InstallError, match=f"{len(CONTENT)} bytes, found an end after 5"):
        fetch(fleet, file, tmp_path / "d")
    assert len(fleet.requests) <= 5


def test_a_damaged_part_does_not_poison_the_next_attempt(fleet, file, tmp_path):
    folder = tmp_path / "d"
    folder.mkdir()
    (folder / f"{file.sha256}.part").write_bytes(b"\0" * 1000)
    with pytest.raises(InstallError):
        fetch(fleet, file, folder)
    assert fetch(fleet, file, folder).read_bytes() == CONTENT


def test_a_missing_file_is_not_asked_for_again(fleet, file, tmp_path):
    (fleet.folder / file.url_path).unlink()
    with pytest.raises(TransferError, match="404"):
        fetch(fleet, file, tmp_path / "d")
    assert len(fleet.requests) == 1


def test_fruitless_attempts_end(file, tmp_path):
    pauses = []
    http = FleetHttp("http://127.0.0.1:9", timeout_s=1)
    with pytest.raises(TransferError):
        download(http, file, tmp_path / "d", pause=lambda seconds: pauses.append(seconds) or False)
    assert len(pauses) == 3


def test_a_server_that_only_drips_is_given_up(fleet, file, tmp_path):
    ticks = iter(range(0, 10**9, 300))
    fleet.cuts += [1] * 50
    with pytest.raises(TransferError, match="bytes a second"):
        fetch(fleet, file, tmp_path / "d", clock=lambda: float(next(ticks)))
    assert len(fleet.requests) < 5


def test_stopping_keeps_what_came(fleet, file, tmp_path):
    chunks = iter([False, False])
    with pytest.raises(StoppedError):
        fetch(fleet, file, tmp_path / "d", pause=lambda _seconds: next(chunks, True))
    assert 0 < (tmp_path / "d" / f"{file.sha256}.part").stat().st_size < len(CONTENT)
    assert fetch(fleet, file, tmp_path / "d").read_bytes() == CONTENT


@pytest.mark.parametrize("server", ["ftp://x", "http://", "localhost:80", "http://user@host", "http://h?q"])
def test_a_wrong_server_address_is_refused(server):
    with pytest.raises(AgentSettingsError, match="--server"):
        FleetHttp(server)
