"""Which TUF metadata follows from which (TUF specification 1.0.34). Pure but for signing: documents in, documents out.

No disk and no clock: :mod:`hedgerow.fleet.trust.signing` reads, writes and orders the files. Documents that were signed
are never changed; what follows is a new document with the next version.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from typing import TypeVar

from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, TargetFile, Targets, Timestamp

from hedgerow.client.signed_time import SIGNED_AT, format_time, read_time
from hedgerow.fleet.trust.keys import ROLES, Signers
from hedgerow.manifest.release import Manifest, blob_path, manifest_path, parse_release_id

__all__ = [
    "ANY_HARDWARE",
    "Lifetimes",
    "RepositoryState",
    "first_state",
    "foreign_roles",
    "listed_releases",
    "refreshed",
    "release_targets",
    "released_paths",
    "renewed",
    "verify",
    "with_targets",
]

ANY_HARDWARE = "any"
_DAY_S = 86400.0
_CLOCK_STEP_S = 3600.0
_HASH = "sha256"

Document = TypeVar("Document", Root, Targets, Snapshot, Timestamp)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lifetimes:
    """How long each role's signature counts, in seconds.

    Long ones for the offline keys, because a person must fetch them; short ones for the online keys, because the
    timestamp's is how long a frozen mirror goes unnoticed.
    """

    root_s: float = 365 * _DAY_S
    targets_s: float = 365 * _DAY_S
    snapshot_s: float = _DAY_S
    timestamp_s: float = _DAY_S

    def expiry(self, role: str, now: float) -> datetime:
        """Return when a signature of *role* made at *now* (Unix seconds) ends."""
        seconds = {"root": self.root_s, "targets": self.targets_s, "snapshot": self.snapshot_s}
        return datetime.fromtimestamp(now + seconds.get(role, self.timestamp_s), UTC)


@dataclass(frozen=True, slots=True)
class RepositoryState:
    """The four current documents."""

    root: Metadata[Root]
    targets: Metadata[Targets]
    snapshot: Metadata[Snapshot]
    timestamp: Metadata[Timestamp]


def _signed(document: Document, role: str, signers: Signers, now: float) -> Metadata[Document]:
    # Devices whose clock stands in the past take this as the time that it is at least.
    document.unrecognized_fields[SIGNED_AT] = format_time(datetime.fromtimestamp(now, UTC))
    metadata = Metadata(document)
    metadata.sign(signers[role])
    return metadata


def _describe(metadata: Metadata[Targets] | Metadata[Snapshot]) -> MetaFile:
    return MetaFile.from_data(metadata.signed.version, metadata.to_bytes(), [_HASH])


def first_state(signers: Signers, lifetimes: Lifetimes, now: float) -> RepositoryState:
    """Return an empty repository: version 1 of every role, consistent snapshots, one key for each role."""
    root = Root(version=1, expires=lifetimes.expiry("root", now), consistent_snapshot=True)
    for role in ROLES:
        root.add_key(signers[role].public_key, role)
    targets = _signed(Targets(version=1, expires=lifetimes.expiry("targets", now)), "targets", signers, now)
    snapshot = _next_snapshot(0, targets, signers, lifetimes, now)
    return RepositoryState(
        root=_signed(root, "root", signers, now),
        targets=targets,
        snapshot=snapshot,
        timestamp=_next_timestamp(0, snapshot, signers, lifetimes, now),
    )


def _next_snapshot(
    version: int, targets: Metadata[Targets], signers: Signers, lifetimes: Lifetimes, now: float
) -> Metadata[Snapshot]:
    meta = {"targets.json": _describe(targets)}
    return _signed(
        Snapshot(version=version + 1, expires=lifetimes.expiry("snapshot", now), meta=meta), "snapshot", signers, now
    )


def _next_timestamp(
    version: int, snapshot: Metadata[Snapshot], signers: Signers, lifetimes: Lifetimes, now: float
) -> Metadata[Timestamp]:
    document = Timestamp(
        version=version + 1, expires=lifetimes.expiry("timestamp", now), snapshot_meta=_describe(snapshot)
    )
    return _signed(document, "timestamp", signers, now)


def with_targets(
    state: RepositoryState,
    signers: Signers,
    lifetimes: Lifetimes,
    now: float,
    *,
    add: Sequence[TargetFile] = (),
    remove: Collection[str] = (),
) -> RepositoryState:
    """Return what follows when target files are listed or unlisted: the next targets, snapshot and timestamp."""
    files = {path: file for path, file in state.targets.signed.targets.items() if path not in remove}
    files |= {file.path: file for file in add}
    document = Targets(
        version=state.targets.signed.version + 1, expires=lifetimes.expiry("targets", now), targets=files
    )
    targets = _signed(document, "targets", signers, now)
    snapshot = _next_snapshot(state.snapshot.signed.version, targets, signers, lifetimes, now)
    timestamp = _next_timestamp(state.timestamp.signed.version, snapshot, signers, lifetimes, now)
    return replace(state, targets=targets, snapshot=snapshot, timestamp=timestamp)


def refreshed(state: RepositoryState, signers: Signers, lifetimes: Lifetimes, now: float) -> RepositoryState:
    """Return what follows from time alone, with the online keys: what has less than half its life left is signed anew.

    So is what was signed in the future, by a clock that has been set right since: devices would take it for the time.
    The same *state* comes back when nothing is due.
    """
    half_snapshot = datetime.fromtimestamp(now + lifetimes.snapshot_s / 2, UTC)
    half_timestamp = datetime.fromtimestamp(now + lifetimes.timestamp_s / 2, UTC)
    snapshot = state.snapshot
    if snapshot.signed.expires < half_snapshot or _is_ahead(snapshot, now):
        snapshot = _next_snapshot(snapshot.signed.version, state.targets, signers, lifetimes, now)
    is_fresh = state.timestamp.signed.expires >= half_timestamp and not _is_ahead(state.timestamp, now)
    if snapshot is state.snapshot and is_fresh:
        return state
    timestamp = _next_timestamp(state.timestamp.signed.version, snapshot, signers, lifetimes, now)
    return replace(state, snapshot=snapshot, timestamp=timestamp)


def renewed(state: RepositoryState, signers: Signers, lifetimes: Lifetimes, now: float) -> RepositoryState:
    """Return what follows when root and targets are signed anew, by the same keys and for the same files."""
    before = state.root.signed
    root = Root(
        version=before.version + 1,
        spec_version=before.spec_version,
        expires=lifetimes.expiry("root", now),
        keys=before.keys,
        roles=before.roles,
        consistent_snapshot=before.consistent_snapshot,
    )
    return replace(with_targets(state, signers, lifetimes, now), root=_signed(root, "root", signers, now))


def _is_ahead(metadata: Metadata[Snapshot] | Metadata[Timestamp], now: float) -> bool:
    signed_at = read_time(metadata.signed.unrecognized_fields)
    return signed_at is not None and signed_at.timestamp() > now + _CLOCK_STEP_S


def verify(state: RepositoryState) -> None:
    """Check every signature against the root, and that each document names the next.

    Whoever signs on top of documents vouches for what is in them, so they are checked first: a list of targets that
    was changed on the online machine must not be blessed by the offline key.

    Raises:
        tuf.api.exceptions.RepositoryError: A signature, a hash or a version is wrong.
    """
    root = state.root.signed
    root.verify_delegate("root", state.root.signed_bytes, state.root.signatures)
    root.verify_delegate("targets", state.targets.signed_bytes, state.targets.signatures)
    root.verify_delegate("snapshot", state.snapshot.signed_bytes, state.snapshot.signatures)
    root.verify_delegate("timestamp", state.timestamp.signed_bytes, state.timestamp.signatures)


def foreign_roles(root: Root, signers: Signers) -> tuple[str, ...]:
    """Return the roles for which *root* does not name the signer's key."""
    # Key ids are only names; a changed root could give a known name to another key.
    keys = {role: [root.keys.get(keyid) for keyid in root.roles[role].keyids] for role in signers}
    return tuple(role for role, signer in signers.items() if signer.public_key not in keys[role])


def release_targets(manifest: Manifest) -> tuple[TargetFile, ...]:
    """Return the target files of a release: its manifest and each of its blobs, once.

    Custom metadata names the release and the hardware. A blob that several hardware targets share, and everything that
    belongs to none, is for ``any``: which artifact a target runs is said by the signed manifest, so the name widens
    who may fetch a blob, not who runs it.
    """
    encoded = manifest.encode()
    wanted_by: dict[str, set[str]] = {}
    for artifact in manifest.artifacts:
        for blob in artifact.blobs:
            wanted_by.setdefault(blob.sha256, set()).add(artifact.target)
    for blob in (manifest.reference, *(graph.blob for graph in manifest.train_graphs)):
        wanted_by.setdefault(blob.sha256, set()).add(ANY_HARDWARE)
    files = [_target(manifest_path(manifest.release), sha256(encoded).hexdigest(), len(encoded), manifest.release)]
    for blob in manifest.blobs():
        names = wanted_by[blob.sha256]
        hardware = next(iter(names)) if len(names) == 1 else ANY_HARDWARE
        path = blob_path(manifest.release, blob.sha256)
        files.append(_target(path, blob.sha256, blob.length_bytes, manifest.release, hardware))
    return tuple(files)


def _target(path: str, digest: str, length_bytes: int, release: str, hardware: str = ANY_HARDWARE) -> TargetFile:
    custom = {"custom": {"release": release, "hardware": hardware}}
    return TargetFile(length=length_bytes, hashes={_HASH: digest}, path=path, unrecognized_fields=custom)


def released_paths(files: Mapping[str, TargetFile], release: str) -> tuple[str, ...]:
    """Return the target paths that belong to *release*."""
    prefix = manifest_path(release).removesuffix("manifest.json")
    return tuple(path for path in files if path.startswith(prefix))


def listed_releases(files: Mapping[str, TargetFile]) -> tuple[str, ...]:
    """Return the releases whose manifest is listed, by name and number."""
    found = [path.split("/") for path in files if path.endswith("/manifest.json")]
    releases = [f"{name}@{number}" for name, number, _ in found]
    return tuple(sorted(releases, key=parse_release_id))
