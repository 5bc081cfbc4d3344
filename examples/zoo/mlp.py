"""A dense network on handwritten digits (scikit-learn's): 64 pixels -> 10 classes."""

from torch import nn

from hedgerow import LocalTraining, Task, TaskData, TensorSpec
from hedgerow.examples.zoo.digit_rows import digit_rows


def data() -> TaskData:
    """Return the digits, each as one row of 64 pixels."""
    return digit_rows((64,))


def model() -> nn.Module:
    """Return 64 -> 40 -> 16 -> 10 with ReLU between."""
    return nn.Sequential(nn.Linear(64, 40), nn.ReLU(), nn.Linear(40, 16), nn.ReLU(), nn.Linear(16, 10))


def student() -> nn.Module:
    """Return 64 -> 24 -> 10, which has half of the model's weights."""
    return nn.Sequential(nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 10))


task = Task(
    name="zoo-mlp",
    inputs=[TensorSpec("pixels", (64,), unit="intensity", minimum=0, maximum=16)],
    labels=[str(digit) for digit in range(10)],
    model=model,
    student=student,
    data=data,
    preprocess=lambda pixels: pixels / 16,
    local=LocalTraining(learning_rate=0.1),
)
