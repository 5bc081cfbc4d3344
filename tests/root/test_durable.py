"""A file is old or new, never half."""

import hashlib

import pytest

from hedgerow.durable import sha256_of, sync_folder, write_durably


def test_content_is_written_and_replaced_and_leaves_no_other_file(tmp_path):
    path = tmp_path / "new" / "folder" / "state.json"

    for content in (b"old", b"new", b""):
        write_durably(path, content)
        assert path.read_bytes() == content

    assert [entry.name for entry in path.parent.iterdir()] == ["state.json"]


def test_the_mode_is_that_asked_for_whatever_the_file_had(tmp_path):
    path = tmp_path / "key"
    path.write_bytes(b"public")
    path.chmod(0o644)

    write_durably(path, b"secret", mode=0o600)

    assert path.stat().st_mode & 0o777 == 0o600


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "state"
    path.write_bytes(b"old")

    with pytest.raises(TypeError):
        write_durably(path, "text is no bytes")

    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["state"]


def test_a_folder_in_the_place_of_the_file_is_an_error_and_leaves_nothing(tmp_path):
    (tmp_path / "state").mkdir()

    with pytest.raises(OSError, match="state"):
        write_durably(tmp_path / "state", b"x")

    assert [entry.name for entry in tmp_path.iterdir()] == ["state"]


def test_a_hash_is_that_of_the_whole_file(tmp_path):
    content = b"hedgerow" * 300_000
    (tmp_path / "big").write_bytes(content)

    assert sha256_of(tmp_path / "big") == hashlib.sha256(content).hexdigest()


def test_a_folder_can_be_synced_and_a_file_cannot(tmp_path):
    sync_folder(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        sync_folder(tmp_path / "file")
