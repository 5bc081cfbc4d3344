"""ResNet-8 of MLPerf Tiny's image classification benchmark, on synthetic textures of ten directions.

Shape and parameter count are those of mlcommons/tiny, benchmark/training/image_classification; its convolutions have
biases, which BatchNorm makes superfluous here: folding gives them back.
"""

import numpy as np
import torch
from torch import nn

from hedgerow import Dataset, LocalTraining, Task, TaskData, TensorSpec

CLASSES = 10


class Block(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut, which is a 1 x 1 convolution where the shape changes."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Sequential(_convolution(channels, out, 3, stride), nn.BatchNorm2d(out), nn.ReLU())
        self.second = nn.Sequential(_convolution(out, out, 3, 1), nn.BatchNorm2d(out))
        self.shortcut = _convolution(channels, out, 1, stride, bias=True) if stride > 1 else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return ReLU(second(first(x)) + shortcut(x))."""
        return torch.relu(self.second(self.first(x)) + self.shortcut(x))


def _convolution(channels: int, out: int, size: int, stride: int, *, bias: bool = False) -> nn.Conv2d:
    return nn.Conv2d(channels, out, size, stride, padding=size // 2, bias=bias)


def model() -> nn.Module:
    """Return ResNet-8: ``(batch, 3, 32, 32)`` -> 10 logits."""
    return nn.Sequential(
        _convolution(3, 16, 3, 1), nn.BatchNorm2d(16), nn.ReLU(),
        Block(16, 16, 1), Block(16, 32, 2), Block(32, 64, 2),
        nn.AvgPool2d(8), nn.Flatten(), nn.Linear(64, CLASSES),
    )  # fmt: skip


def textures(count: int, rng: np.random.Generator, noise: float = 25) -> Dataset:
    """Return noisy coloured gratings; the class is the direction, in steps of 18 degrees."""
    labels = rng.integers(0, CLASSES, count)
    angle = (labels + rng.uniform(-0.25, 0.25, count)) * np.pi / CLASSES
    frequency, phase = rng.uniform(0.5, 1.2, count), rng.uniform(0, 2 * np.pi, count)
    rows, columns = np.mgrid[0:32, 0:32]
    along = np.cos(angle)[:, None, None] * columns + np.sin(angle)[:, None, None] * rows
    wave = np.sin(frequency[:, None, None] * along + phase[:, None, None])
    colour = rng.uniform(0.3, 1.0, (count, 3, 1, 1))
    images = 128 + 60 * colour * wave[:, None] + rng.normal(0, noise, (count, 3, 32, 32))
    return Dataset({"image": np.clip(np.round(images), 0, 255).astype(np.float32)}, labels)


def data() -> TaskData:
    """Return 1,200 textures to train on and 400 held out."""
    rng = np.random.default_rng(8)
    return TaskData(train=textures(1200, rng), held_out=textures(400, rng))


task = Task(
    name="zoo-resnet8",
    inputs=[TensorSpec("image", (3, 32, 32), unit="intensity", minimum=0, maximum=255)],
    labels=[f"{18 * index} degrees" for index in range(CLASSES)],
    model=model,
    data=data,
    preprocess=lambda image: (image - 128) / 64,
    local=LocalTraining(learning_rate=0.05),
)
