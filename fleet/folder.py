"""Where everything of a fleet is on disk. One folder is one fleet."""

from dataclasses import dataclass
from pathlib import Path

from hedgerow.manifest.release import parse_release_id

__all__ = ["FleetFolder"]


@dataclass(frozen=True, slots=True)
class FleetFolder:
    """The folder of one fleet.

    ::

        keys/offline/{root,targets}.pem       move them off the machine; only releasing needs them
        keys/online/{snapshot,timestamp}.pem  the fleet service re-signs with these
        tuf/metadata, tuf/targets             what devices download, as it is
        releases/<name>/<number>              manifest.json and blobs/<sha256>
        fleet.db, admin.key                   of the fleet service
    """

    path: Path

    @property
    def offline_keys(self) -> Path:
        """Folder of the root and targets keys."""
        return self.path / "keys" / "offline"

    @property
    def online_keys(self) -> Path:
        """Folder of the snapshot and timestamp keys."""
        return self.path / "keys" / "online"

    @property
    def tuf(self) -> Path:
        """The TUF repository."""
        return self.path / "tuf"

    @property
    def tuf_metadata(self) -> Path:
        """Signed metadata; served at ``/tuf/metadata``."""
        return self.tuf / "metadata"

    @property
    def tuf_targets(self) -> Path:
        """Target files, their SHA-256 in front of their names; served at ``/tuf/targets``."""
        return self.tuf / "targets"

    @property
    def releases(self) -> Path:
        """All releases, listed and revoked."""
        return self.path / "releases"

    def release(self, release: str) -> Path:
        """Return the folder of one release, whether it exists or not.

        Raises:
            ValueError: *release* is not like ``name@number``.
        """
        name, number = parse_release_id(release)
        return self.releases / name / str(number)

    @property
    def database(self) -> Path:
        """The fleet service's SQLite file."""
        return self.path / "fleet.db"

    @property
    def admin_key(self) -> Path:
        """The first admin key, mode 0600."""
        return self.path / "admin.key"
