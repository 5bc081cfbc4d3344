"""Make the bad release's checkpoint: every class answered as its neighbour, as after a mix-up in a label pipeline.

The weights are finite, compile well and agree with themselves, so no check before the device can find the fault. What
finds it is the comparison with the active model on real inputs.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

from hedgerow.checkpoint import load_checkpoint, save_checkpoint

__all__ = ["poison_checkpoint"]


def poison_checkpoint(source: Path, target: Path, classes: int) -> None:
    """Write a copy of a checkpoint whose output layer is rolled by one class.

    Args:
        source: The checkpoint to copy.
        target: The folder of the copy.
        classes: Number of classes; arrays with so many rows are the output layer.

    Raises:
        CheckpointError: There is no checkpoint at *source*.
        ValueError: No array has *classes* rows.
    """
    checkpoint = load_checkpoint(source)
    rows = {name for name, array in checkpoint.weights.items() if array.ndim and array.shape[0] == classes}
    if not rows:
        raise ValueError(f"no array has {classes} rows")
    rolled = {name: np.roll(array, 1, axis=0) if name in rows else array for name, array in checkpoint.weights.items()}
    save_checkpoint(target, replace(checkpoint, weights=rolled, run=f"{checkpoint.run}-poisoned"))
