"""DS-CNN of MLPerf Tiny's keyword spotting benchmark, on synthetic spectra of twelve words.

Shape and parameter count are those of mlcommons/tiny, benchmark/training/keyword_spotting. Its first convolution pads
the 49 frames by 4 and 5; padding both ends by 5 gives the same 25 x 5 without an operator of its own.
"""

import numpy as np
from torch import nn

from hedgerow import Dataset, LocalTraining, Task, TaskData, TensorSpec

WORDS = ("down", "go", "left", "no", "off", "on", "right", "stop", "up", "yes", "silence", "unknown")
FRAMES, COEFFICIENTS, CHANNELS = 49, 10, 64


def _layer(convolution: nn.Conv2d) -> list[nn.Module]:
    return [convolution, nn.BatchNorm2d(convolution.out_channels), nn.ReLU()]


def model() -> nn.Module:
    """Return DS-CNN: ``(batch, 1, 49, 10)`` -> 12 logits."""
    layers = _layer(nn.Conv2d(1, CHANNELS, (10, 4), stride=2, padding=(5, 1), bias=False))
    for _ in range(4):
        layers += _layer(nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, groups=CHANNELS, bias=False))
        layers += _layer(nn.Conv2d(CHANNELS, CHANNELS, 1, bias=False))
    return nn.Sequential(*layers, nn.AvgPool2d((25, 5)), nn.Flatten(), nn.Linear(CHANNELS, len(WORDS)))


def spectra(count: int, rng: np.random.Generator) -> Dataset:
    """Return coefficients over time: each word is a pattern of its own, shifted, scaled and covered by noise."""
    patterns = np.random.default_rng(12).normal(0, 1, (len(WORDS), 7, COEFFICIENTS))
    patterns[WORDS.index("silence")] = 0
    smooth = np.repeat(patterns, 5, axis=1)  # each sound lasts five frames
    labels = rng.integers(0, len(WORDS), count)
    values = rng.normal(0, 0.8, (count, FRAMES, COEFFICIENTS))
    starts, gains = rng.integers(0, FRAMES - 35, count), rng.uniform(0.7, 1.3, count)
    for row, (label, start, gain) in enumerate(zip(labels, starts, gains, strict=True)):
        values[row, start : start + 35] += gain * smooth[label]
    return Dataset({"spectrum": np.clip(values, -8, 8)[:, None].astype(np.float32)}, labels)


def data() -> TaskData:
    """Return 1,200 spectra to train on and 400 held out."""
    rng = np.random.default_rng(49)
    return TaskData(train=spectra(1200, rng), held_out=spectra(400, rng))


task = Task(
    name="zoo-ds-cnn",
    inputs=[TensorSpec("spectrum", (1, FRAMES, COEFFICIENTS), unit="cepstral coefficient", minimum=-8, maximum=8)],
    labels=WORDS,
    model=model,
    data=data,
    local=LocalTraining(learning_rate=0.05),
)
