"""A one-dimensional U-Net (Ronneberger et al. 2015, arXiv 1505.04597) that finds when a wave arrives.

As PhaseNet (Zhu and Beroza 2019, arXiv 1803.03211) picks phases of earthquakes: a probability for each moment of the
record, whose sum is 1. The moment is the class.
"""

import numpy as np
import torch
from torch import nn

from hedgerow import Dataset, LocalTraining, Task, TaskData, TensorSpec

MOMENTS, CHANNELS, WIDTHS = 64, 3, (8, 16, 32)


def _pair(channels: int, out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv1d(channels, out, 7, padding=3, bias=False), nn.BatchNorm1d(out), nn.ReLU(),
        nn.Conv1d(out, out, 7, padding=3, bias=False), nn.BatchNorm1d(out), nn.ReLU(),
    )  # fmt: skip


class UNet(nn.Module):
    """Down by pooling, up by transposed convolutions, with what was seen at each size beside it."""

    def __init__(self) -> None:
        super().__init__()
        one, two, three = WIDTHS
        self.down1, self.down2, self.bottom = _pair(CHANNELS, one), _pair(one, two), _pair(two, three)
        self.pool = nn.MaxPool1d(2)
        self.up2, self.join2 = nn.ConvTranspose1d(three, two, 4, stride=2, padding=1), _pair(2 * two, two)
        self.up1, self.join1 = nn.ConvTranspose1d(two, one, 4, stride=2, padding=1), _pair(2 * one, one)
        self.head = nn.Conv1d(one, 1, 1)

    def forward(self, record: torch.Tensor) -> torch.Tensor:
        """Return a logit for each moment, ``(batch, 64)``, of records ``(batch, 3, 64)``."""
        first = self.down1(record)
        second = self.down2(self.pool(first))
        bottom = self.bottom(self.pool(second))
        second = self.join2(torch.cat([self.up2(bottom), second], dim=1))
        first = self.join1(torch.cat([self.up1(second), first], dim=1))
        logits: torch.Tensor = self.head(first).squeeze(1)
        return logits


def records(count: int, rng: np.random.Generator) -> Dataset:
    """Return ground motion along three axes: noise, and from some moment on a wave that dies away, of any size."""
    arrival = rng.integers(4, MOMENTS - 8, count)
    since = np.arange(MOMENTS)[None, :] - arrival[:, None]
    pace, decay = rng.uniform(0.9, 2.2, (count, 1)), rng.uniform(6, 20, (count, 1))
    wave = (since >= 0) * np.exp(-np.maximum(since, 0) / decay) * np.cos(pace * np.maximum(since, 0))
    direction = rng.normal(0, 1, (count, CHANNELS, 1))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    motion = rng.uniform(2, 8, (count, 1, 1)) * direction * wave[:, None] + rng.normal(
        0, 0.6, (count, CHANNELS, MOMENTS)
    )
    return Dataset({"record": np.clip(motion, -10, 10).astype(np.float32)}, arrival.astype(np.int64))


def data() -> TaskData:
    """Return 2,500 records to train on and 600 held out."""
    rng = np.random.default_rng(71)
    return TaskData(train=records(2500, rng), held_out=records(600, rng))


task = Task(
    name="zoo-unet1d",
    inputs=[TensorSpec("record", (CHANNELS, MOMENTS), unit="mm/s", minimum=-10, maximum=10)],
    labels=[f"moment {moment}" for moment in range(MOMENTS)],
    model=UNet,
    data=data,
    local=LocalTraining(learning_rate=0.05),
)
