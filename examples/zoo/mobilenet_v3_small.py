"""MobileNetV3-small (Howard et al. 2019, arXiv 1905.02244) with half of the channels, on synthetic textures.

The blocks are the paper's, as torchvision writes them: squeeze-excite with a hard sigmoid, hardswish from the fourth
block on. The pictures are small, and with them the last layers' width.
"""

import numpy as np
import torch
from torch import nn

from hedgerow import LocalTraining, Task, TaskData, TensorSpec
from hedgerow.examples.zoo.resnet8 import textures

CLASSES, SIZE, WIDTH, LAST = 10, 32, 0.5, 128
BLOCKS = (
    (3, 16, 16, True, "RE", 2), (3, 72, 24, False, "RE", 2), (3, 88, 24, False, "RE", 1), (5, 96, 40, True, "HS", 2),
    (5, 240, 40, True, "HS", 1), (5, 240, 40, True, "HS", 1), (5, 120, 48, True, "HS", 1), (5, 144, 48, True, "HS", 1),
    (5, 288, 96, True, "HS", 2), (5, 576, 96, True, "HS", 1), (5, 576, 96, True, "HS", 1),
)  # fmt: skip
"""Kernel, expanded and given channels, squeeze-excite, activation (ReLU or hardswish) and stride of each block."""


def _divisible(channels: float) -> int:
    """Return the nearest multiple of eight that is not below nine tenths of *channels*."""
    near = max(8, int(channels + 4) // 8 * 8)
    return near + 8 if near < 0.9 * channels else near


def _layer(
    channels: int, out: int, kernel: int, stride: int, groups: int, activation: nn.Module | None
) -> nn.Sequential:
    convolution = nn.Conv2d(channels, out, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
    layers: list[nn.Module] = [convolution, nn.BatchNorm2d(out, eps=0.001)]
    return nn.Sequential(*layers, *([activation] if activation is not None else []))


class SqueezeExcite(nn.Module):
    """Each channel times a factor between 0 and 1 that depends on the means of all."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        squeezed = _divisible(channels / 4)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.squeeze, self.excite = nn.Conv2d(channels, squeezed, 1), nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return *x*, each channel scaled."""
        factors = nn.functional.hardsigmoid(self.excite(torch.relu(self.squeeze(self.pool(x)))))
        return factors * x


class InvertedResidual(nn.Module):
    """Expand, filter each channel, weigh the channels, project; beside a shortcut where the shape stays."""

    def __init__(self, channels: int, kernel: int, expanded: int, out: int, se: bool, kind: str, stride: int) -> None:
        super().__init__()
        act = nn.Hardswish if kind == "HS" else nn.ReLU
        layers: list[nn.Module] = []
        if expanded != channels:
            layers.append(_layer(channels, expanded, 1, 1, 1, act(inplace=True)))
        layers.append(_layer(expanded, expanded, kernel, stride, expanded, act(inplace=True)))
        if se:
            layers.append(SqueezeExcite(expanded))
        layers.append(_layer(expanded, out, 1, 1, 1, None))
        self.block = nn.Sequential(*layers)
        self.use_shortcut = stride == 1 and channels == out

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the block's output."""
        result: torch.Tensor = self.block(x)
        if self.use_shortcut:
            result += x
        return result


class MobileNetV3(nn.Module):
    """MobileNetV3-small: ``(batch, 3, 32, 32)`` -> 10 logits."""

    def __init__(self) -> None:
        super().__init__()
        channels = _divisible(16 * WIDTH)
        layers: list[nn.Module] = [_layer(3, channels, 3, 2, 1, nn.Hardswish(inplace=True))]
        for kernel, expanded, out, se, kind, stride in BLOCKS:
            wide, given = _divisible(expanded * WIDTH), _divisible(out * WIDTH)
            layers.append(InvertedResidual(channels, kernel, wide, given, se, kind, stride))
            channels = given
        layers.append(_layer(channels, 6 * channels, 1, 1, 1, nn.Hardswish(inplace=True)))
        self.features, self.avgpool = nn.Sequential(*layers), nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(
            nn.Linear(6 * channels, LAST), nn.Hardswish(inplace=True), nn.Dropout(0.2), nn.Linear(LAST, CLASSES)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        logits: torch.Tensor = self.classifier(torch.flatten(self.avgpool(self.features(x)), 1))
        return logits


def data() -> TaskData:
    """Return 1,500 textures under strong noise to train on and 400 held out."""
    rng = np.random.default_rng(3)
    return TaskData(train=textures(1500, rng, noise=35), held_out=textures(400, rng, noise=35))


task = Task(
    name="zoo-mobilenet-v3-small",
    inputs=[TensorSpec("image", (3, SIZE, SIZE), unit="intensity", minimum=0, maximum=255)],
    labels=[f"{18 * index} degrees" for index in range(CLASSES)],
    model=MobileNetV3,
    data=data,
    preprocess=lambda image: (image - 128) / 64,
    local=LocalTraining(learning_rate=0.05),
)
