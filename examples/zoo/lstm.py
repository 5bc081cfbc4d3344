"""An LSTM that tells which appliance runs from its draw on the mains, one row of readings a second."""

import numpy as np
import torch
from torch import nn

from hedgerow import Dataset, LocalTraining, Task, TaskData, TensorSpec

APPLIANCES = ("kettle", "fridge", "washer", "drill", "charger", "oven")
SECONDS, READINGS, WIDTH = 24, 3, 64


class Recogniser(nn.Module):
    """One LSTM over the readings; its last output tells the appliance."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(READINGS, WIDTH, batch_first=True)
        self.dropout = nn.Dropout(0.1)
        self.head = nn.Linear(WIDTH, len(APPLIANCES))

    def forward(self, draw: torch.Tensor) -> torch.Tensor:
        """Return logits ``(batch, 6)`` of readings ``(batch, 24, 3)``."""
        outputs, _states = self.lstm(draw)
        logits: torch.Tensor = self.head(self.dropout(outputs[:, -1]))
        return logits


def draws(count: int, rng: np.random.Generator) -> Dataset:
    """Return power, reactive power and current's peak of appliances that are switched on at some second.

    A kettle and an oven heat, the oven in pulses; a fridge's compressor and a drill begin with a surge; a washer turns
    to and fro; a charger draws less and less. Sizes overlap: what tells them apart is what happens in time.
    """
    labels = rng.integers(0, len(APPLIANCES), count)
    second = np.arange(SECONDS)[None, :] - rng.uniform(2, 8, (count, 1))
    on = (second > 0).astype(float)
    size, period = rng.uniform(0.6, 1.4, (count, 1)), rng.uniform(4, 9, (count, 1))
    surge, pulse = np.exp(-np.maximum(second, 0) / 1.5), (second % period < 0.5 * period).astype(float)
    turning = np.abs(np.sin(np.pi * second / period))
    power = np.stack(
        [1 + 0 * second, 0.7 + surge, turning, 0.6 + 1.2 * surge, 1.3 * np.exp(-second.clip(0) / 12), pulse]
    )
    reactive = np.array([0.02, 0.5, 0.45, 0.35, 0.3, 0.02])[labels, None] * rng.uniform(0.5, 1.5, (count, 1))
    drawn = on * size * power[labels, np.arange(count)]
    readings = np.stack([drawn, reactive * drawn, drawn * (1 + 0.5 * reactive)], axis=2)
    readings += rng.normal(0, 0.3, readings.shape)
    return Dataset({"draw": np.clip(readings, -2, 6).astype(np.float32)}, labels)


def data() -> TaskData:
    """Return 2,000 draws to train on and 600 held out."""
    rng = np.random.default_rng(230)
    return TaskData(train=draws(2000, rng), held_out=draws(600, rng))


task = Task(
    name="zoo-lstm",
    inputs=[TensorSpec("draw", (SECONDS, READINGS), unit="kW, kvar, 10 A", minimum=-2, maximum=6)],
    labels=APPLIANCES,
    model=Recogniser,
    data=data,
    local=LocalTraining(learning_rate=0.1),
)
