"""The seam between the service and the signed releases: what is listed, and what is in it."""

import threading
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Protocol

from hedgerow.errors import DecodeError
from hedgerow.fleet.errors import ReleaseError, UnknownReleaseError
from hedgerow.fleet.folder import FleetFolder
from hedgerow.manifest.release import Manifest, parse_release_id
from hedgerow.reference import Reference

__all__ = ["Catalogue", "FolderCatalogue", "MemoryCatalogue"]


class Catalogue(Protocol):
    """The signed releases. May be called from any thread; releases never change once they are listed."""

    def releases(self) -> Sequence[str]:
        """Return every listed release, sorted by name and number."""

    def manifest(self, release: str) -> Manifest:
        """Return a release's manifest.

        Raises:
            UnknownReleaseError: It is not listed.
        """

    def reference(self, release: str) -> Reference:
        """Return a release's reference.

        Raises:
            UnknownReleaseError: It is not listed.
        """


class MemoryCatalogue:
    """A :class:`Catalogue` from what it is given, for tests and simulations.

    Args:
        entries: Release -> its manifest and its reference.
    """

    def __init__(self, entries: Mapping[str, tuple[Manifest, Reference]] | None = None) -> None:
        self._entries = dict(entries or {})

    def add(self, manifest: Manifest, reference: Reference) -> None:
        """List one more release."""
        self._entries = {**self._entries, manifest.release: (manifest, reference)}

    def releases(self) -> Sequence[str]:
        """Return every listed release, sorted by name and number."""
        return sorted(self._entries, key=parse_release_id)

    def manifest(self, release: str) -> Manifest:
        """Return a release's manifest."""
        return self._entry(release)[0]

    def reference(self, release: str) -> Reference:
        """Return a release's reference."""
        return self._entry(release)[1]

    def _entry(self, release: str) -> tuple[Manifest, Reference]:
        try:
            return self._entries[release]
        except KeyError:
            raise UnknownReleaseError(release, self.releases()) from None


class FolderCatalogue:
    """A :class:`Catalogue` of the signed repository in a fleet's folder.

    What was read once is kept, since releases never change; whether one is still listed is looked up again whenever
    the repository's timestamp has changed.

    Args:
        folder: The fleet's.
    """

    def __init__(self, folder: FleetFolder) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._listed: tuple[str, ...] = ()
        self._listed_at: tuple[int, int] | None = None
        self._manifests: dict[str, Manifest] = {}
        self._references: dict[str, Reference] = {}

    def releases(self) -> Sequence[str]:
        """Return every listed release, sorted by name and number.

        Raises:
            SigningError: The repository is absent or damaged.
        """
        from hedgerow.fleet.trust.signing import signed_releases

        with self._lock:
            try:
                status = (self._folder.tuf_metadata / "timestamp.json").stat()
                seen = (status.st_mtime_ns, status.st_ino)
            except OSError:
                seen = None
            if seen is None or seen != self._listed_at:
                self._listed = tuple(sorted(signed_releases(self._folder), key=parse_release_id))
                self._listed_at = seen
            return self._listed

    def manifest(self, release: str) -> Manifest:
        """Return a release's manifest.

        Raises:
            UnknownReleaseError: It is not listed.
            ReleaseError: It is not the one that was signed.
            SigningError: The repository is absent or damaged.
        """
        from hedgerow.fleet.trust.releases import load_release

        self._check_listed(release)
        if release not in self._manifests:
            self._manifests[release] = load_release(self._folder, release)
        return self._manifests[release]

    def reference(self, release: str) -> Reference:
        """Return a release's reference.

        Raises:
            UnknownReleaseError: It is not listed.
            ReleaseError: It is damaged.
            SigningError: The repository is absent or damaged.
        """
        self._check_listed(release)
        if release not in self._references:
            blob = self.manifest(release).reference
            path = self._folder.release(release) / "blobs" / blob.sha256
            advice = "restore the fleet folder from its copy"
            try:
                payload = path.read_bytes()
            except OSError as exc:
                raise ReleaseError(path, "the reference", f"none ({exc.strerror})", advice) from exc
            if sha256(payload).hexdigest() != blob.sha256:
                raise ReleaseError(path, f"the SHA-256 {blob.sha256[:12]}...", "another", advice)
            try:
                self._references[release] = Reference.decode(payload)
            except DecodeError as exc:
                raise ReleaseError(path, exc.expected, f"{exc.found} in {exc.where}", advice) from exc
        return self._references[release]

    def _check_listed(self, release: str) -> None:
        listed = self.releases()
        if release not in listed:
            raise UnknownReleaseError(release, listed)
