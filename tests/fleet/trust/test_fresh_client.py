"""Nothing is published that a device would refuse."""

import time

import pytest

from hedgerow.fleet.errors import SigningError
from hedgerow.fleet.folder import FleetFolder
from hedgerow.fleet.trust.fresh_client import check_accepted
from hedgerow.fleet.trust.keys import create_keys, load_signers
from hedgerow.fleet.trust.signing import init_repository, publish
from hedgerow.fleet.trust.tuf_metadata import release_targets
from tests.fleet.sample_release import write_release


@pytest.fixture
def folder(tmp_path):
    made = FleetFolder(tmp_path / "fleet")
    create_keys(made)
    init_repository(made, load_signers(made), time.time())
    return made


@pytest.fixture
def manifest(folder, tmp_path):
    made = write_release(tmp_path / "release", 1)
    publish(folder, made, tmp_path / "release", load_signers(folder), time.time())
    return made


def test_what_is_published_is_accepted(folder, manifest):
    check_accepted(folder, {}, release_targets(manifest), "digits@1")


@pytest.mark.parametrize("name", ["timestamp.json", "1.root.json"])
def test_a_document_that_is_none_is_refused(folder, name):
    with pytest.raises(SigningError, match="expected metadata that a device accepts"):
        check_accepted(folder, {name: b"{}"})


def test_a_document_that_is_longer_than_a_device_reads_is_refused(folder):
    with pytest.raises(SigningError, match=r"at most [0-9]+ bytes"):
        check_accepted(folder, {"timestamp.json": b" " * 10_000_000})


def test_a_document_that_is_absent_is_refused(folder):
    (folder.tuf_metadata / "1.snapshot.json").unlink()
    with pytest.raises(SigningError, match=r"1\.snapshot\.json|status 404"):
        check_accepted(folder, {})


def test_a_file_that_is_not_listed_is_refused(folder, tmp_path):
    unlisted = write_release(tmp_path / "other", 2)
    with pytest.raises(SigningError, match="metadata that a device accepts"):
        check_accepted(folder, {}, release_targets(unlisted), "digits@2")


@pytest.mark.parametrize("damage", ["gone", "cut"])
def test_a_listed_file_that_is_not_there_whole_is_refused(folder, manifest, damage):
    file = release_targets(manifest)[0]
    (path,) = (folder.tuf_targets / "digits" / "1").glob(f"{file.hashes['sha256']}.*")
    content = path.read_bytes()
    path.unlink()
    if damage == "cut":
        path.write_bytes(content[:-1])
    on_disk = "None" if damage == "gone" else str(len(content) - 1)
    with pytest.raises(SigningError, match=rf"{on_disk} bytes at .*; create the release again"):
        check_accepted(folder, {}, release_targets(manifest), "digits@1")
