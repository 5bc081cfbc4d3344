"""A voice detector that listens all the time: frames of a spectrum in, its LSTM's state in and out.

Each prediction is of one frame of 16 bands. Whether somebody speaks cannot be told from one frame: speech comes in
syllables, four to eight frames apart, in bands that move; noise is as loud and does not. So the model keeps a state of
``[2, 1, 32]``, the hidden and the cell state of one layer, as Silero's detector keeps ``[2, 1, 128]``.
"""

import numpy as np
import torch
from torch import nn

from hedgerow import Dataset, LocalTraining, State, Task, TaskData, TensorSpec

BANDS, STEPS, WIDTH = 16, 30, 32


class Detector(nn.Module):
    """A layer that looks at a frame, and an LSTM that remembers."""

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        self.look = nn.Linear(BANDS, width)
        self.remember = nn.LSTM(width, width)
        self.head = nn.Linear(width, 2)

    def forward(self, frame: torch.Tensor, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return logits ``(batch, 2)`` and the new state for frames ``(batch, 16)`` and a state ``(2, batch, 32)``."""
        seen = torch.relu(self.look(frame))
        output, (hidden, cell) = self.remember(seen.unsqueeze(0), (state[:1], state[1:]))
        logits: torch.Tensor = self.head(output.squeeze(0))
        return logits, torch.cat([hidden, cell])


def recordings(count: int, rng: np.random.Generator) -> Dataset:
    """Return spectra in which somebody begins to speak, stops, or says nothing; the class of each frame.

    Speech is three formants of changing bands whose loudness follows syllables of 4 to 8 frames; below it lies noise of
    a level of its own in each band, and clicks.
    """
    bands, time = np.arange(BANDS), np.arange(STEPS)
    begin = rng.integers(0, STEPS, count)
    length = rng.integers(12, STEPS, count) * (rng.random(count) < 0.8)
    speaks = (time >= begin[:, None]) & (time < (begin + length)[:, None])
    rate, phase = rng.uniform(4, 8, (count, 1)), rng.uniform(0, 2 * np.pi, (count, 1))
    syllables = 0.5 + 0.5 * np.sin(2 * np.pi * time / rate + phase)
    centre = rng.uniform(1, BANDS - 2, (count, 3, 1)) + np.cumsum(rng.normal(0, 0.5, (count, 3, STEPS)), axis=2)
    formants = np.exp(-((bands - centre[..., None]) ** 2) / 2).sum(axis=1)
    level = rng.uniform(0, 1.2, (count, 1, BANDS))
    frames = level + rng.normal(0, 0.25, (count, STEPS, BANDS)) + (speaks * syllables)[..., None] * formants
    frames += 2 * (rng.random((count, STEPS, 1)) < 0.05)
    return Dataset({"frame": np.clip(frames, -2, 6).astype(np.float32)}, speaks.astype(np.int64))


def data() -> TaskData:
    """Return 800 recordings of 30 frames to train on and 300 held out."""
    rng = np.random.default_rng(21)
    return TaskData(train=recordings(800, rng), held_out=recordings(300, rng))


task = Task(
    name="zoo-streaming",
    inputs=[TensorSpec("frame", (BANDS,), unit="log energy", minimum=-2, maximum=6)],
    labels=("silence", "speech"),
    model=Detector,
    data=data,
    state={"state": State((2, 1, WIDTH))},
    local=LocalTraining(learning_rate=0.5, batch_size=16),
)
