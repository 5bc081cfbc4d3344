"""Float checkpoints of releases, kept in the fleet's folder: what a retraining starts from.

They are the fleet's own and are never published; a device has its artifact and its train graph.
"""

import shutil
from pathlib import Path

from hedgerow.checkpoint import WEIGHTS_FILE, Checkpoint, load_checkpoint, save_checkpoint
from hedgerow.durable import sha256_of
from hedgerow.fleet.errors import RetrainError
from hedgerow.fleet.layout import FleetFolder
from hedgerow.manifest import Manifest, parse_release_id

__all__ = ["checkpoint_folder", "keep_checkpoint", "kept_checkpoint"]


def checkpoint_folder(folder: FleetFolder, release: str) -> Path:
    """Return where a release's checkpoint is kept, whether there is one or not."""
    name, number = parse_release_id(release)
    return folder.path / "checkpoints" / name / str(number)


def keep_checkpoint(folder: FleetFolder, manifest: Manifest, source: Path) -> Path:
    """Copy the checkpoint that a release was compiled from into the fleet's folder.

    Args:
        folder: The fleet's.
        manifest: Of the release.
        source: The checkpoint's folder.

    Returns:
        The folder of the copy.

    Raises:
        CheckpointError: There is no checkpoint at *source*, or it is damaged.
        RetrainError: It is not the one that the release was compiled from.
        OSError: The folder cannot be written.
    """
    checkpoint = load_checkpoint(source)
    _check(sha256_of(source / WEIGHTS_FILE), manifest, source)
    target = checkpoint_folder(folder, manifest.release)
    if source.resolve() != target.resolve():
        shutil.rmtree(target, ignore_errors=True)
        save_checkpoint(target, checkpoint)
    return target


def kept_checkpoint(folder: FleetFolder, manifest: Manifest) -> Checkpoint:
    """Return the checkpoint of a release.

    Raises:
        CheckpointError: None was kept, or it is damaged.
        RetrainError: What was kept is another release's.
    """
    source = checkpoint_folder(folder, manifest.release)
    checkpoint = load_checkpoint(source)
    _check(sha256_of(source / WEIGHTS_FILE), manifest, source)
    return checkpoint


def _check(found: str, manifest: Manifest, source: Path) -> None:
    expected = manifest.lineage.checkpoint_sha256
    if found != expected:
        raise RetrainError(
            f"expected the checkpoint of {manifest.release} (SHA-256 {expected[:12]}...) at {source}, found another "
            f"({found[:12]}...); give the checkpoint that the release was compiled from"
        )
