import logging
import os
import stat

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from hedgerow.fleet.errors import KeyFileError
from hedgerow.fleet.folder import FleetFolder
from hedgerow.fleet.trust.keys import OFFLINE_ROLES, ONLINE_ROLES, ROLES, create_keys, load_signers


@pytest.fixture
def folder(tmp_path):
    folder = FleetFolder(tmp_path / "fleet")
    create_keys(folder)
    return folder


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_key_files_are_readable_by_their_owner_alone(folder):
    assert {mode(path) for path in (folder.path / "keys").rglob("*.pem")} == {0o600}
    assert {mode(p) for p in (folder.path / "keys", folder.offline_keys, folder.online_keys)} == {0o700}


def test_offline_and_online_keys_lie_in_folders_of_their_own(folder):
    assert sorted(path.stem for path in folder.offline_keys.iterdir()) == sorted(OFFLINE_ROLES)
    assert sorted(path.stem for path in folder.online_keys.iterdir()) == sorted(ONLINE_ROLES)


def test_every_role_has_a_key_of_its_own(folder):
    assert len({signer.public_key.keyid for signer in load_signers(folder).values()}) == len(ROLES)


def test_keys_that_exist_stay(folder):
    before = {role: signer.public_key for role, signer in load_signers(folder).items()}

    create_keys(folder)

    assert {role: signer.public_key for role, signer in load_signers(folder).items()} == before


def test_the_online_keys_load_while_the_offline_ones_are_away(folder):
    folder.offline_keys.rename(folder.path / "stick")

    assert set(load_signers(folder, ONLINE_ROLES)) == set(ONLINE_ROLES)
    with pytest.raises(
        KeyFileError, match=r"the root key at .*root\.pem, found none .* bring the folder of offline keys"
    ):
        load_signers(folder)


@pytest.mark.parametrize("bad", [0o640, 0o604, 0o660, 0o644])
def test_a_key_that_others_may_read_is_refused(folder, bad):
    (folder.online_keys / "timestamp.pem").chmod(bad)

    with pytest.raises(KeyFileError, match=f"mode {bad:04o}.*chmod 600"):
        load_signers(folder, ["timestamp"])


def test_a_link_in_place_of_a_key_is_refused(folder):
    path = folder.online_keys / "timestamp.pem"
    path.rename(folder.path / "elsewhere.pem")
    path.symlink_to(folder.path / "elsewhere.pem")

    with pytest.raises(KeyFileError):
        load_signers(folder, ["timestamp"])


def test_a_pipe_in_place_of_a_key_is_refused_without_waiting_for_a_writer(folder):
    path = folder.online_keys / "timestamp.pem"
    path.unlink()
    os.mkfifo(path, 0o600)

    with pytest.raises(KeyFileError, match="no regular file"):
        load_signers(folder, ["timestamp"])


def test_a_damaged_key_is_refused_and_its_content_told_to_nobody(folder, caplog):
    path = folder.online_keys / "timestamp.pem"
    secret = path.read_text().splitlines()[1][:20]
    path.write_text(path.read_text().replace("PRIVATE", "PRIVAT"))

    with caplog.at_level(logging.DEBUG), pytest.raises(KeyFileError) as failure:
        load_signers(folder, ["timestamp"])

    assert secret not in str(failure.value) + caplog.text
    assert failure.value.__cause__ is None


def test_signers_do_not_show_their_key(folder):
    secret = (folder.online_keys / "timestamp.pem").read_text().splitlines()[1]

    assert secret not in repr(load_signers(folder, ["timestamp"]))


def test_a_key_of_another_kind_is_refused_without_a_word_of_it(folder):
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path = folder.online_keys / "timestamp.pem"
    path.write_bytes(pem)
    with pytest.raises(KeyFileError, match="found a key of another kind; restore the file from its copy") as caught:
        load_signers(folder, ["timestamp"])
    assert pem.decode().splitlines()[1] not in str(caught.value)
