"""The seam between the service and the signed releases: what is listed, and what is in it."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from hedgerow.fleet.errors import UnknownReleaseError
from hedgerow.manifest import Manifest
from hedgerow.reference import Reference

__all__ = ["Catalogue", "MemoryCatalogue"]


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
        return sorted(self._entries, key=lambda release: (release.split("@")[0], int(release.split("@")[1])))

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
