"""The networks that the passes are tried on, and how good they are."""

import torch
from torch import nn

from hedgerow.task import Dataset
from hedgerow.task_module import predict


class Teacher(nn.Module):
    """Convolution, depthwise convolution in a residual branch, two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        self.depth = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1, groups=16, bias=False), nn.BatchNorm2d(16))
        self.point = nn.Sequential(nn.Conv2d(16, 16, 1, bias=False), nn.BatchNorm2d(16))
        self.down = nn.Sequential(nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU())
        self.dense, self.head = nn.Linear(32 * 16, 32), nn.Linear(32, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        seen = self.stem(image)
        seen = self.down(torch.relu(seen + self.point(torch.relu(self.depth(seen)))))
        return self.head(torch.relu(self.dense(seen.flatten(1))))


class Student(nn.Module):
    """A fifth of the teacher's parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.dense, self.head = nn.Linear(8 * 16, 24), nn.Linear(24, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.dense(self.stem(image).flatten(1))))


class Cramped(nn.Module):
    """Gives one number too few."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image.flatten(1)[:, :9]


class Loop(nn.Module):
    """Uses one square layer twice, as an unrolled recurrent network does."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.again, self.head = nn.Linear(64, 16), nn.Linear(16, 16), nn.Linear(16, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        state = torch.tanh(self.first(image.flatten(1)))
        return self.head(torch.tanh(self.again(torch.tanh(self.again(state)))))


class Reader(nn.Module):
    """A transformer layer whose attention has its width written into its code, as is usual."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.mixed = nn.Linear(8, 16), nn.Linear(16, 48)
        self.norm, self.wide, self.narrow = nn.LayerNorm(16), nn.Linear(16, 64), nn.Linear(64, 16)
        self.head = nn.Linear(16, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        rows = self.embed(image.flatten(1, 2))
        query, key, value = self.mixed(rows).chunk(3, dim=-1)
        rows = rows + torch.softmax(query @ key.transpose(-2, -1) / 4, dim=-1) @ value
        rows = rows + self.narrow(nn.functional.gelu(self.wide(self.norm(rows))))
        return self.head(rows.reshape(-1, 8, 16).mean(dim=1))


def accuracy_of(source, data: Dataset) -> float:
    return source.task.measure(predict(source.task, source.model, data.inputs), source.task.wanted(data))["accuracy"]


def parameters(model: nn.Module) -> int:
    return sum(value.numel() for value in model.parameters())


def same_weights(one: nn.Module, other: nn.Module) -> bool:
    first, second = one.state_dict(), other.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
