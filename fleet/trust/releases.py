"""Releases on disk: made from a build, numbered for ever, immutable, signed.

A release is whole or absent: it is put together in a temporary folder and renamed. Between the rename and the signature
a file names the release that is under way; whoever comes next removes what a crash left there. Numbers rise and are
never used again, also not after a revocation, because devices may have kept what a number once meant.
"""

import logging
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Literal

from hedgerow import __version__
from hedgerow.compile.build import Build, load_build
from hedgerow.decode import decode_json, encode_json
from hedgerow.durable import sync_folder, write_durably
from hedgerow.errors import DecodeError
from hedgerow.fleet.errors import FailedChecksError, ReleaseError, UnknownReleaseError
from hedgerow.fleet.folder import FleetFolder
from hedgerow.fleet.trust.blobs import copy_blob
from hedgerow.fleet.trust.keys import Signers, load_signers
from hedgerow.fleet.trust.release_fit import check_fit
from hedgerow.fleet.trust.signing import publish, revoke, signed_hashes, signed_releases
from hedgerow.fleet.trust.write_lock import write_lock
from hedgerow.manifest.release import MODEL_NAME, RELEASE_ID, Lineage, Manifest, manifest_path, parse_release_id

__all__ = [
    "ReleaseEntry",
    "ReleaseState",
    "create_release",
    "failed_checks",
    "list_releases",
    "load_release",
    "revocation",
    "revoke_release",
]

ReleaseState = Literal["listed", "revoked", "unlisted"]

_log = logging.getLogger(__name__)
_UNDER_WAY, _LAST, _REVOKED = ".under-way", "last-number", "revoked.json"
_LIMIT_BYTES = 16 * 1024
_RESTORE = "restore the fleet folder from its copy"


@dataclass(frozen=True, slots=True)
class ReleaseEntry:
    """One release and whether devices may install it.

    Attributes:
        manifest: What it is.
        state: ``listed``: signed; ``revoked``: it was; ``unlisted``: neither, such as while it is made.
    """

    manifest: Manifest
    state: ReleaseState


def failed_checks(build: Build) -> Mapping[str, Sequence[str]]:
    """Return target -> names of the checks that its artifact failed, for the targets that failed any."""
    failed = {
        artifact.target: tuple(sorted(name for name, state in artifact.checks.items() if state == "failed"))
        for artifact in build.artifacts
    }
    return {target: names for target, names in failed.items() if names}


def create_release(
    folder: FleetFolder,
    name: str,
    build_folder: Path,
    *,
    now: float,
    parent: str | None = None,
    note: str = "",
    allow_failed_checks: bool = False,
    signers: Signers | None = None,
) -> Manifest:
    """Make, number and sign a release.

    Args:
        folder: The fleet's.
        name: Name of the model; the next free number is added.
        build_folder: What ``hedgerow compile`` wrote.
        now: Unix seconds.
        parent: The release that this one was trained from; default: what the build says.
        note: One line for people.
        allow_failed_checks: Release a build although checks failed; the manifest says which.
        signers: One each for targets, snapshot and timestamp; default: the keys in the fleet's folder.

    Raises:
        ReleaseError: The name, the parent or the note is not acceptable, or the build holds nothing or parts that do
            not fit each other.
        FailedChecksError: A check failed.
        KeyFileError: A key is absent or readable by others.
        SigningError: The TUF repository is absent or damaged, these are not its keys, or no device would accept what
            they sign; nothing of the release is left.
        OSError: The folder cannot be written; nothing of the release is left.
    """
    if not MODEL_NAME.fullmatch(name):
        raise ReleaseError(f"release {name!r}", f"a name like {MODEL_NAME.pattern}", repr(name), "choose another name")
    if parent is not None and not RELEASE_ID.fullmatch(parent):
        raise ReleaseError(f"release {name}", "a parent like digits@1", repr(parent), "correct the parent")
    if len(note) > 1024 or "\n" in note:
        raise ReleaseError(f"release {name}", "a note of one line", f"{len(note)} characters", "shorten the note")
    build = load_build(build_folder)
    if not build.artifacts:
        raise ReleaseError(build_folder, "at least one artifact", "none", "compile for a target")
    failed = failed_checks(build)
    if failed and not allow_failed_checks:
        raise FailedChecksError(build_folder, failed)
    check_fit(build, build_folder)
    signers = load_signers(folder, ("targets", "snapshot", "timestamp")) if signers is None else signers
    listed = signed_releases(folder)
    folder.releases.mkdir(parents=True, exist_ok=True)
    with write_lock(folder.releases / ".lock"):
        _clear_interrupted(folder)
        number = _next_number(folder, name, listed)
        manifest = _manifest(name, number, build, now, parent, note)
        write_durably(folder.releases / name / _LAST, str(number).encode())
        write_durably(folder.releases / _UNDER_WAY, manifest.release.encode())
        try:
            _assemble(folder, manifest, build_folder / "blobs")
            publish(folder, manifest, folder.release(manifest.release), signers, now)
        finally:
            _clear_interrupted(folder)
    _log.info("released %s for %s", manifest.release, ", ".join(a.target for a in manifest.artifacts))
    return manifest


def _manifest(name: str, number: int, build: Build, now: float, parent: str | None, note: str) -> Manifest:
    manifest = Manifest(
        name=name,
        number=number,
        task=build.task,
        created_at=_utc(now),
        model_schema=build.model_schema,
        artifacts=tuple(build.artifacts),
        train_graphs=tuple(build.train_graphs),
        reference=build.reference,
        lineage=Lineage(
            parent=parent or build.parent,
            run=build.run,
            checkpoint_sha256=build.checkpoint_sha256,
            data_fingerprint=build.data_fingerprint,
            code_version=__version__,
            note=note,
        ),
        metrics=dict(build.metrics),
    )
    try:
        Manifest.decode(manifest.encode())
    except DecodeError as exc:
        raise ReleaseError(manifest.release, exc.expected, f"{exc.found} in {exc.where}", "compile again") from exc
    return manifest


def _utc(now: float) -> str:
    return datetime.fromtimestamp(now, UTC).isoformat(timespec="seconds")


def _next_number(folder: FleetFolder, name: str, listed: Sequence[str]) -> int:
    numbers = [0, *(number for model, number in map(parse_release_id, listed) if model == name)]
    models = folder.releases / name
    if models.is_dir():
        numbers += [int(path.name) for path in models.iterdir() if path.name.isdigit()]
    last = models / _LAST
    if last.exists():
        text = last.read_text(encoding="utf-8").strip()
        if not text.isdigit():
            raise ReleaseError(last, "the last number that was used", repr(text[:20]), "write that number into it")
        numbers.append(int(text))
    return max(numbers) + 1


def _assemble(folder: FleetFolder, manifest: Manifest, blobs: Path) -> None:
    temporary = Path(tempfile.mkdtemp(dir=folder.releases, prefix=".", suffix=".part"))
    try:
        for blob in manifest.blobs():
            copy_blob(blobs / blob.sha256, temporary / "blobs" / blob.sha256, blob.sha256)
        write_durably(temporary / "manifest.json", manifest.encode(), mode=0o444)
        temporary.chmod(0o755)
        temporary.replace(folder.release(manifest.release))
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    sync_folder(folder.releases / manifest.name)


def _clear_interrupted(folder: FleetFolder) -> None:
    """Remove what a release that was not finished left behind; the caller holds the lock."""
    for path in folder.releases.glob(".*.part"):
        shutil.rmtree(path)
    marker = folder.releases / _UNDER_WAY
    if not marker.exists():
        return
    release = marker.read_text(encoding="utf-8")
    if RELEASE_ID.fullmatch(release) and release not in signed_releases(folder):
        for half in (
            folder.release(release),
            folder.tuf_targets / folder.release(release).relative_to(folder.releases),
        ):
            shutil.rmtree(half, ignore_errors=True)
    marker.unlink()
    sync_folder(folder.releases)


def load_release(folder: FleetFolder, release: str) -> Manifest:
    """Return a release's manifest.

    Raises:
        UnknownReleaseError: There is none.
        ReleaseError: Its manifest is not the one that was signed.
        SigningError: The TUF repository is absent or damaged.
    """
    signed = signed_hashes(folder)
    if not RELEASE_ID.fullmatch(release) or not (folder.release(release) / "manifest.json").is_file():
        raise UnknownReleaseError(release, _names(folder))
    return _load(folder, release, signed)


def _names(folder: FleetFolder) -> tuple[str, ...]:
    """Return the releases that have a folder, by name and number."""
    found = [path.parent for path in folder.releases.glob("*/*/manifest.json")] if folder.releases.is_dir() else []
    releases = [f"{path.parent.name}@{path.name}" for path in found]
    return tuple(sorted((release for release in releases if RELEASE_ID.fullmatch(release)), key=parse_release_id))


def _load(folder: FleetFolder, release: str, signed: Mapping[str, str]) -> Manifest:
    payload = (folder.release(release) / "manifest.json").read_bytes()
    found = sha256(payload).hexdigest()
    expected = signed.get(manifest_path(release), found)
    if expected != found:
        raise ReleaseError(release, f"the signed manifest {expected[:12]}...", f"{found[:12]}...", _RESTORE)
    try:
        return Manifest.decode(payload)
    except DecodeError as exc:
        raise ReleaseError(release, exc.expected, f"{exc.found} in {exc.where}", _RESTORE) from exc


def list_releases(folder: FleetFolder) -> tuple[ReleaseEntry, ...]:
    """Return all releases, by name and number.

    Raises:
        SigningError: The TUF repository is absent or damaged.
        ReleaseError: A manifest is damaged.
    """
    signed = signed_hashes(folder)
    entries = []
    for release in _names(folder):
        unlisted: ReleaseState = "revoked" if (folder.release(release) / _REVOKED).exists() else "unlisted"
        state: ReleaseState = "listed" if manifest_path(release) in signed else unlisted
        entries.append(ReleaseEntry(_load(folder, release, signed), state))
    return tuple(entries)


def revoke_release(
    folder: FleetFolder, release: str, *, now: float, reason: str, signers: Signers | None = None
) -> None:
    """Unlist a release for ever; its folder stays, for the record, and its number is not used again.

    Raises:
        UnknownReleaseError: It is not listed.
        KeyFileError, SigningError: As for :func:`create_release`.
        OSError: The folder cannot be written; run it again.
    """
    listed = signed_releases(folder)
    if not RELEASE_ID.fullmatch(release) or not folder.release(release).is_dir():
        raise UnknownReleaseError(release, listed)
    signers = load_signers(folder, ("targets", "snapshot", "timestamp")) if signers is None else signers
    with write_lock(folder.releases / ".lock"):
        if release in listed:
            record = {"revoked_at": _utc(now), "reason": reason[:1024]}
            write_durably(folder.release(release) / _REVOKED, encode_json(record))
        revoke(folder, release, signers, now)
    _log.warning("revoked %s: %s", release, reason)


def revocation(folder: FleetFolder, release: str) -> tuple[str, str] | None:
    """Return when (UTC, ISO 8601) and why a release was revoked, or None.

    Raises:
        ReleaseError: The record is damaged.
    """
    try:
        payload = (folder.release(release) / _REVOKED).read_bytes()
    except FileNotFoundError:
        return None
    try:
        fields = decode_json(payload, _REVOKED, limit_bytes=_LIMIT_BYTES)
        return fields.text("revoked_at"), fields.text("reason")
    except DecodeError as exc:
        raise ReleaseError(release, exc.expected, f"{exc.found} in {exc.where}", _RESTORE) from exc
