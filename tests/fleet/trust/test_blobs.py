"""A blob is copied whole and right, or not at all."""

import stat
from hashlib import sha256

import pytest

from hedgerow.fleet.errors import ReleaseError
from hedgerow.fleet.trust.blobs import copy_blob

CONTENT = b"weights" * 500_000
DIGEST = sha256(CONTENT).hexdigest()


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "source"
    path.write_bytes(CONTENT)
    return path


def test_a_blob_is_copied_read_only_into_folders_that_are_made(source, tmp_path):
    copy = tmp_path / "a" / "b" / DIGEST
    copy_blob(source, copy, DIGEST)
    assert copy.read_bytes() == CONTENT
    assert stat.S_IMODE(copy.stat().st_mode) == 0o444
    assert [path.name for path in copy.parent.iterdir()] == [DIGEST]


def test_a_blob_with_another_hash_is_refused_and_leaves_nothing(source, tmp_path):
    source.write_bytes(CONTENT[:-1])
    found = sha256(CONTENT[:-1]).hexdigest()
    with pytest.raises(ReleaseError, match=rf"expected SHA-256 {DIGEST[:12]}\.\.\., found {found[:12]}\.\.\.; compile"):
        copy_blob(source, tmp_path / "out" / DIGEST, DIGEST)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_blob_that_is_absent_is_refused_and_what_was_there_stays(source, tmp_path):
    copy = tmp_path / "out" / DIGEST
    copy_blob(source, copy, DIGEST)
    source.unlink()
    with pytest.raises(ReleaseError, match="source: expected a file of the release, found none"):
        copy_blob(source, copy, DIGEST)
    assert copy.read_bytes() == CONTENT
    assert len(list(copy.parent.iterdir())) == 1


def test_a_place_that_cannot_be_written_is_an_error_of_the_disk(source, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError, match="file"):
        copy_blob(source, tmp_path / "file" / DIGEST, DIGEST)
