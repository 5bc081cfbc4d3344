"""What a device would say of documents before anybody sees them: its own code, from the roots that devices start from.

"Signed" is only said after that. An expired root, keys that the root does not name, or a clock that stands in the past
make a repository that looks whole to whoever signed it, and that no device accepts.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from tuf.api.metadata import TargetFile

from hedgerow.client.errors import ClientError, TransferError
from hedgerow.client.fleet_http import FleetHttp
from hedgerow.client.trust import Trust, open_trust
from hedgerow.fleet.errors import SigningError
from hedgerow.fleet.folder import FleetFolder
from hedgerow.scratch_folder import ScratchFolder

__all__ = ["check_accepted"]

_METADATA, _TARGETS = "tuf/metadata/", "tuf/targets/"


class _Unpublished(FleetHttp):
    """Answers as the fleet's server would once *documents* were written."""

    def __init__(self, folder: FleetFolder, documents: Mapping[str, bytes]) -> None:
        super().__init__("http://fleet.invalid")
        self._folder, self._documents = folder, documents

    def get(self, path: str, *, limit_bytes: int, headers: Mapping[str, str] | None = None) -> bytes:
        """Return what is new, else what is on the disk."""
        del headers
        name = path.removeprefix(_METADATA)
        try:
            found = self._documents.get(name)
            payload = found if found is not None else (self._folder.tuf_metadata / name).read_bytes()
        except FileNotFoundError:
            raise TransferError(f"GET {path}", "status 200", "status 404", status=404) from None
        if len(payload) > limit_bytes:
            raise TransferError(f"GET {path}", f"at most {limit_bytes} bytes", f"{len(payload)}")
        return payload


def check_accepted(
    folder: FleetFolder, documents: Mapping[str, bytes], files: Sequence[TargetFile] = (), release: str = "a release"
) -> None:
    """Refuse documents that a device would refuse.

    Asked are a device that was provisioned with the first root, and one with the newest.

    Args:
        folder: The fleet's, with the documents that are published already.
        documents: Name -> what is about to be written, the timestamp among them.
        files: Target files that must be found, with just these hashes and lengths, on the disk as well.
        release: What messages are to name.

    Raises:
        SigningError: A device would not accept them; nothing was written.
    """
    roots = list(_root_names(folder, documents))
    for name in dict.fromkeys((roots[0], roots[-1])):
        with _asked(folder, documents, name, release) as trust:
            for file in files:
                _check_file(folder, trust, file, release)


def _root_names(folder: FleetFolder, documents: Mapping[str, bytes]) -> Iterator[str]:
    version = 1
    while (name := f"{version}.root.json") in documents or (folder.tuf_metadata / name).is_file():
        yield name
        version += 1


@contextmanager
def _asked(folder: FleetFolder, documents: Mapping[str, bytes], root: str, release: str) -> Iterator[Trust]:
    http = _Unpublished(folder, documents)
    with ScratchFolder() as temporary:
        try:
            start = http.get(_METADATA + root, limit_bytes=2**30)
            yield open_trust(temporary.path / "tuf", start, http, release)
        except ClientError as exc:
            found = f"that one which starts from {root} refuses: {exc}"
            advice = (
                "nothing was published; set this machine's clock, renew what has expired with `hedgerow fleet renew`, "
                "or bring the keys of this fleet"
            )
            raise SigningError(folder.tuf, "metadata that a device accepts", found, advice) from exc
        finally:
            http.close()


def _check_file(folder: FleetFolder, trust: Trust, file: TargetFile, release: str) -> None:
    signed = trust.find(release, file.path)
    path = folder.tuf_targets / signed.url_path.removeprefix(_TARGETS)
    on_disk = path.stat().st_size if path.is_file() else None
    wanted = (file.hashes["sha256"], file.length)
    if (signed.sha256, signed.length_bytes) != wanted or on_disk != file.length:
        found = f"{signed.sha256[:12]}... of {signed.length_bytes} bytes, and {on_disk} bytes at {path}"
        expected = f"{file.path} as {wanted[0][:12]}... of {file.length} bytes"
        raise SigningError(folder.tuf, expected, found, "create the release again")
