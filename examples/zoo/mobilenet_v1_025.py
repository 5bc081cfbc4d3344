"""MobileNetV1 with a quarter of the channels, of MLPerf Tiny's visual wake words benchmark: is anything in the picture?

Shape and parameter count are those of mlcommons/tiny, benchmark/training/visual_wake_words; the pictures are synthetic.
"""

import numpy as np
from torch import nn

from hedgerow import Dataset, LocalTraining, Task, TaskData, TensorSpec

SIZE = 96
LAYERS = ((8, 16, 1), (16, 32, 2), (32, 32, 1), (32, 64, 2), (64, 64, 1), (64, 128, 2), *((128, 128, 1),) * 5,
          (128, 256, 2), (256, 256, 1))  # fmt: skip
"""Channels in, channels out, stride of each separable layer."""


def _layer(convolution: nn.Conv2d) -> list[nn.Module]:
    return [convolution, nn.BatchNorm2d(convolution.out_channels), nn.ReLU()]


def model() -> nn.Module:
    """Return MobileNetV1-0.25: ``(batch, 3, 96, 96)`` -> 2 logits."""
    layers = _layer(nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False))
    for channels, out, stride in LAYERS:
        layers += _layer(nn.Conv2d(channels, channels, 3, stride, padding=1, groups=channels, bias=False))
        layers += _layer(nn.Conv2d(channels, out, 1, bias=False))
    return nn.Sequential(*layers, nn.AvgPool2d(3), nn.Flatten(), nn.Linear(256, 2))


def pictures(count: int, rng: np.random.Generator) -> Dataset:
    """Return noisy gradients; in half of them stands a disc of another colour."""
    labels = rng.integers(0, 2, count)
    rows, columns = np.mgrid[0:SIZE, 0:SIZE] / SIZE
    slope = rng.uniform(-20, 20, (count, 2, 3, 1, 1))
    base = rng.uniform(60, 190, (count, 3, 1, 1))
    images = base + slope[:, 0] * (rows - 0.5) + slope[:, 1] * (columns - 0.5)
    centre, radius = rng.uniform(0.25, 0.75, (count, 2, 1, 1)), rng.uniform(0.1, 0.25, (count, 1, 1))
    inside = (rows - centre[:, 0]) ** 2 + (columns - centre[:, 1]) ** 2 < radius**2
    colour = rng.choice([-1.0, 1.0], (count, 3, 1, 1)) * rng.uniform(50, 100, (count, 3, 1, 1))
    images += colour * (inside & (labels == 1)[:, None, None])[:, None]
    images += rng.normal(0, 12, images.shape)
    return Dataset({"image": np.clip(np.round(images), 0, 255).astype(np.float32)}, labels)


def data() -> TaskData:
    """Return 800 pictures to train on and 300 held out."""
    rng = np.random.default_rng(96)
    return TaskData(train=pictures(800, rng), held_out=pictures(300, rng))


task = Task(
    name="zoo-mobilenet-v1-025",
    inputs=[TensorSpec("image", (3, SIZE, SIZE), unit="intensity", minimum=0, maximum=255)],
    labels=("empty", "occupied"),
    model=model,
    data=data,
    preprocess=lambda image: (image - 128) / 64,
    local=LocalTraining(learning_rate=0.05),
)
