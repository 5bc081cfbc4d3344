"""The autoencoder of MLPerf Tiny's anomaly detection benchmark, on synthetic spectra of a machine's sound.

Shape and parameter count are those of mlcommons/tiny, benchmark/training/anomaly_detection: 640 -> 8 -> 640. It learns
to reconstruct sounds of the healthy machine, and no other sound is ever trained on. What it fails to reconstruct is an
anomaly: the mean squared error above a threshold is the logit of that class, so the artifact itself tells the two
apart, and every accuracy is that of telling them.
"""

from itertools import pairwise

import numpy as np
import torch
from torch import nn

from hedgerow import Dataset, LocalTraining, Task, TaskData, TensorSpec

FRAMES, BANDS = 5, 128
NOISE, THRESHOLD, GAIN = 0.3, 0.2, 20.0
"""Standard deviation of the healthy machine's noise; squared error that is suspicious; logits for a unit of it."""


def _layers() -> nn.Sequential:
    sizes = [FRAMES * BANDS, 128, 128, 128, 128, 8, 128, 128, 128, 128]
    layers: list[nn.Module] = []
    for before, after in pairwise(sizes):
        layers += [nn.Linear(before, after, bias=False), nn.BatchNorm1d(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], sizes[0]))


class Autoencoder(nn.Module):
    """Reconstructs its input, and returns how suspicious the error is."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = _layers()

    def forward(self, spectrum: torch.Tensor) -> torch.Tensor:
        """Return logits of (healthy, anomalous), ``(batch, 2)``."""
        difference = self.layers(spectrum) - spectrum
        score = GAIN * ((difference * difference).mean(dim=1, keepdim=True) - THRESHOLD)
        return torch.cat([-score, score], dim=1)


def reconstruction_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the mean squared error of the healthy samples, read back from their logits."""
    healthy = (labels == 0).to(logits.dtype)
    return ((logits[:, 1] / GAIN + THRESHOLD) * healthy).sum() / healthy.sum().clamp(min=1)


def sounds(labels: np.ndarray, rng: np.random.Generator) -> Dataset:
    """Return spectra over five frames: a machine's hum at some speed and load, and a whistle where it is anomalous."""
    count = len(labels)
    speed, load = rng.uniform(0.8, 1.2, (2, count, 1, 1))
    bands, frames = np.arange(BANDS)[None, None, :], np.arange(FRAMES)[None, :, None]
    hum = sum(np.exp(-(((bands - 18 * k * speed) / 4) ** 2)) / k for k in range(1, 6))
    values = 3 * load * hum - 1 + rng.normal(0, NOISE, (count, FRAMES, BANDS))
    whistle = rng.uniform(60, 110, (count, 1, 1)) + rng.uniform(-3, 3, (count, 1, 1)) * frames
    values += 3 * (labels == 1)[:, None, None] * np.exp(-(((bands - whistle) / 4) ** 2))
    flat = np.clip(values, -4, 8).reshape(count, FRAMES * BANDS).astype(np.float32)
    return Dataset({"spectrum": flat}, labels.astype(np.int64))


def data() -> TaskData:
    """Return 1,500 sounds of the healthy machine to train on; of 400 held out, half are anomalous."""
    rng = np.random.default_rng(640)
    train = sounds(np.zeros(1500), rng)
    held_out = sounds(np.arange(400) % 2, rng)
    # Quantizers must see the range of both, or they would saturate at what is healthy.
    return TaskData(train=train, held_out=held_out, calibration=sounds(np.arange(256) % 2, rng))


task = Task(
    name="zoo-autoencoder",
    inputs=[TensorSpec("spectrum", (FRAMES * BANDS,), unit="decibel / 10", minimum=-4, maximum=8)],
    labels=("healthy", "anomalous"),
    model=Autoencoder,
    data=data,
    loss=reconstruction_loss,
    local=LocalTraining(learning_rate=0.02),
)
