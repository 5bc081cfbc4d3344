"""A small vision transformer (ViT; Dosovitskiy et al. 2021, arXiv 2010.11929) on handwritten digits."""

from dataclasses import replace

import numpy as np
import torch
from torch import nn

from hedgerow import Dataset, LocalTraining, Task, TaskData, TensorSpec
from hedgerow.examples.zoo.digit_rows import digit_rows

SIZE, PATCH, WIDTH, HEADS, LAYERS, CLASSES = 8, 2, 48, 4, 3, 10


class VisionTransformer(nn.Module):
    """Patches as tokens behind a class token, whose last state is classified."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, WIDTH, kernel_size=PATCH, stride=PATCH)
        self.class_token = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.positions = nn.Parameter(0.02 * torch.randn(1, (SIZE // PATCH) ** 2 + 1, WIDTH))
        layer = nn.TransformerEncoderLayer(
            WIDTH, HEADS, 2 * WIDTH, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, CLASSES)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return logits ``(batch, 10)`` of images ``(batch, 1, 8, 8)``."""
        patches = self.patches(image).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_token.expand(image.shape[0], -1, -1), patches], dim=1) + self.positions
        logits: torch.Tensor = self.head(self.norm(self.layers(x)[:, 0]))
        return logits


def noisy(digits: Dataset, rng: np.random.Generator) -> Dataset:
    """Return the digits under noise of a sixth of their range."""
    pixels = digits.inputs["pixels"]
    pixels = np.clip(pixels + rng.normal(0, 16 / 6, pixels.shape), 0, 16).astype(np.float32)
    return replace(digits, inputs={"image": pixels})


def data() -> TaskData:
    """Return scikit-learn's digits as pictures, under noise."""
    rng, clean = np.random.default_rng(64), digit_rows((1, SIZE, SIZE))
    return TaskData(train=noisy(clean.train, rng), held_out=noisy(clean.held_out, rng))


task = Task(
    name="zoo-vit",
    inputs=[TensorSpec("image", (1, SIZE, SIZE), unit="intensity", minimum=0, maximum=16)],
    labels=[str(digit) for digit in range(CLASSES)],
    model=VisionTransformer,
    data=data,
    preprocess=lambda image: image / 8 - 1,
    local=LocalTraining(learning_rate=0.05),
)
