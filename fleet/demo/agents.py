"""The worlds that the simulated sensors of the demo's agents look at."""

import json
from collections.abc import Iterable
from pathlib import Path

from hedgerow.durable import write_durably

__all__ = ["DRIFTED_WORLD", "move_worlds"]

DRIFTED_WORLD = {"inverted": True, "shift": 1}
"""What half of the sensors see later: every pixel one to the right, dark and bright exchanged."""


def move_worlds(state_folders: Iterable[Path]) -> None:
    """Change what these devices' sensors see, from their next image on."""
    for folder in state_folders:
        write_durably(folder / "world.json", json.dumps(DRIFTED_WORLD).encode())
