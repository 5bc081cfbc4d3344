"""What somebody who wears a band is doing, from sensors of unlike kind of which each is out now and then.

Twenty people, simulated: each sits, walks and runs in a way of their own, and each is a client. Six readings of an
acceleration sensor come together or not at all; so do the temperature of the skin and whether the band is tight.
"""

import numpy as np
import torch
from torch import nn

from hedgerow import Dataset, LocalTraining, Partition, Task, TaskData, TensorSpec

CHANNELS = ("x", "y", "z", "swing x", "swing y", "swing z")
ACTIVITIES = ("sit", "walk", "run")
ABSENT = {"acceleration": 0.1, "temperature": 0.15, "tight": 0.15}
"""How often each sensor is out."""
_SWINGS = np.array([[0.3, 0.3, 0.3], [2.0, 1.5, 2.5], [6.0, 4.0, 8.0]])
_MEAN = torch.tensor([0.0, 5.0, 8.0, 2.5, 2.0, 3.5])
_SPREAD = torch.tensor([4.0, 4.0, 3.0, 2.5, 2.0, 3.5])


def worn(people: int, samples: int, *, seed: int, absent: bool = True) -> Dataset:
    """Return *samples* of each of so many people, with the person in a column."""
    rng = np.random.default_rng(seed)
    person = np.repeat(np.arange(people), samples)
    activity = rng.integers(0, len(ACTIVITIES), len(person))
    own = rng.normal(1, 0.12, (people, 3))[person]
    lean = np.array([[0.5, 3.0, 9.0], [0.0, 8.0, 5.0], [2.0, 8.5, 4.0]])[activity]
    acceleration = np.concatenate(
        [
            lean + rng.normal(0, 1.2, lean.shape),
            _SWINGS[activity] * own * rng.lognormal(0, 0.35, lean.shape),
        ],
        axis=1,
    )
    temperature = 31.5 + np.array([1.2, 0.0, -1.2])[activity] + rng.normal(0, 0.9, len(person))
    tight = rng.random(len(person)) < np.array([0.3, 0.6, 0.9])[activity]
    inputs = {
        "acceleration": np.clip(acceleration, -40, 40),
        "temperature": temperature[:, None],
        "tight": tight[:, None],
    }
    arrays = {name: values.astype(np.float32) for name, values in inputs.items()}
    for name, values in arrays.items() if absent else ():
        values[rng.random(len(values)) < ABSENT[name]] = np.nan
    return Dataset(arrays, activity.astype(np.int64), {"person": person})


def data() -> TaskData:
    """Return twenty people to learn from, and ten others to judge by."""
    return TaskData(train=worn(20, 120, seed=0), held_out=worn(10, 60, seed=1))


def preprocess(acceleration: torch.Tensor, temperature: torch.Tensor, tight: torch.Tensor) -> torch.Tensor:
    """Return what came about 0 and within some units, 0 for what did not, and which sensors were out."""
    scaled = torch.cat([(acceleration - _MEAN) / _SPREAD, (temperature - 31.5) / 1.5, tight - 0.5], dim=1)
    absent = torch.isnan(scaled)
    known = torch.where(absent, torch.zeros_like(scaled), scaled)
    return torch.cat([known, absent.to(torch.float32)], dim=1)


def model() -> nn.Module:
    """Return a network of 16 numbers, of which half say what is missing."""
    return nn.Sequential(nn.Linear(16, 96), nn.ReLU(), nn.Linear(96, 48), nn.ReLU(), nn.Linear(48, len(ACTIVITIES)))


task = Task(
    name="wearable",
    inputs=[
        TensorSpec(
            "acceleration",
            (len(CHANNELS),),
            unit="m/s²",
            minimum=-40,
            maximum=40,
            kind="sensor",
            channels=CHANNELS,
            missing=True,
        ),
        TensorSpec("temperature", (1,), unit="°C", minimum=0, maximum=60, kind="sensor", missing=True),
        TensorSpec("tight", (1,), kind="flag", missing=True),
    ],
    labels=ACTIVITIES,
    model=model,
    data=data,
    preprocess=preprocess,
    local=LocalTraining(learning_rate=0.1, batch_size=16, epochs=2),
    partition=Partition("column", column="person"),
)
