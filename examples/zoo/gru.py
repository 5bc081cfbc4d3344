"""A recurrent network (GRU) that tells gestures on a touch pad from the path of the finger."""

import numpy as np
import torch
from torch import nn

from hedgerow import Dataset, LocalTraining, Task, TaskData, TensorSpec

GESTURES = ("line", "circle", "circle back", "zigzag", "tap")
STEPS, WIDTH = 16, 64


class Gestures(nn.Module):
    """One gated recurrent layer (Cho et al. 2014, arXiv 1406.1078), read at the end of the path."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(2, WIDTH, batch_first=True)
        self.head = nn.Linear(WIDTH, len(GESTURES))

    def forward(self, path: torch.Tensor) -> torch.Tensor:
        """Return logits ``(batch, 5)`` of paths ``(batch, 16, 2)``."""
        _outputs, state = self.gru(path)
        logits: torch.Tensor = self.head(state[-1])
        return logits


def gestures(count: int, rng: np.random.Generator) -> Dataset:
    """Return paths of 16 positions, turned, scaled and covered by noise, which hides the smallest."""
    labels = rng.integers(0, len(GESTURES), count)
    time = np.linspace(0, 1, STEPS)
    circle = np.stack([np.cos(2 * np.pi * time), np.sin(2 * np.pi * time)], axis=1)
    zigzag = np.stack([2 * time - 1, np.abs((4 * time) % 2 - 1) - 0.5], axis=1)
    line = np.stack([2 * time - 1, 0 * time], axis=1)
    shapes = np.stack([line, circle, circle * [1, -1], zigzag, 0 * line])
    angle, scale = rng.uniform(-0.5, 0.5, count), rng.uniform(0.1, 1.0, (count, 1, 1))
    cosine, sine = np.cos(angle), np.sin(angle)
    turn = np.stack([np.stack([cosine, -sine], axis=1), np.stack([sine, cosine], axis=1)], axis=1)
    paths = scale * shapes[labels] @ turn + rng.normal(0, 0.25, (count, STEPS, 2))
    return Dataset({"path": np.clip(paths, -2, 2).astype(np.float32)}, labels)


def data() -> TaskData:
    """Return 2,000 gestures to train on and 600 held out."""
    rng = np.random.default_rng(16)
    return TaskData(train=gestures(2000, rng), held_out=gestures(600, rng))


task = Task(
    name="zoo-gru",
    inputs=[TensorSpec("path", (STEPS, 2), unit="half widths of the pad", minimum=-2, maximum=2)],
    labels=GESTURES,
    model=Gestures,
    data=data,
    local=LocalTraining(learning_rate=0.1),
)
