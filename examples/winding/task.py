"""How hot is the winding inside? A regression on what a motor's drive measures; the data are in motor.py."""

import numpy as np
import torch
from motor import CHANNELS, STEPS, UNITS, samples
from torch import nn

from hedgerow import LocalTraining, Partition, Task, TaskData, TensorSpec, Values


def data() -> TaskData:
    """Return what the training side has: 240 motors to learn from, 60 others to judge by."""
    rng = np.random.default_rng(11)
    return TaskData(train=samples(240, rng), held_out=samples(60, rng))


def scaled(measured: torch.Tensor) -> torch.Tensor:
    """Return the measurements about 0 and within 1, and the heat of the current, as a row of numbers."""
    current, speed, case, air = (measured[:, :, channel] for channel in range(4))
    rows = [(current / 10) ** 2, speed / 1500, (case - 50) / 40, (air - 20) / 20]
    return torch.cat(rows, dim=1)


class Estimator(nn.Module):
    """32 steps of four channels -> the temperature, as the case's plus what a small network adds."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(
            nn.Linear(4 * STEPS, 48), nn.ReLU(), nn.Linear(48, 24), nn.ReLU(), nn.Linear(24, 1)
        )

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Return the temperature of the winding, ``(batch, 1)``, in degrees Celsius."""
        found: torch.Tensor = self.network(rows) * 50 + 60
        return found


task = Task(
    name="winding",
    inputs=[
        TensorSpec("measured", (STEPS, 4), "float32", unit=UNITS, channels=CHANNELS, minimum=-50, maximum=3000),
    ],
    outputs=Values(["winding"], tolerance=5.0, unit="°C"),
    model=Estimator,
    data=data,
    preprocess=scaled,
    local=LocalTraining(learning_rate=0.001, batch_size=32, epochs=2),
    partition=Partition("column", column="motor"),
)
