"""A convolutional network over time, on synthetic accelerations of five activities."""

import numpy as np
from torch import nn

from hedgerow import Dataset, LocalTraining, Task, TaskData, TensorSpec

ACTIVITIES = {"resting": (0.0, 0.0), "walking": (1.8, 0.35), "running": (2.8, 0.9), "cycling": (1.0, 0.25),
              "climbing": (1.4, 0.7)}  # fmt: skip
"""Name -> steps a second and strength in g."""
SAMPLES, RATE_HZ = 128, 50


def model() -> nn.Module:
    """Return three convolutions and a mean over time: ``(batch, 3, 128)`` -> 5 logits."""
    return nn.Sequential(
        nn.Conv1d(3, 16, 5, stride=2, padding=2), nn.ReLU(),
        nn.Conv1d(16, 32, 5, stride=2, padding=2), nn.ReLU(),
        nn.Conv1d(32, 32, 3, stride=2, padding=1), nn.ReLU(),
        nn.AvgPool1d(16), nn.Flatten(), nn.Linear(32, len(ACTIVITIES)),
    )  # fmt: skip


def motions(count: int, rng: np.random.Generator) -> Dataset:
    """Return accelerations: gravity in some direction, steps with their second harmonic, and noise."""
    labels = rng.integers(0, len(ACTIVITIES), count)
    pace, strength = np.array(list(ACTIVITIES.values()))[labels].T
    pace, strength = pace * rng.uniform(0.9, 1.1, count), strength * rng.uniform(0.8, 1.2, count)
    turns = 2 * np.pi * pace[:, None] * np.arange(SAMPLES) / RATE_HZ + rng.uniform(0, 2 * np.pi, (count, 1))
    steps = np.sin(turns) + 0.5 * np.sin(2 * turns)
    direction = rng.normal(0, 1, (count, 3, 1))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    values = direction * (1 + strength[:, None] * steps)[:, None] + rng.normal(0, 0.05, (count, 3, SAMPLES))
    return Dataset({"acceleration": np.clip(values, -4, 4).astype(np.float32)}, labels)


def data() -> TaskData:
    """Return 3,000 motions to train on and 600 held out."""
    rng = np.random.default_rng(50)
    return TaskData(train=motions(3000, rng), held_out=motions(600, rng))


task = Task(
    name="zoo-cnn1d",
    inputs=[TensorSpec("acceleration", (3, SAMPLES), unit="g", minimum=-4, maximum=4)],
    labels=tuple(ACTIVITIES),
    model=model,
    data=data,
    local=LocalTraining(learning_rate=0.05),
)
