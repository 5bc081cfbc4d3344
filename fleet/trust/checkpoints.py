"""Float checkpoints of releases, kept in the fleet's folder: what a retraining starts from.

They are the fleet's own and are never published; a device has its artifact and its train graph.
"""

import shutil
from pathlib import Path

from hedgerow.checkpoint import WEIGHTS_FILE, Checkpoint, load_checkpoint, save_checkpoint
from hedgerow.durable import sha256_of
from hedgerow.fleet.errors import RetrainError
from hedgerow.fleet.folder import FleetFolder
from hedgerow.manifest.release import Manifest, parse_release_id

__all__ = ["check_checkpoint", "checkpoint_folder", "keep_checkpoint", "kept_checkpoint"]


def checkpoint_folder(folder: FleetFolder, release: str) -> Path:
    """Return where a release's checkpoint is kept, whether there is one or not."""
    name, number = parse_release_id(release)
    return folder.path / "checkpoints" / name / str(number)


def keep_checkpoint(folder: FleetFolder, manifest: Manifest, source: Path) -> Path:
    """Copy the checkpoint that a release was compiled from into the fleet's folder.

    Args:
        folder: The fleet's.
        manifest: The release's.
        source: The checkpoint's folder.

    Returns:
        The folder of the copy.

    Raises:
        CheckpointError: There is no checkpoint at *source*, or it is damaged.
        RetrainError: It is not the one that the release was compiled from.
        OSError: The folder cannot be written.
    """
    checkpoint = load_checkpoint(source)
    check_checkpoint(source, manifest.lineage.checkpoint_sha256, manifest.release)
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
    check_checkpoint(source, manifest.lineage.checkpoint_sha256, manifest.release)
    return checkpoint


def check_checkpoint(source: Path, sha256: str, compiled: str) -> None:
    """Refuse a checkpoint whose weights are not those that something was compiled from.

    Args:
        source: The checkpoint's folder.
        sha256: Hash of the weights that were compiled.
        compiled: What was compiled from them, for the message.

    Raises:
        RetrainError: They are others.
        CheckpointError: There is no checkpoint at *source*, or it is damaged.
    """
    load_checkpoint(source)
    found = sha256_of(source / WEIGHTS_FILE)
    if found != sha256:
        raise RetrainError(
            f"expected the checkpoint of {compiled} (SHA-256 {sha256[:12]}...) at {source}, found another "
            f"({found[:12]}...); give the checkpoint that it was compiled from"
        )
