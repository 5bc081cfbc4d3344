"""Disks that fail, for what is written through the seam of hedgerow.client.disk."""

from pathlib import Path

from hedgerow.client.disk import RealDisk


class FullDisk(RealDisk):
    """Takes nothing while it is full."""

    is_full = True

    def write(self, path: Path, content: bytes) -> None:
        if self.is_full:
            raise OSError(28, "No space left on device")
        super().write(path, content)
