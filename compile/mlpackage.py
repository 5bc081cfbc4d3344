"""Core ML packages (folders) as one file: a zip whose bytes depend on the content alone.

Two identical conversions differ in the random identities in ``Manifest.json`` and in file times. Both are replaced:
identities by ones derived from the item's path, times by the smallest that a zip can hold.
"""

import io
import json
import uuid
import zipfile
import zlib
from pathlib import Path

from hedgerow.errors import DecodeError

__all__ = ["pack", "specification", "unpack"]

_MANIFEST = "Manifest.json"
_TIME = (1980, 1, 1, 0, 0, 0)
_MAX_FILES = 1000


def pack(folder: Path) -> bytes:
    """Return the package in *folder* as a zip; equal packages give equal bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            name = path.relative_to(folder).as_posix()
            content = _stable_manifest(path.read_bytes()) if name == _MANIFEST else path.read_bytes()
            info = zipfile.ZipInfo(name, _TIME)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = 0o644 << 16
            archive.writestr(info, content, compresslevel=6)
    return buffer.getvalue()


def _stable_manifest(content: bytes) -> bytes:
    manifest = json.loads(content)
    stable = {
        identity: str(uuid.uuid5(uuid.NAMESPACE_URL, f"hedgerow/mlpackage/{entry['path']}"))
        for identity, entry in manifest["itemInfoEntries"].items()
    }
    manifest["itemInfoEntries"] = {stable[identity]: entry for identity, entry in manifest["itemInfoEntries"].items()}
    manifest["rootModelIdentifier"] = stable[manifest["rootModelIdentifier"]]
    return json.dumps(manifest, sort_keys=True, indent=4).encode()


def unpack(content: bytes, folder: Path, *, limit_bytes: int = 2 * 2**30) -> None:
    """Write the package in *content* into *folder*.

    Raises:
        DecodeError: The zip is damaged, too large, or names files outside *folder*.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entries = archive.infolist()
            total_bytes = sum(entry.file_size for entry in entries)
            if len(entries) > _MAX_FILES or total_bytes > limit_bytes:
                raise DecodeError(
                    "mlpackage", f"at most {limit_bytes} bytes", f"{total_bytes} bytes, {len(entries)} files"
                )
            for entry in entries:
                parts = Path(entry.filename).parts
                if entry.filename.startswith("/") or ".." in parts or not parts:
                    raise DecodeError("mlpackage", "files inside the package", entry.filename)
                path = folder / entry.filename
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(archive.read(entry))
    except (zipfile.BadZipFile, zlib.error, ValueError, NotImplementedError, EOFError) as exc:
        raise DecodeError("mlpackage", "a zip of a Core ML package", str(exc)) from exc


def specification(folder: Path) -> Path:
    """Return where the model's specification is in an unpacked package; its weights are in ``weights`` beside it.

    Raises:
        DecodeError: The package has none, or several.
    """
    found = sorted(folder.rglob("*.mlmodel"))
    if len(found) != 1:
        raise DecodeError("mlpackage", "one specification (*.mlmodel)", str(len(found)))
    return found[0]
