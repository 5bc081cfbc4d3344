"""What somebody came for, from what a shop's sensors saw: a list of events, padded with zeros."""

import numpy as np
import torch
from torch import nn

from hedgerow import Dataset, Task, TaskData, TensorSpec


def visits(count: int, rng: np.random.Generator) -> Dataset:
    """Return visits of 4 to 16 events: each purpose has five of its own, and two of three events belong to any."""
    purposes, lengths = rng.integers(0, 3, count), rng.integers(4, 17, (count, 1))
    own, common = rng.integers(1, 6, (count, 16)), rng.integers(1, 20, (count, 16))
    events = np.where(rng.random((count, 16)) < 0.33, own + 5 * purposes[:, None], common)
    return Dataset({"events": np.where(np.arange(16) < lengths, events, 0)}, purposes)


class Reader(nn.Module):
    """A layer of attention that does not see the padding, and the mean of what it gives."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 32, padding_idx=0)
        self.layer, self.head = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True), nn.Linear(32, 3)

    def forward(self, events: torch.Tensor) -> torch.Tensor:
        """Return logits ``(batch, 3)``."""
        padding = events == 0
        seen = self.layer(self.embed(events), src_key_padding_mask=padding).masked_fill(padding[..., None], 0)
        logits: torch.Tensor = self.head(seen.sum(1) / (~padding).sum(1, keepdim=True))
        return logits


task = Task(
    name="visits",
    inputs=[TensorSpec("events", (16,), "int64", minimum=0, maximum=19)],
    labels=["collect", "browse", "return"],
    model=Reader,
    data=lambda: TaskData(visits(2000, np.random.default_rng(1)), visits(500, np.random.default_rng(2))),
)
