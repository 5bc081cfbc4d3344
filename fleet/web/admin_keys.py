"""Keys of the admin API: 256 random bits each, shown once, stored as SHA-256.

A slow hash protects what people choose; 256 random bits cannot be guessed, so one SHA-256 is enough (NIST SP 800-63B
section 5.1.2.2 asks for it only below 112 bits).
"""

import hashlib
import hmac
import os
import secrets
import stat
from collections.abc import Iterable
from pathlib import Path

from hedgerow.durable import write_durably
from hedgerow.fleet.errors import AdminKeyError

__all__ = ["hash_key", "is_accepted", "make_key", "read_key_file", "write_key_file"]

_PREFIX = "hgk_"
_LIMIT_BYTES = 1024


def make_key() -> str:
    """Return a new key; its prefix lets scanners of leaked secrets recognise it."""
    return _PREFIX + secrets.token_urlsafe(32)


def hash_key(key: str) -> str:
    """Return what is stored of a key."""
    return hashlib.sha256(key.encode()).hexdigest()


def is_accepted(key: str, hashes: Iterable[str]) -> bool:
    """Return whether *key* is one of those whose hashes are given, in time that does not depend on which."""
    found, presented = False, hash_key(key)
    for known in hashes:
        found |= hmac.compare_digest(presented, known)
    return found


def write_key_file(path: Path, key: str) -> None:
    """Write a key for its owner alone (mode 0600).

    Raises:
        OSError: The folder cannot be written.
    """
    write_durably(path, f"{key}\n".encode(), mode=0o600)


def read_key_file(path: Path) -> str:
    """Return the key in a file.

    Raises:
        AdminKeyError: The file is absent, readable by others, or holds no key.
    """
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            content = file.read(_LIMIT_BYTES)
    except OSError as exc:
        raise AdminKeyError(f"no readable file at {path} ({exc.strerror})") from exc
    if mode & 0o077:
        raise AdminKeyError(f"the file {path}, which others may read (mode {mode:04o}; run chmod 600 on it)")
    try:
        key = content.decode("ascii").strip()
    except UnicodeDecodeError:
        key = ""
    if not key or any(character.isspace() for character in key):
        raise AdminKeyError(f"something else in the file {path}")
    return key
