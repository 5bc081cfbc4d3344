"""Small networks with random weights and random data, on which converters and checks are tried."""

import numpy as np
import torch
from torch import nn

from hedgerow.compile.pass_models import FloatModel
from hedgerow.schema import TensorSpec
from hedgerow.task import Dataset, Task, TaskData

SAMPLES = 64


class Block(nn.Module):
    """A residual block of ResNet-8 (MLPerf Tiny, image classification)."""

    def __init__(self, taken: int, given: int, stride: int) -> None:
        super().__init__()
        self.path = nn.Sequential(
            nn.Conv2d(taken, given, 3, stride, 1, bias=False),
            nn.BatchNorm2d(given),
            nn.ReLU(),
            nn.Conv2d(given, given, 3, 1, 1, bias=False),
            nn.BatchNorm2d(given),
        )
        self.short = nn.Sequential(nn.Conv2d(taken, given, 1, stride, bias=False), nn.BatchNorm2d(given))
        self.same = stride == 1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.path(x) + (x if self.same else self.short(x)))


def resnet8() -> nn.Module:
    stem = (nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
    blocks = (Block(16, 16, 1), Block(16, 32, 2), Block(32, 64, 2))
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def depthwise() -> nn.Module:
    """Depthwise and pointwise convolutions with the activations and norms of mobile networks."""

    def block(taken: int, given: int, stride: int) -> list[nn.Module]:
        return [
            nn.Conv2d(taken, taken, 3, stride, 1, groups=taken, bias=False),
            nn.BatchNorm2d(taken),
            nn.Hardswish(),
            nn.Conv2d(taken, given, 1, bias=False),
            nn.BatchNorm2d(given),
            nn.SiLU(),
        ]

    stem = (nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU6())
    tail = (nn.MaxPool2d(2), nn.GroupNorm(4, 32), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(128, 10))
    return nn.Sequential(*stem, *block(16, 32, 1), *block(32, 32, 2), *tail)


class Transformer(nn.Module):
    """Two encoder layers with attention, layer norms and GELU."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(6, 32)
        layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, activation="gelu", norm_first=True, dropout=0.0)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.layers(self.embed(x)).mean(1))


SHAPES = {resnet8: (3, 32, 32), depthwise: (3, 32, 32), Transformer: (16, 6)}


def make_source(make, shape: tuple[int, ...] | None = None) -> FloatModel:
    """Return a network with random weights and batch statistics, and 64 random samples that it labels itself."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = make().eval()
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.2)
            layer.running_var.uniform_(0.5, 1.5)
    shape = SHAPES[make] if shape is None else shape
    values = np.random.default_rng(0).normal(size=(SAMPLES, *shape)).astype(np.float32)
    with torch.no_grad():
        labels = model(torch.from_numpy(values)).argmax(1).numpy()
    data = Dataset({"x": values}, labels)
    task = Task(
        name="random",
        inputs=(TensorSpec("x", shape),),
        labels=tuple("0123456789"),
        model=make,
        data=lambda: TaskData(data, data),
    )
    return FloatModel(task=task, model=model, calibration=data)
