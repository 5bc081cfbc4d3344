"""The durable steps of an installation as one seam, so that a test can cut the power at any of them."""

import os
import shutil
from pathlib import Path
from typing import Protocol

from hedgerow.durable import sync_folder, write_durably

__all__ = ["Disk", "RealDisk"]


class Disk(Protocol):
    """What writes slots and pointers. Each call is one step: after a power cut it has happened or it has not."""

    def write(self, path: Path, content: bytes) -> None:
        """Replace *path* by *content*, durably."""

    def move(self, source: Path, destination: Path) -> None:
        """Rename a synced file into *destination*, durably."""

    def copy(self, source: Path, destination: Path) -> None:
        """Copy *source* to *destination*, durably."""

    def clear(self, folder: Path) -> None:
        """Leave *folder* there and empty. May be cut in the middle: the folder is then partly full."""


class RealDisk:
    """The disk of this machine."""

    def write(self, path: Path, content: bytes) -> None:
        """Replace *path* by *content*, durably."""
        write_durably(path, content)

    def move(self, source: Path, destination: Path) -> None:
        """Rename a synced file into *destination*, durably."""
        destination.parent.mkdir(parents=True, exist_ok=True)
        source.replace(destination)
        sync_folder(destination.parent)

    def copy(self, source: Path, destination: Path) -> None:
        """Copy *source* to *destination*, durably."""
        destination.parent.mkdir(parents=True, exist_ok=True)
        part = destination.with_name(f".{destination.name}.part")
        with source.open("rb") as reader, part.open("wb") as writer:
            shutil.copyfileobj(reader, writer)
            writer.flush()
            os.fsync(writer.fileno())
        part.replace(destination)
        sync_folder(destination.parent)

    def clear(self, folder: Path) -> None:
        """Leave *folder* there and empty."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        sync_folder(folder.parent)
