"""The keys of the four TUF roles, as files.

Root and targets decide what is valid: they are *offline* keys, in a folder of their own that can be moved to another
machine or a stick and back when a release is made. Snapshot and timestamp only say what is current and are signed
again every day: they are *online* keys, which the fleet service holds (TUF specification 1.0.34, section 6.1). Keys are
ed25519, PKCS#8 in PEM, unencrypted; the file system guards them, so a file that others can read is refused.
Nothing here logs, prints or puts into an error any part of a private key.
"""

import os
import stat
from collections.abc import Collection, Mapping
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from securesystemslib.signer import CryptoSigner, Signer

from hedgerow.durable import sync_folder, write_durably
from hedgerow.fleet.errors import KeyFileError
from hedgerow.fleet.folder import FleetFolder

__all__ = ["OFFLINE_ROLES", "ONLINE_ROLES", "ROLES", "Signers", "create_keys", "load_signers"]

OFFLINE_ROLES = ("root", "targets")
ONLINE_ROLES = ("snapshot", "timestamp")
ROLES = OFFLINE_ROLES + ONLINE_ROLES
_LIMIT_BYTES = 16 * 1024

Signers = Mapping[str, Signer]
"""Role -> what signs for it."""


def _path(folder: FleetFolder, role: str) -> Path:
    return (folder.offline_keys if role in OFFLINE_ROLES else folder.online_keys) / f"{role}.pem"


def create_keys(folder: FleetFolder) -> None:
    """Make and store a new key for every role that has none yet; existing keys stay.

    Nothing is made for a fleet whose root was signed: a key that is absent then is on its stick, not missing.

    Raises:
        OSError: The folder cannot be written.
    """
    if (folder.tuf_metadata / "1.root.json").exists():
        return
    for keys in (folder.offline_keys, folder.online_keys):
        keys.mkdir(parents=True, exist_ok=True, mode=0o700)
        for private in (keys.parent, keys):
            private.chmod(0o700)
    for role in ROLES:
        path = _path(folder, role)
        if not path.exists():
            pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            write_durably(path, pem, mode=0o600)
    sync_folder(folder.path)


def load_signers(folder: FleetFolder, roles: Collection[str] = ROLES) -> dict[str, Signer]:
    """Return a signer for each of *roles*.

    Raises:
        KeyFileError: A key is absent, not an ed25519 key in PEM, or readable by other users.
    """
    return {role: _load_signer(_path(folder, role), role) for role in roles}


def _load_signer(path: Path, role: str) -> Signer:
    pem = _read_private(path, role)
    wanted = f"an unencrypted ed25519 key of the role {role} in PEM"
    try:
        key = load_pem_private_key(pem, password=None)
    # cryptography raises ValueError for what it cannot read and TypeError for an encrypted key; the cause is dropped,
    # because its text may quote the file.
    except (ValueError, TypeError):
        raise KeyFileError(path, wanted, "something else", "restore the file from its copy") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyFileError(path, wanted, "a key of another kind", "restore the file from its copy")
    return CryptoSigner(key)


def _read_private(path: Path, role: str) -> bytes:
    wanted = f"the {role} key"
    place = "the folder of offline keys" if role in OFFLINE_ROLES else "the folder of online keys"
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as exc:
        advice = f"bring {place} back, or make a new fleet with `hedgerow fleet init`"
        raise KeyFileError(path, wanted, f"none ({exc.strerror})", advice) from None
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise KeyFileError(path, wanted, "no regular file", "restore the file from its copy")
        mode = stat.S_IMODE(status.st_mode)
        if mode & 0o077:
            found = f"a file that others may read (mode {mode:04o})"
            raise KeyFileError(path, wanted, found, "run chmod 600 on it and consider the key stolen if it was shared")
        return file.read(_LIMIT_BYTES)
