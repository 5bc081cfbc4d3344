import hashlib

import pytest

from hedgerow.fleet.errors import AdminKeyError
from hedgerow.fleet.web.admin_keys import hash_key, is_accepted, make_key, read_key_file, write_key_file


def test_keys_are_long_random_and_stored_as_hashes():
    keys = {make_key() for _ in range(100)}
    assert len(keys) == 100
    assert all(len(key) >= 43 for key in keys)
    key = keys.pop()
    assert hash_key(key) == hashlib.sha256(key.encode()).hexdigest()


def test_a_key_is_accepted_when_its_hash_is_known():
    key, other = make_key(), make_key()
    assert is_accepted(key, [hash_key(other), hash_key(key)])
    assert not is_accepted(key, [hash_key(other)])
    assert not is_accepted("", [])


def test_a_key_file_is_for_its_owner_alone(tmp_path):
    path = tmp_path / "admin.key"
    write_key_file(path, "hgk_secret")
    assert path.stat().st_mode & 0o777 == 0o600
    assert read_key_file(path) == "hgk_secret"
    path.chmod(0o644)
    with pytest.raises(AdminKeyError, match="chmod 600") as caught:
        read_key_file(path)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"\n", b"two words", b"\xff\xfe"])
def test_a_file_that_holds_no_key_is_refused(tmp_path, content):
    path = tmp_path / "admin.key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(AdminKeyError):
        read_key_file(path)
    with pytest.raises(AdminKeyError, match="no readable file"):
        read_key_file(tmp_path / "absent")
