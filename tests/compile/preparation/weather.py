"""Eight sensors of a weather post, of unlike size, of which some say nothing; a broken wind vane is to be found."""

import numpy as np
import torch
from torch import nn

from hedgerow import Dataset, LocalTraining, Task, TaskData, TensorSpec

CHANNELS = ("pressure", "wind", "gust", "rain", "dew", "light", "hum", "drift")
UNITS = ("Pa", "m/s", "m/s", "mm", "K", "lx", "%", "1")
MEAN = np.array([101_300, 5, 8, 0.2, 280, 20_000, 60, 0.01], np.float32)
SPREAD = np.array([900, 2, 3, 0.5, 6, 9_000, 15, 0.004], np.float32)


def drawn(count: int, *, seed: int, absent: float = 0.15) -> Dataset:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, count)
    normal = rng.normal(size=(count, len(CHANNELS)))
    normal[:, 1] += 2.2 * labels
    normal[:, 7] -= 2.2 * labels
    values = (MEAN + SPREAD * normal).astype(np.float32)
    values[rng.random(values.shape) < absent] = np.nan
    return Dataset({"readings": values}, labels.astype(np.int64))


def data() -> TaskData:
    return TaskData(train=drawn(2000, seed=0), held_out=drawn(400, seed=1))


def preprocess(readings: torch.Tensor) -> torch.Tensor:
    absent = torch.isnan(readings)
    known = (readings - torch.from_numpy(MEAN)) / torch.from_numpy(SPREAD)
    return torch.cat([torch.where(absent, torch.zeros_like(known), known), absent.to(torch.float32)], dim=1)


def by_nan_to_num(readings: torch.Tensor) -> torch.Tensor:
    known = torch.nan_to_num((readings - torch.from_numpy(MEAN)) / torch.from_numpy(SPREAD), nan=0.0)
    return torch.cat([known.clamp(-8, 8), torch.isnan(readings).to(torch.float32)], dim=1)


def model() -> nn.Module:
    return nn.Sequential(nn.Linear(16, 96), nn.ReLU(), nn.Linear(96, 48), nn.ReLU(), nn.Linear(48, 2))


def make_task(preprocess=preprocess, **changes) -> Task:
    return Task(
        **{
            "name": "weather",
            "inputs": (
                TensorSpec("readings", (len(CHANNELS),), unit=UNITS, kind="sensor", channels=CHANNELS, missing=True),
            ),
            "labels": ("sound", "broken"),
            "model": model,
            "data": data,
            "preprocess": preprocess,
            "local": LocalTraining(learning_rate=0.1, batch_size=32, epochs=2),
            **changes,
        }
    )


task = make_task()
other_task = make_task(by_nan_to_num)
