"""Networks with state, with random weights: layers whose state has its batch second, and one that keeps a window."""

from typing import ClassVar

import numpy as np
import torch
from torch import nn

from hedgerow.compile import foundation as foundations
from hedgerow.schema import TensorSpec
from hedgerow.state import State
from hedgerow.task import Dataset, Task, TaskData

FEATURES, STEPS = 12, 10


class Lstm(nn.Module):
    """Hidden and cell state of one layer in one tensor ``[2, 1, 128]``, as Silero's voice detector has them."""

    state: ClassVar = {"state": State((2, 1, 128))}

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.LSTM(FEATURES, 128), nn.Linear(128, 3)

    def forward(self, x: torch.Tensor, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        output, (hidden, cell) = self.layer(x.unsqueeze(0), (state[:1], state[1:]))
        return 4.0 * self.head(output.squeeze(0)), torch.cat([hidden, cell])


class Gru(nn.Module):
    """Two layers with one state."""

    state: ClassVar = {"h": State((2, 1, 24))}

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.GRU(FEATURES, 24, 2), nn.Linear(24, 3)

    def forward(self, x: torch.Tensor, h: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        output, h = self.layer(x.unsqueeze(0), h)
        return 4.0 * self.head(output.squeeze(0)), h


class Cells(nn.Module):
    """An LSTM cell, with its two states apart and their batch in front."""

    state: ClassVar = {"h": State((1, 24)), "c": State((1, 24))}

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.LSTMCell(FEATURES, 24), nn.Linear(24, 3)

    def forward(self, x: torch.Tensor, h: torch.Tensor, c: torch.Tensor) -> tuple[torch.Tensor, ...]:
        h, c = self.cell(x, (h, c))
        return 4.0 * self.head(h), h, c


class Window(nn.Module):
    """A convolution over the last frames, which are the state: they go in and out as they are."""

    state: ClassVar = {"frames": State((1, FEATURES, 4), batch_axis=0)}

    def __init__(self) -> None:
        super().__init__()
        self.look, self.head = nn.Conv1d(FEATURES, 32, 5), nn.Linear(32, 3)

    def forward(self, x: torch.Tensor, frames: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        seen = torch.cat([frames, x.unsqueeze(2)], dim=2)
        return 4.0 * self.head(torch.relu(self.look(seen)).squeeze(2)), seen[:, :, 1:]


def sequences(count: int, seed: int) -> Dataset:
    rng = np.random.default_rng(seed)
    return Dataset(
        {"x": rng.normal(size=(count, STEPS, FEATURES)).astype(np.float32)}, rng.integers(0, 3, (count, STEPS))
    )


def task_of(make: type[nn.Module], **changes) -> Task:
    torch.manual_seed(3)
    model = make().eval()
    parts = {
        "name": "streaming",
        "inputs": [TensorSpec("x", (FEATURES,))],
        "labels": ("a", "b", "c"),
        "model": lambda: model,
        "data": lambda: TaskData(sequences(20, 1), sequences(8, 2)),
        "state": make.state,
    }
    return Task(**{**parts, **changes})


def foundation_of(make: type[nn.Module], **changes) -> foundations.Foundation:
    task = task_of(make, **changes)
    return foundations.foundation_of(task, task.model(), task.load_data())
