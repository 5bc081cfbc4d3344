"""Does the pump sound as it always did? An autoencoder of its spectrum; the data are in machine.py."""

import numpy as np
import torch
from machine import CONDITIONS, SAMPLES, windows
from numpy.typing import NDArray
from torch import nn

from hedgerow import Dataset, LocalTraining, Reconstruction, Task, TaskData, TensorSpec
from hedgerow.front_ends import Spectrum, frames

PART = 128
SPECTRUM = Spectrum(PART, squared=True)
BANDS = SPECTRUM.bins


def of_healthy(vibration: NDArray[np.float32]) -> Dataset:
    """Return windows of a healthy pump, which need no target values."""
    return Dataset({"vibration": vibration}, None, {"condition": np.full(len(vibration), "healthy")})


def data() -> TaskData:
    """Return what the training side has: healthy windows to learn from, of each condition some to judge by."""
    rng = np.random.default_rng(7)
    train = windows(4000, "healthy", rng)
    parts = [windows(600 if name == "healthy" else 100, name, rng) for name in CONDITIONS]
    is_anomalous = np.repeat([name != "healthy" for name in CONDITIONS], [len(part) for part in parts])
    condition = np.repeat(CONDITIONS, [len(part) for part in parts])
    held_out = Dataset({"vibration": np.concatenate(parts)}, is_anomalous.astype(np.int64), {"condition": condition})
    # Integers that have only met what is healthy cannot tell how far beyond it a fault is.
    loud = np.concatenate([windows(64, "healthy", rng, gain=gain) for gain in (1.0, 1.5, 2.0, 3.0)])
    return TaskData(of_healthy(train), held_out, calibration=of_healthy(loud))


def spectrum(vibration: torch.Tensor) -> torch.Tensor:
    """Return the logarithm of the power in 65 bands, the mean of seven parts, ``(batch, 65)``, within 1 of 0."""
    power = SPECTRUM(frames(vibration, PART, PART // 2)).mean(dim=1)
    return (torch.log(power + 1e-4) + 2) / 6


def model() -> nn.Module:
    """Return an autoencoder: 65 bands -> 6 numbers -> 65 bands."""
    return nn.Sequential(
        nn.Linear(BANDS, 32), nn.ReLU(), nn.Linear(32, 6), nn.ReLU(),
        nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, BANDS),
    )  # fmt: skip


task = Task(
    name="vibration",
    inputs=[TensorSpec("vibration", (SAMPLES,), "float32", unit="g", kind="audio", minimum=-50, maximum=50)],
    outputs=Reconstruction(false_alarm_rate=0.02),
    model=model,
    data=data,
    preprocess=spectrum,
    subgroup="condition",
    local=LocalTraining(learning_rate=0.5, batch_size=32, epochs=3),
)
