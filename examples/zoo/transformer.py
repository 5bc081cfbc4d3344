"""A small transformer encoder that reads handwritten digits row by row: eight tokens of eight pixels."""

import torch
from torch import nn

from hedgerow import LocalTraining, Task, TaskData, TensorSpec
from hedgerow.examples.zoo.digit_rows import digit_rows

TOKENS, WIDTH, HEADS = 8, 32, 2


class Attention(nn.Module):
    """Multi-head self-attention (Vaswani et al. 2017, arXiv 1706.03762, section 3.2) from matrix products."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.value, self.out = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the attention's output, ``(batch, tokens, width)`` as *x*."""
        query, key, value = (_heads(part(x)) for part in (self.query, self.key, self.value))
        weights = torch.softmax(query @ key.transpose(-2, -1) * (WIDTH // HEADS) ** -0.5, dim=-1)
        out: torch.Tensor = self.out((weights @ value).transpose(1, 2).reshape(-1, TOKENS, WIDTH))
        return out


def _heads(x: torch.Tensor) -> torch.Tensor:
    return x.reshape(-1, TOKENS, HEADS, WIDTH // HEADS).transpose(1, 2)


class Layer(nn.Module):
    """Attention and a dense network, each behind LayerNorm and beside a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.attention = nn.LayerNorm(WIDTH), Attention()
        self.dense = nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 64), nn.ReLU(), nn.Linear(64, WIDTH))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the layer's output, of the shape of *x*."""
        x = x + self.attention(self.norm(x))
        out: torch.Tensor = x + self.dense(x)
        return out


class Encoder(nn.Module):
    """Tokens with learned positions, two layers, the mean over tokens, logits."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(8, WIDTH)
        self.positions = nn.Parameter(torch.randn(TOKENS, WIDTH) * 0.1)
        self.layers = nn.Sequential(Layer(), Layer())
        self.head = nn.Linear(WIDTH, 10)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return logits ``(batch, 10)``."""
        logits: torch.Tensor = self.head(self.layers(self.embed(pixels) + self.positions).mean(dim=1))
        return logits


def data() -> TaskData:
    """Return the digits, each as eight rows of eight pixels."""
    return digit_rows((TOKENS, 8))


task = Task(
    name="zoo-transformer",
    inputs=[TensorSpec("pixels", (TOKENS, 8), unit="intensity", minimum=0, maximum=16)],
    labels=[str(digit) for digit in range(10)],
    model=Encoder,
    data=data,
    preprocess=lambda pixels: pixels / 8 - 1,
    local=LocalTraining(learning_rate=0.05),
)
