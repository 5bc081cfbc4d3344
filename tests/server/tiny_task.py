"""A task that trains in milliseconds: three classes of points in a plane."""

import numpy as np
from torch import nn

from hedgerow import Dataset, LocalTraining, Task, TaskData, TensorSpec


def points(samples: int, seed: int) -> Dataset:
    """Return points round the three corners of a triangle."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, samples)
    corners = np.array([[0.0, 1.0], [1.0, -1.0], [-1.0, -1.0]])
    values = (corners[labels] + rng.normal(0, 0.2, (samples, 2))).astype(np.float32)
    return Dataset({"point": values}, labels.astype(np.int64), {"half": (values[:, 0] > 0).astype(np.int64)})


def make_task(**changes: object) -> Task:
    """Return the task, with some arguments of its own."""
    settings: dict[str, object] = {
        "name": "points",
        "inputs": [TensorSpec("point", (2,), "float32")],
        "labels": ["top", "right", "left"],
        "model": lambda: nn.Linear(2, 3),
        "data": lambda: TaskData(train=points(200, 1), held_out=points(100, 2)),
        "local": LocalTraining(learning_rate=0.3, batch_size=8, epochs=1),
    }
    return Task(**{**settings, **changes})  # type: ignore[arg-type]


task = make_task()
