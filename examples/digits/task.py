"""Handwritten digits as a Hedgerow task; the images are in digits_data.py, the devices' sensor in device.py."""

from digits_data import HELD_OUT, PARTITION, TRAIN, digits
from torch import nn

from hedgerow import LocalTraining, Task, TaskData, TensorSpec


def data() -> TaskData:
    """Return what the training side has."""
    everything = digits()
    return TaskData(train=everything.take(TRAIN), held_out=everything.take(HELD_OUT))


def model() -> nn.Module:
    """Return a small convolutional network: 8 x 8 pixels -> 10 logits."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(32 * 4 * 4, 128), nn.ReLU(), nn.Linear(128, 10),
    )  # fmt: skip


task = Task(
    name="digits",
    inputs=[TensorSpec("image", (1, 8, 8), "float32", unit="intensity", minimum=0, maximum=16)],
    labels=[str(digit) for digit in range(10)],
    model=model,
    data=data,
    preprocess=lambda image: image / 16,
    local=LocalTraining(learning_rate=0.2, batch_size=16, epochs=3),
    partition=PARTITION,
)
