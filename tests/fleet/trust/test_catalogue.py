import time
from dataclasses import replace

import pytest

from hedgerow.fleet.errors import ReleaseError, UnknownReleaseError
from hedgerow.fleet.folder import FleetFolder
from hedgerow.fleet.trust.catalogue import FolderCatalogue, MemoryCatalogue
from hedgerow.fleet.trust.keys import create_keys, load_signers
from hedgerow.fleet.trust.signing import init_repository, publish, revoke
from hedgerow.reference import Reference
from tests.fleet.sample_release import put_blob, write_release
from tests.fleet.virtual_fleet import REFERENCE, make_manifest


@pytest.fixture
def folder(tmp_path):
    made = FleetFolder(tmp_path)
    create_keys(made)
    init_repository(made, load_signers(made), time.time())
    return made


def release(folder, number):
    place = folder.release(f"digits@{number}")
    place.mkdir(parents=True)
    manifest = write_release(place, number)
    publish(folder, manifest, place, load_signers(folder), time.time())
    return manifest


def test_what_is_signed_is_listed_and_can_be_read(folder):
    catalogue = FolderCatalogue(folder)
    assert catalogue.releases() == ()
    manifests = [release(folder, number) for number in (1, 2)]
    assert list(catalogue.releases()) == ["digits@1", "digits@2"]
    assert catalogue.manifest("digits@2") == manifests[1]
    assert catalogue.reference("digits@1") == Reference(())


def test_a_revoked_release_is_unknown_although_it_was_read_before(folder):
    catalogue = FolderCatalogue(folder)
    release(folder, 1)
    catalogue.reference("digits@1")
    revoke(folder, "digits@1", load_signers(folder), time.time())
    for read in (catalogue.manifest, catalogue.reference):
        with pytest.raises(UnknownReleaseError, match="digits@1"):
            read("digits@1")


def test_a_damaged_reference_is_refused(folder):
    manifest = release(folder, 1)
    path = folder.release("digits@1") / "blobs" / manifest.reference.sha256
    path.chmod(0o644)
    path.write_bytes(b'{"features":[],"version":1} ')
    with pytest.raises(ReleaseError, match="SHA-256"):
        FolderCatalogue(folder).reference("digits@1")
    path.unlink()
    with pytest.raises(ReleaseError, match="the reference"):
        FolderCatalogue(folder).reference("digits@1")


def test_the_fake_sorts_by_number_too():
    catalogue = MemoryCatalogue({f"toy@{n}": (make_manifest(f"toy@{n}"), REFERENCE) for n in (10, 9)})
    assert catalogue.releases() == ["toy@9", "toy@10"]
    with pytest.raises(UnknownReleaseError, match="toy@1"):
        catalogue.manifest("toy@1")


def test_a_signed_reference_that_is_none_is_refused(folder):
    place = folder.release("digits@1")
    place.mkdir(parents=True)
    manifest = replace(write_release(place, 1), reference=put_blob(place, b'{"version": 1}'))
    (place / "manifest.json").write_bytes(manifest.encode())
    publish(folder, manifest, place, load_signers(folder), time.time())
    with pytest.raises(ReleaseError, match="restore the fleet folder from its copy"):
        FolderCatalogue(folder).reference("digits@1")


def test_a_release_that_is_not_in_memory_is_named_with_those_that_are():
    catalogue = MemoryCatalogue()
    catalogue.add(make_manifest("toy@1"), REFERENCE)
    for read in (catalogue.manifest, catalogue.reference):
        with pytest.raises(UnknownReleaseError, match="found 'toy@2'; the signed ones are: toy@1"):
            read("toy@2")
