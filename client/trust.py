"""What the fleet's signatures say about a file: the TUF client workflow (TUF specification 1.0.34, section 5).

python-tuf's updater does the work; this file gives it bounded HTTP, the root that the device was provisioned with, and
turns its errors into what the agent does next. It does not download targets; download.py does, so that it can resume.

python-tuf asks this machine's clock whether a signature has expired, and a clock may stand in the past. So what it
accepted is held against the time that signatures themselves vouch for as well (:mod:`hedgerow.client.signed_time`).
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from hedgerow.client.errors import AgentSettingsError, InstallError, RejectedError, TransferError
from hedgerow.client.fleet_http import FleetHttp
from hedgerow.client.signed_time import RELEASED_AT, DatedDocument, format_time, lower_bound, read_time

__all__ = ["SignedFile", "Trust", "open_trust", "read_trusted_root"]

_ROOT_LIMIT_BYTES = 512_000
_METADATA_PATH, _TARGETS_PATH = "tuf/metadata/", "tuf/targets/"
_ROLES = ("root", "timestamp", "snapshot", "targets")


@dataclass(frozen=True, slots=True)
class SignedFile:
    """What was signed about one file.

    Attributes:
        path: Its target path.
        url_path: Its place on the server, with the hash prefix of consistent snapshots.
        length_bytes, sha256: Exactly.
        release, hardware: What its custom metadata says; empty when absent.
    """

    path: str
    url_path: str
    length_bytes: int
    sha256: str
    release: str
    hardware: str


class Trust(Protocol):
    """What is signed, at one moment: metadata is fetched once, when the trust is opened."""

    def find(self, release: str, path: str) -> SignedFile:
        """Return what was signed about *path*, which belongs to *release*.

        Raises:
            RejectedError: It is not signed, or the signature is wrong.
            InstallError: The metadata could not be fetched, is expired or is older than what was seen before.
        """


def read_trusted_root(path: Path) -> bytes:
    """Return the root metadata that the device was provisioned with.

    Raises:
        AgentSettingsError: There is none at *path*.
    """
    try:
        with path.open("rb") as file:
            root = file.read(_ROOT_LIMIT_BYTES + 1)
    except OSError as exc:
        raise AgentSettingsError(
            f"expected the fleet's root metadata at {path}, found none ({exc.strerror}); copy it from the fleet"
        ) from exc
    if len(root) > _ROOT_LIMIT_BYTES or not root.lstrip().startswith(b"{"):
        raise AgentSettingsError(f"expected TUF root metadata at {path}, found something else; copy it from the fleet")
    return root


OpenTrust = Callable[[str], Trust]
"""``release -> Trust``: fetches the metadata; the release is only for messages."""


@dataclass(slots=True)
class _TufTrust:
    """python-tuf's updater as a :class:`Trust`."""

    updater: Any
    is_consistent: bool
    found: dict[str, SignedFile] = field(default_factory=dict)

    def find(self, release: str, path: str) -> SignedFile:
        """Return what was signed about *path*."""
        info = _translated(release, lambda: self.updater.get_targetinfo(path))
        if info is None:
            raise RejectedError(
                release,
                f"a signature for {path}",
                "none (never signed, or revoked)",
                "roll out a release that is listed",
            )
        sha256 = info.hashes.get("sha256")
        if sha256 is None:
            raise RejectedError(release, f"a SHA-256 of {path}", ", ".join(sorted(info.hashes)), "sign it with SHA-256")
        folder, slash, name = path.rpartition("/")
        stored = f"{folder}{slash}{sha256}.{name}" if self.is_consistent else path
        custom = info.custom if isinstance(info.custom, Mapping) else {}
        texts = {key: value for key, value in custom.items() if isinstance(value, str)}
        return SignedFile(
            path=path,
            url_path=_TARGETS_PATH + stored,
            length_bytes=info.length,
            sha256=sha256,
            release=texts.get("release", ""),
            hardware=texts.get("hardware", ""),
        )


def _now() -> datetime:
    return datetime.now(UTC)


def open_trust(
    folder: Path,
    trusted_root: bytes,
    http: FleetHttp,
    release: str,
    *,
    clock: Callable[[], datetime] = _now,
    released_at: datetime = RELEASED_AT,
) -> Trust:
    """Fetch and verify the signed metadata.

    Args:
        folder: Keeps metadata between starts; without it, a rollback would go unnoticed.
        trusted_root: The root metadata that the device was provisioned with.
        http: The server.
        release: The release that messages name.
        clock: This machine's time; what signatures say about the time counts where the clock is behind it.
        released_at: When this agent was released; no clock is earlier.

    Raises:
        RejectedError: A signature is wrong.
        InstallError: The metadata could not be fetched, is expired or is older than what was seen before.
    """
    # python-tuf costs 9 MB, and a device that installs nothing does without it.
    from tuf.api.exceptions import DownloadError, DownloadHTTPError
    from tuf.api.metadata import Metadata, Root
    from tuf.ngclient.config import UpdaterConfig
    from tuf.ngclient.fetcher import FetcherInterface
    from tuf.ngclient.updater import Updater

    class Fetcher(FetcherInterface):
        """python-tuf's way to our HTTP client; lengths are bounded by the caller."""

        def _fetch(self, url: str) -> Iterator[bytes]:
            path = url.removeprefix(http.server).lstrip("/")
            try:
                # Metadata is small: whole in memory, within one bounded time.
                return iter((http.get(path, limit_bytes=config.targets_max_length),))
            except TransferError as exc:
                if exc.status is not None:
                    raise DownloadHTTPError(str(exc), exc.status) from exc
                raise DownloadError(str(exc)) from exc

    config = UpdaterConfig()

    def refreshed() -> Any:
        folder.mkdir(parents=True, exist_ok=True)
        updater = Updater(
            str(folder), f"{http.server}/{_METADATA_PATH}", fetcher=Fetcher(), config=config, bootstrap=trusted_root
        )
        updater.refresh()
        _check_expiry(folder, clock(), released_at)
        return updater

    updater = _translated(release, refreshed, clock)
    # What the updater keeps as the newest root that it trusts; it does not tell otherwise.
    root: Metadata[Root] = Metadata.from_file(str(folder / "root.json"))
    is_consistent = root.signed.consistent_snapshot is True
    return _TufTrust(updater, is_consistent)


def _check_expiry(folder: Path, now: datetime, released_at: datetime) -> None:
    """Refuse what has expired by the time that it is at least; the updater keeps what it trusts under these names.

    Raises:
        InstallError: A document has expired.
    """
    from tuf.api.metadata import Metadata

    documents = {}
    for role in _ROLES:
        signed = Metadata.from_file(str(folder / f"{role}.json")).signed
        documents[role] = DatedDocument(
            role=role, expires=signed.expires, signed_at=read_time(signed.unrecognized_fields)
        )
    bound = lower_bound(documents, released_at)
    time, witness = max((now, "this device's clock"), (bound.time, bound.witness))
    for document in documents.values():
        if time >= document.expires:
            raise _expired(
                f"{document.role}.json that expired at {format_time(document.expires)}; it is at least "
                f"{format_time(time)} by {witness}, and this device's clock says {format_time(now)}"
            )


def _expired(found: str) -> InstallError:
    return InstallError("the signed metadata", "fresh signatures", found, "sign it again, or set the clock")


def _translated(release: str, ask: Callable[[], Any], clock: Callable[[], datetime] = _now) -> Any:
    from tuf.api import exceptions as tuf

    try:
        return ask()
    except tuf.DownloadHTTPError as exc:
        raise TransferError(
            "the signed metadata", "status 200", f"status {exc.status_code}", status=exc.status_code
        ) from exc
    except tuf.DownloadError as exc:
        raise TransferError("the signed metadata", "an answer", str(exc)) from exc
    except tuf.ExpiredMetadataError as exc:
        raise _expired(f"expired ones ({exc}) by this device's clock, which says {format_time(clock())}") from exc
    except (tuf.BadVersionNumberError, tuf.LengthOrHashMismatchError) as exc:
        raise InstallError(
            "the signed metadata", "versions that only rise", str(exc), "serve the newest metadata, whole"
        ) from exc
    except tuf.RepositoryError as exc:
        advice = "sign it with the fleet's keys, or give this device the root metadata of this fleet (--trusted-root)"
        raise RejectedError(release, "metadata signed by the keys of the trusted root", str(exc), advice) from exc
    except OSError as exc:
        raise InstallError("the signed metadata", "a folder to keep it in", str(exc), "make room on the disk") from exc
