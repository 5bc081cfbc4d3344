"""Which of three tones a short sound holds, by its log-mel bands."""

import numpy as np
import torch
from torch import nn

from hedgerow import Dataset, LocalTraining, Task, TaskData, TensorSpec
from hedgerow.front_ends import LogMel, Spectrum, frames

RATE, SAMPLES = 8000, 1024
TONES = (400.0, 900.0, 2100.0)
log_mel = LogMel(RATE, length=256, hop=128, bands=16, floor=1e-4)
spectrum = Spectrum(128)


def drawn(count: int, *, seed: int) -> Dataset:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, len(TONES), count)
    hz = np.array(TONES)[labels] * rng.uniform(0.9, 1.1, count)
    loudness, phase = 10 ** rng.uniform(-2, 0, count), rng.uniform(0, 2 * np.pi, count)
    time = np.arange(SAMPLES) / RATE
    sound = np.sin(2 * np.pi * hz[:, None] * time + phase[:, None]) + 0.7 * rng.normal(size=(count, SAMPLES))
    return Dataset({"sound": (loudness[:, None] * sound).astype(np.float32)}, labels.astype(np.int64))


def data() -> TaskData:
    return TaskData(train=drawn(900, seed=0), held_out=drawn(300, seed=1))


def prepared(sound: torch.Tensor) -> torch.Tensor:
    return (log_mel(sound) + 2) / 4


def prepared_by_spectrum(sound: torch.Tensor) -> torch.Tensor:
    return torch.log(spectrum(frames(sound, 128, 128)) + 1e-2) / 4


def model() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(7 * 16, 64), nn.ReLU(), nn.Linear(64, len(TONES)))


def spectrum_model() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(8 * 65, 64), nn.ReLU(), nn.Linear(64, len(TONES)))


def make_task(**changes) -> Task:
    return Task(
        **{
            "name": "tones",
            "inputs": (TensorSpec("sound", (SAMPLES,), kind="audio", minimum=-8.0, maximum=8.0),),
            "labels": ("low", "middle", "high"),
            "model": model,
            "data": data,
            "preprocess": prepared,
            "local": LocalTraining(learning_rate=0.05, batch_size=32, epochs=2),
            **changes,
        }
    )


task = make_task()
spectrum_task = make_task(preprocess=prepared_by_spectrum, model=spectrum_model)
