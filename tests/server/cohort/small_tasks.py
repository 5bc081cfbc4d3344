"""Tasks of every kind of model that engines must train alike, small enough for tests; with data and unequal clients."""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import nn

from hedgerow.partition import Partition
from hedgerow.schema import TensorSpec
from hedgerow.server.cohort.clients import ClientSlices
from hedgerow.task import Dataset, LocalTraining, Task, TaskData

CLASSES = 4
SIZES = (13, 8, 21, 5, 16, 10, 9, 8)


def mlp() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(300, 32), nn.ReLU(), nn.Linear(32, CLASSES))


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 12, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(108, 16), nn.ReLU(), nn.Linear(16, CLASSES),
    )  # fmt: skip


def dropout_cnn() -> nn.Module:
    """Drop in feature maps too, whose layout differs between the plain loop and the traced step."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 12, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.25), nn.Flatten(),
        nn.Linear(108, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, CLASSES),
    )  # fmt: skip


class _Block(nn.Module):
    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.one, self.one_norm = nn.Conv2d(channels, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out)
        self.two, self.two_norm = nn.Conv2d(out, out, 3, 1, 1, bias=False), nn.BatchNorm2d(out)
        self.skip = nn.Conv2d(channels, out, 1, stride) if stride > 1 else nn.Identity()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        inner = torch.relu(self.one_norm(self.one(images)))
        return torch.relu(self.two_norm(self.two(inner)) + self.skip(images))


class ResNet8(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 8, 3, 1, 1, bias=False), nn.BatchNorm2d(8)
        self.blocks = nn.Sequential(_Block(8, 8, 1), _Block(8, 16, 2), _Block(16, 32, 2))
        self.head = nn.Linear(32, CLASSES)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.blocks(torch.relu(self.norm(self.first(images)))).mean((2, 3)))


class Gru(nn.Module):
    """Read an image row by row: too many steps for a graph to pay."""

    def __init__(self) -> None:
        super().__init__()
        self.gru, self.head = nn.GRU(10, 16, batch_first=True), nn.Linear(16, CLASSES)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.gru(images.flatten(1, 2))[0][:, -1])


class Tied(nn.Module):
    """An encoder and its transpose, one parameter under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(300, 300, bias=False), nn.Linear(300, 300)
        self.up.weight = self.down.weight
        self.head = nn.Linear(300, CLASSES)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(torch.tanh(self.up(torch.relu(self.down(images.flatten(1))))))


class Frozen(nn.Module):
    """A frozen layer, and one that the loss does not depend on."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head, self.idle = nn.Linear(300, 24), nn.Linear(24, CLASSES), nn.Linear(2, 2)
        self.body.requires_grad_(False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.body(images.flatten(1))))


MODELS: Mapping[str, Callable[[], nn.Module]] = {
    "mlp": mlp, "cnn": cnn, "dropout": dropout_cnn, "resnet8": ResNet8, "gru": Gru, "tied": Tied, "frozen": Frozen,
}  # fmt: skip


def images(samples: int, seed: int) -> Dataset:
    """Return noise round one prototype a class, 10 x 10 pixels of 3 colours."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, samples)
    prototypes = np.random.default_rng(1).normal(size=(CLASSES, 3, 10, 10))
    values = (prototypes[labels] + rng.normal(size=(samples, 3, 10, 10))).astype(np.float32)
    return Dataset({"image": values}, labels.astype(np.int64))


def image_task(model: Callable[[], nn.Module], **changes: object) -> Task:
    """Return a task for *model*; everything in it is a closure, which no pickle could carry."""
    settings: dict[str, object] = {
        "name": "small",
        "inputs": [TensorSpec("image", (3, 10, 10), "float32")],
        "labels": [f"class {number}" for number in range(CLASSES)],
        "model": lambda: model(),  # noqa: PLW0108 - on purpose no name of a module
        "data": lambda: TaskData(train=images(sum(SIZES), 2), held_out=images(20, 3)),
        "local": LocalTraining(learning_rate=0.05, batch_size=8, epochs=1),
        "partition": Partition("iid"),
    }
    return Task(**{**settings, **changes})  # type: ignore[arg-type]


def unequal_clients() -> ClientSlices:
    """Return clients of :data:`SIZES` samples."""
    return ClientSlices.of_shards(np.split(np.arange(sum(SIZES)), np.cumsum(SIZES)[:-1]))


def start_weights(task: Task, seed: int = 5) -> dict[str, torch.Tensor]:
    """Return the weights of a new model."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return {name: tensor.clone() for name, tensor in task.model().state_dict().items()}
