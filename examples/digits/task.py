"""Handwritten digits (scikit-learn, 1,797 real images of 8 x 8 pixels) as a Hedgerow task."""

import numpy as np
from sklearn.datasets import load_digits
from torch import nn

from hedgerow import Dataset, LocalTraining, Partition, Task, TaskData, TensorSpec


def digits() -> Dataset:
    """Return all images in an order that mixes the writers, always the same."""
    bunch = load_digits()
    order = np.random.default_rng(7).permutation(len(bunch.target))
    images = bunch.images.astype(np.float32)[:, None]
    return Dataset({"image": images[order]}, bunch.target.astype(np.int64)[order])


def data() -> TaskData:
    """Train on 1,000 images, hold 350 out; the other 447 are what devices meet (device.py)."""
    everything = digits()
    return TaskData(train=everything.take(range(1000)), held_out=everything.take(range(1000, 1350)))


def model() -> nn.Module:
    """Return a small convolutional network: 8 x 8 pixels -> 10 logits."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(32 * 4 * 4, 64), nn.ReLU(), nn.Linear(64, 10),
    )  # fmt: skip


task = Task(
    name="digits",
    inputs=[TensorSpec("image", (1, 8, 8), "float32", unit="intensity", minimum=0, maximum=16)],
    labels=[str(digit) for digit in range(10)],
    model=model,
    data=data,
    preprocess=lambda image: image / 16,
    local=LocalTraining(learning_rate=0.1, batch_size=16, epochs=2),
    partition=Partition("dirichlet", alpha=0.5, minimum_samples=32),
)
