"""A causal transformer that names the next token, its head tied to the embedding, as language models have it."""

import numpy as np
import torch
from torch import nn

from hedgerow import Dataset, LocalTraining, Task, TaskData, TensorSpec

TOKENS, LENGTH, WIDTH, HEADS, LAYERS = 32, 24, 48, 4, 2


class LanguageModel(nn.Module):
    """Tokens and positions, layers under a causal mask, and a head that shares the embedding's weight."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(TOKENS, WIDTH), nn.Embedding(LENGTH, WIDTH)
        layer = nn.TransformerEncoderLayer(
            WIDTH, HEADS, 4 * WIDTH, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, LAYERS, norm=nn.LayerNorm(WIDTH), enable_nested_tensor=False)
        self.head = nn.Linear(WIDTH, TOKENS, bias=False)
        nn.init.normal_(self.tokens.weight, std=WIDTH**-0.5)
        self.head.weight = self.tokens.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return logits ``(batch, 32)`` of the token after ``(batch, 24)``."""
        length = tokens.shape[1]
        mask = nn.Transformer.generate_square_subsequent_mask(length, device=tokens.device)
        x = self.tokens(tokens) + self.positions(torch.arange(length, device=tokens.device))
        logits: torch.Tensor = self.head(self.layers(x, mask=mask, is_causal=True)[:, -1])
        return logits


def sentences(count: int, rng: np.random.Generator) -> Dataset:
    """Return counting by ones, twos or threes modulo 32, from any start; one term in five is any other.

    The next term has to be concluded from all terms, since the last may be wrong; so may the one that is asked for.
    """
    start, step = rng.integers(0, TOKENS, (count, 1)), rng.integers(1, 4, (count, 1))
    terms = (start + step * np.arange(LENGTH + 1)) % TOKENS
    wrong = np.less(rng.random(terms.shape), 0.2)
    wrong[:, -1] = rng.random(count) < 0.08
    terms = np.where(wrong, rng.integers(0, TOKENS, terms.shape), terms)
    return Dataset({"tokens": terms[:, :-1].astype(np.int64)}, terms[:, -1].astype(np.int64))


def data() -> TaskData:
    """Return 4,000 sentences to train on and 600 held out."""
    rng = np.random.default_rng(32)
    return TaskData(train=sentences(4000, rng), held_out=sentences(600, rng))


task = Task(
    name="zoo-causal-transformer",
    inputs=[TensorSpec("tokens", (LENGTH,), "int64", minimum=0, maximum=TOKENS - 1)],
    labels=[f"token {index}" for index in range(TOKENS)],
    model=LanguageModel,
    data=data,
    local=LocalTraining(learning_rate=0.1),
)
