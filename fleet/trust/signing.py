"""The TUF repository on disk: what devices trust, in the order in which it may be seen.

Layout, as TUF clients ask for it with consistent snapshots::

    tuf/metadata/<n>.root.json <n>.targets.json <n>.snapshot.json timestamp.json
    tuf/targets/<name>/<number>/<sha256>.<file>

The timestamp is the only file whose content changes, and it is written last; everything that it leads to lies under a
name of its own. So a client sees the old repository or the new one, and a crash between two steps leaves the old one
valid: the files of the unfinished step have numbers that nothing refers to, and the next run writes over them.

Which documents follow from which is in :mod:`hedgerow.fleet.trust.tuf_metadata`. Nothing is written before a device's
own code has accepted it (:mod:`hedgerow.fleet.trust.fresh_client`), so what was published before stays when it does
not.
"""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root, Snapshot, TargetFile, Targets, Timestamp
from tuf.api.serialization import DeserializationError

from hedgerow.durable import sha256_of, sync_folder, write_durably
from hedgerow.fleet.errors import ReleaseError, SigningError, UnknownReleaseError
from hedgerow.fleet.folder import FleetFolder
from hedgerow.fleet.trust.blobs import copy_blob
from hedgerow.fleet.trust.fresh_client import check_accepted
from hedgerow.fleet.trust.keys import ONLINE_ROLES, ROLES, Signers
from hedgerow.fleet.trust.tuf_metadata import (
    Lifetimes,
    RepositoryState,
    first_state,
    foreign_roles,
    listed_releases,
    refreshed,
    release_targets,
    released_paths,
    renewed,
    verify,
    with_targets,
)
from hedgerow.fleet.trust.write_lock import write_lock
from hedgerow.manifest.release import Manifest

__all__ = [
    "expiries",
    "init_repository",
    "publish",
    "refresh_online",
    "renew_offline",
    "revoke",
    "signed_hashes",
    "signed_releases",
    "trusted_root",
]

_DEFAULT_LIFETIMES = Lifetimes()
_RESTORE = "restore the fleet folder from its copy"
_CLIENTS_LIMIT_BYTES = 5_000_000  # tuf.ngclient.UpdaterConfig.targets_max_length


def init_repository(
    folder: FleetFolder, signers: Signers, now: float, *, lifetimes: Lifetimes = _DEFAULT_LIFETIMES
) -> None:
    """Make an empty repository, or finish one that was begun; one that exists is left as it is.

    Args:
        folder: The fleet's.
        signers: One for each of the four roles.
        now: Unix seconds.
        lifetimes: How long signatures count.

    Raises:
        SigningError: A repository of other keys exists, or one that lost its timestamp.
        OSError: The folder cannot be written.
    """
    folder.tuf_metadata.mkdir(parents=True, exist_ok=True)
    folder.tuf_targets.mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        if (folder.tuf_metadata / "timestamp.json").exists():
            _read(folder, signers)
            return
        if any(not path.name.startswith("1.") for path in folder.tuf_metadata.glob("*.json")):
            raise SigningError(folder.tuf, "timestamp.json beside the other metadata", "none", _RESTORE)
        state = first_state(signers, lifetimes, now)
        _check(folder, None, state)
        write_durably(folder.tuf_metadata / "1.root.json", state.root.to_bytes())
        _write(folder, None, state)
    sync_folder(folder.path)


def publish(
    folder: FleetFolder,
    manifest: Manifest,
    release_folder: Path,
    signers: Signers,
    now: float,
    *,
    lifetimes: Lifetimes = _DEFAULT_LIFETIMES,
) -> None:
    """List a release: its manifest and all its blobs become targets.

    Args:
        folder: The fleet's.
        manifest: What is released.
        release_folder: Holds ``manifest.json`` and ``blobs/<sha256>``.
        signers: One each for targets, snapshot and timestamp.
        now: Unix seconds.
        lifetimes: How long signatures count.

    Raises:
        SigningError: The release is listed already, the repository is damaged, or its root does not name these keys.
        ReleaseError: A file of the release is absent or changed.
        OSError: The folder cannot be written; what clients see is unchanged.
    """
    with _locked(folder):
        state = _read(folder, signers)
        if released_paths(state.targets.signed.targets, manifest.release):
            raise SigningError(folder.tuf, "a new release", f"{manifest.release} signed already", "make a new number")
        files = release_targets(manifest)
        state_after = with_targets(state, signers, lifetimes, now, add=files)
        if len(state_after.targets.to_bytes()) > _CLIENTS_LIMIT_BYTES:
            raise SigningError(
                folder.tuf, f"at most {_CLIENTS_LIMIT_BYTES} bytes of target list", "more", "revoke old releases"
            )
        for file in files:
            source = release_folder / "manifest.json"
            if not file.path.endswith("/manifest.json"):
                source = release_folder / "blobs" / Path(file.path).name
            _place(folder, file, source)
        _sync_targets(folder, manifest.release)
        _check(folder, state, state_after, files, manifest.release)
        _write(folder, state, state_after)


def revoke(
    folder: FleetFolder,
    release: str,
    signers: Signers,
    now: float,
    *,
    lifetimes: Lifetimes = _DEFAULT_LIFETIMES,
) -> None:
    """Unlist a release, then remove its target files: devices can neither verify nor fetch it from now on.

    Raises:
        UnknownReleaseError: It is not listed, and no files of it are left from an interrupted revocation.
        SigningError: The repository is damaged, or its root does not name these keys.
        OSError: The folder cannot be written.
    """
    files = _target_folder(folder, release)
    with _locked(folder):
        state = _read(folder, signers)
        paths = released_paths(state.targets.signed.targets, release)
        if not paths and not files.exists():
            raise UnknownReleaseError(release, listed_releases(state.targets.signed.targets))
        if paths:
            after = with_targets(state, signers, lifetimes, now, remove=paths)
            _check(folder, state, after)
            _write(folder, state, after)
        # Only now: a client that still sees the old timestamp must find what that leads to.
        if files.exists():
            shutil.rmtree(files)
            sync_folder(files.parent)


def refresh_online(
    folder: FleetFolder, signers: Signers, now: float, *, lifetimes: Lifetimes = _DEFAULT_LIFETIMES
) -> bool:
    """Sign anew what has less than half of its life left, with the online keys alone; call it every hour or so.

    Returns:
        Whether something was signed.

    Raises:
        SigningError: The repository is damaged, or its root does not name these keys.
        OSError: The folder cannot be written.
    """
    online = {role: signers[role] for role in ONLINE_ROLES}
    with _locked(folder):
        state = _read(folder, online)
        after = refreshed(state, online, lifetimes, now)
        if after is not state:
            _check(folder, state, after)
        _write(folder, state, after)
    return after is not state


def renew_offline(
    folder: FleetFolder, signers: Signers, now: float, *, lifetimes: Lifetimes = _DEFAULT_LIFETIMES
) -> None:
    """Sign root and targets anew, with the same keys and for the same files; what was published otherwise stays.

    Args:
        folder: The fleet's.
        signers: One for each of the four roles.
        now: Unix seconds.
        lifetimes: How long signatures count.

    Raises:
        SigningError: The repository is damaged, its root does not name these keys, or no device would accept it.
        OSError: The folder cannot be written.
    """
    with _locked(folder):
        state = _read(folder, signers)
        after = renewed(state, signers, lifetimes, now)
        _check(folder, state, after)
        write_durably(folder.tuf_metadata / f"{after.root.signed.version}.root.json", after.root.to_bytes())
        _write(folder, state, after)


def signed_releases(folder: FleetFolder) -> tuple[str, ...]:
    """Return the listed releases, by name and number; signatures are checked.

    Raises:
        SigningError: There is no repository, or it is damaged.
    """
    return listed_releases(_read(folder, {}).targets.signed.targets)


def signed_hashes(folder: FleetFolder) -> dict[str, str]:
    """Return target path -> signed SHA-256 of every listed file; signatures are checked.

    Raises:
        SigningError: There is no repository, or it is damaged.
    """
    return {path: file.hashes["sha256"] for path, file in _read(folder, {}).targets.signed.targets.items()}


def trusted_root(folder: FleetFolder) -> bytes:
    """Return the root metadata that a new device starts from.

    Raises:
        SigningError: There is no repository.
    """
    return _newest_root(folder)


def expiries(folder: FleetFolder) -> dict[str, float]:
    """Return when each role's signature ends, in Unix seconds, for health checks.

    Raises:
        SigningError: There is no repository, or it is damaged.
    """
    return _expiries(_read(folder, {}))


def _expiries(state: RepositoryState) -> dict[str, float]:
    return {role: getattr(state, role).signed.expires.timestamp() for role in ROLES}


@contextmanager
def _locked(folder: FleetFolder) -> Iterator[None]:
    if not folder.tuf.is_dir():
        raise _no_repository(folder)
    with write_lock(folder.tuf / ".lock"):
        yield


def _no_repository(folder: FleetFolder) -> SigningError:
    return SigningError(folder.tuf, "a TUF repository", "none", "make one with `hedgerow fleet init`")


def _newest_root(folder: FleetFolder) -> bytes:
    newest: bytes | None = None
    version = 1
    while (path := folder.tuf_metadata / f"{version}.root.json").is_file():
        newest = path.read_bytes()
        version += 1
    if newest is None:
        raise _no_repository(folder)
    return newest


def _read(folder: FleetFolder, signers: Signers) -> RepositoryState:
    """Follow the timestamp to what is current, check it, and check that the root names the keys of *signers*."""
    metadata = folder.tuf_metadata
    try:
        root = Metadata[Root].from_bytes(_newest_root(folder))
        timestamp = Metadata[Timestamp].from_bytes((metadata / "timestamp.json").read_bytes())
        snapshot_bytes = (metadata / f"{timestamp.signed.snapshot_meta.version}.snapshot.json").read_bytes()
        timestamp.signed.snapshot_meta.verify_length_and_hashes(snapshot_bytes)
        snapshot = Metadata[Snapshot].from_bytes(snapshot_bytes)
        meta = snapshot.signed.meta["targets.json"]
        targets_bytes = (metadata / f"{meta.version}.targets.json").read_bytes()
        meta.verify_length_and_hashes(targets_bytes)
        state = RepositoryState(root, Metadata[Targets].from_bytes(targets_bytes), snapshot, timestamp)
        verify(state)
    # A document of another role than its name says has other attributes.
    except (RepositoryError, DeserializationError, AttributeError, KeyError) as exc:
        found = f"damage ({type(exc).__name__}: {exc})"
        raise SigningError(folder.tuf, "a TUF repository that its root vouches for", found, _RESTORE) from exc
    except FileNotFoundError as exc:
        found = f"no {Path(exc.filename).name}"
        raise SigningError(
            folder.tuf, "a whole TUF repository", found, f"run `hedgerow fleet init` or {_RESTORE}"
        ) from exc
    foreign = foreign_roles(root.signed, signers)
    if foreign:
        found = f"other keys of {', '.join(foreign)}"
        raise SigningError(folder.tuf, "the keys that its root names", found, "bring the keys of this fleet")
    return state


def _documents(before: RepositoryState | None, after: RepositoryState) -> dict[str, bytes]:
    """Return name -> content of what is new but the root, in the order in which it may be seen."""
    documents = {}
    if before is None or after.targets is not before.targets:
        documents[f"{after.targets.signed.version}.targets.json"] = after.targets.to_bytes()
    if before is None or after.snapshot is not before.snapshot:
        documents[f"{after.snapshot.signed.version}.snapshot.json"] = after.snapshot.to_bytes()
    if before is None or after.timestamp is not before.timestamp:
        documents["timestamp.json"] = after.timestamp.to_bytes()
    return documents


def _check(
    folder: FleetFolder,
    before: RepositoryState | None,
    after: RepositoryState,
    files: Sequence[TargetFile] = (),
    release: str = "the fleet's releases",
) -> None:
    """Refuse what a device would refuse, before it is written."""
    root = {}
    if before is None or after.root is not before.root:
        root[f"{after.root.signed.version}.root.json"] = after.root.to_bytes()
    check_accepted(folder, root | _documents(before, after), files, release)


def _write(folder: FleetFolder, before: RepositoryState | None, after: RepositoryState) -> None:
    """Write what is new, the timestamp last."""
    for name, content in _documents(before, after).items():
        write_durably(folder.tuf_metadata / name, content)


def _target_folder(folder: FleetFolder, release: str) -> Path:
    return folder.tuf_targets / folder.release(release).relative_to(folder.releases)


def _place(folder: FleetFolder, file: TargetFile, source: Path) -> None:
    """Put one target file under its name, by hard link where the file system can."""
    digest = file.hashes["sha256"]
    path = folder.tuf_targets / Path(file.path).parent / f"{digest}.{Path(file.path).name}"
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and sha256_of(path) == digest:
        return
    path.unlink(missing_ok=True)
    try:
        os.link(source, path)
    except OSError:
        copy_blob(source, path, digest)
        return
    if sha256_of(path) != digest:
        path.unlink()
        raise ReleaseError(source, f"SHA-256 {digest[:12]}...", "other content", "create the release again")


def _sync_targets(folder: FleetFolder, release: str) -> None:
    files = _target_folder(folder, release)
    for changed in (files, files.parent, folder.tuf_targets):
        sync_folder(changed)
