"""What every simulator does alike: data, clients, network, steps. Needs numpy and torch only, not Hedgerow."""

import gzip
import itertools
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

__all__ = [
    "NETWORKS",
    "WORKS",
    "DataAbsentError",
    "Samples",
    "Work",
    "accuracy",
    "load_samples",
    "make_network",
    "owned_by",
    "shards",
]

CLASSES = 10
_MNIST_PIXELS = 28 * 28
_CIFAR_RECORD_BYTES = 1 + 3 * 32 * 32
_LIMIT_BYTES = 256 * 2**20


class DataAbsentError(Exception):
    """The real data set is not there; the message says where it was looked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One federated training, the same for every simulator.

    Attributes:
        name: As on the command line.
        about: One line for people.
        network: A key of :data:`NETWORKS`.
        data: ``mnist``, ``cifar10`` or ``noise``.
        clients: Registered.
        cohort: Clients a round.
        samples: Of each client.
        split: ``iid`` or ``two labels``: each client has two runs of the samples sorted by label (McMahan et al. 2017).
        batch_size: Samples of a step; it divides *samples*.
        learning_rate: Of plain SGD.
        rounds: That are timed; accuracy is measured after them.
        warm_up: Rounds before them.
        epochs: Of a client in a round; 0: a client that returns what it got.
        drawn: A client's samples are drawn when it is asked for; there may be too many clients to deal to.
        light: Its operations are so small that more threads gain nothing; a system of one process gets one thread.
    """

    name: str
    about: str
    network: str
    data: str
    clients: int
    cohort: int
    samples: int
    split: str = "iid"
    batch_size: int = 10
    learning_rate: float
    rounds: int
    warm_up: int = 1
    epochs: int = 1
    drawn: bool = False
    light: bool = True

    @property
    def steps(self) -> int:
        """Local steps of one client in one round."""
        return self.epochs * math.ceil(self.samples / self.batch_size)


@dataclass(frozen=True, slots=True)
class Samples:
    """Inputs as the network takes them (float32, normalized) and ``int64`` labels."""

    inputs: NDArray[np.float32]
    labels: NDArray[np.int64]


class ToChannelsFirst(nn.Module):
    """Photographs come with their channels last, as pfl-research keeps them."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return a view with the channels first."""
        return images.permute(0, 3, 1, 2)


def _xavier(model: nn.Module) -> nn.Module:
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(module.weight)
    return model


def pfl_cnn(*, dropout: bool = True) -> nn.Module:
    """Return ``simple_cnn`` of pfl-research's CIFAR10 benchmark (benchmarks/model/pytorch/cnn.py), Glorot weights."""
    layers = [
        ToChannelsFirst(),
        nn.Conv2d(3, 32, 3),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Dropout(0.25),
        nn.Flatten(),
        nn.Linear(64 * 14 * 14, 128),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(128, CLASSES),
    ]
    return _xavier(nn.Sequential(*(layer for layer in layers if dropout or not isinstance(layer, nn.Dropout))))


def mlp(*widths: int) -> nn.Module:
    """Return dense layers with ReLU between them."""
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


NETWORKS: Mapping[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "thousand": (lambda: mlp(100, CLASSES), (100,)),
    "logistic": (lambda: mlp(_MNIST_PIXELS, CLASSES), (_MNIST_PIXELS,)),
    "mlp-32": (lambda: mlp(_MNIST_PIXELS, 32, CLASSES), (_MNIST_PIXELS,)),
    "mlp-128": (lambda: mlp(_MNIST_PIXELS, 128, CLASSES), (_MNIST_PIXELS,)),
    "mlp-512": (lambda: mlp(_MNIST_PIXELS, 512, CLASSES), (_MNIST_PIXELS,)),
    "mlp-2048": (lambda: mlp(_MNIST_PIXELS, 2048, CLASSES), (_MNIST_PIXELS,)),
    "cnn": (pfl_cnn, (32, 32, 3)),
    "cnn-no-dropout": (lambda: pfl_cnn(dropout=False), (32, 32, 3)),
}
"""Network -> how it is made and the shape of a sample. ``thousand`` has 1,010 parameters."""

_CIFAR = Work(
    name="cifar10",
    about="pfl-research's CIFAR10 setting: 1000 users of 50 photographs, cohort 50, B=10, lr 0.1, CNN with dropout",
    network="cnn",
    data="cifar10",
    clients=1000,
    cohort=50,
    samples=50,
    learning_rate=0.1,
    rounds=10,
    light=False,
)

_CROWD = Work(
    name="thousand",
    about="1000 registered clients of 10 digits, all of them a round, one step each, logistic regression",
    network="logistic",
    data="mnist",
    clients=1000,
    cohort=1000,
    samples=10,
    learning_rate=0.03,
    rounds=10,
    warm_up=2,
    drawn=True,
)

WORKS: Mapping[str, Work] = {
    work.name: work
    for work in (
        Work(
            name="overhead",
            about="a client that returns what it got: 1000 clients, cohort 50, 1,010 parameters",
            network="thousand",
            data="noise",
            clients=1000,
            cohort=50,
            samples=10,
            learning_rate=0.1,
            rounds=50,
            warm_up=5,
            epochs=0,
        ),
        Work(
            name="lr-mnist",
            about="FLUTE's LR-MNIST: 1000 clients of 60 digits, two labels each, cohort 10, B=10, lr 0.03, 100 rounds",
            network="logistic",
            data="mnist",
            clients=1000,
            cohort=10,
            samples=60,
            split="two labels",
            learning_rate=0.03,
            rounds=100,
        ),
        _CIFAR,
        replace(_CIFAR, name="cifar10-plain", about="the same without dropout", network="cnn-no-dropout", rounds=3),
        _CROWD,
        replace(_CROWD, name="million", about="the same with 1,000,000 registered", clients=1_000_000),
    )
}
"""By name."""


def make_network(name: str, seed: int = 0) -> nn.Module:
    """Return a network with the initial weights that every simulator begins with."""
    torch.manual_seed(seed)
    return NETWORKS[name][0]()


def shards(work: Work, labels: NDArray[np.int64], seed: int = 0) -> NDArray[np.int64]:
    """Return the samples of each client, ``int64[clients, samples]``.

    A data set that is too small is dealt again and again, shuffled anew each time.
    """
    rng = np.random.default_rng(seed)
    need = work.clients * work.samples
    times = math.ceil(need / len(labels))
    if work.split == "iid":
        dealt = np.concatenate([rng.permutation(len(labels)) for _ in range(times)])[:need]
        return dealt.reshape(work.clients, work.samples)
    everything = np.tile(np.arange(len(labels)), times)[:need]
    by_label = everything[np.argsort(labels[everything], kind="stable")]
    halves = by_label.reshape(2 * work.clients, work.samples // 2)
    dealt = halves[rng.permutation(len(halves))].reshape(work.clients, work.samples)
    return rng.permuted(dealt, axis=1)


def owned_by(work: Work, labels: NDArray[np.int64], seed: int = 0) -> Callable[[int], NDArray[np.int64]]:
    """Return what tells a client's samples."""
    if work.drawn:
        return lambda client: np.random.default_rng((seed, client)).choice(len(labels), work.samples, replace=False)
    return shards(work, labels, seed).__getitem__


def accuracy(network: nn.Module, held_out: Samples) -> float:
    """Return the share of held-out samples whose highest logit is the label's."""
    network.eval()
    with torch.no_grad():
        logits = torch.cat([network(part) for part in torch.from_numpy(held_out.inputs).split(500)])
    return float((logits.argmax(1).numpy() == held_out.labels).mean())


def load_samples(work: Work) -> tuple[Samples, Samples]:
    """Return the samples to train on and those held out.

    Raises:
        DataAbsentError: The work needs real data, which is not there.
    """
    if work.data == "mnist":
        return _mnist("train"), _mnist("t10k")
    if work.data == "cifar10":
        train, held_out = _cifar("data_batch_first4000.bin.gz"), _cifar("test_batch_first1000.bin.gz")
        mean, deviation = train.inputs.mean((0, 1, 2), dtype="float64"), train.inputs.std((0, 1, 2), dtype="float64")
        return _scaled(train, mean, deviation), _scaled(held_out, mean, deviation)
    rng = np.random.default_rng(0)
    shape = NETWORKS[work.network][1]
    noise = [
        Samples(rng.normal(size=(count, *shape)).astype(np.float32), rng.integers(0, CLASSES, count))
        for count in (min(work.clients * work.samples, 4000), 100)
    ]
    return noise[0], noise[1]


def _scaled(samples: Samples, mean: NDArray[np.float64], deviation: NDArray[np.float64]) -> Samples:
    return Samples(((samples.inputs - mean) / deviation).astype(np.float32), samples.labels)


def _read(folder: str, name: str) -> bytes:
    root = Path(os.environ.get("HEDGEROW_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data")
    path = root / folder / name
    if not path.is_file():
        raise DataAbsentError(f"expected {path}, found no such file; set HEDGEROW_DATA to the folder of {folder}")
    with gzip.open(path) as file:
        return file.read(_LIMIT_BYTES)


def _mnist(part: str) -> Samples:
    images = np.frombuffer(_read("mnist", f"{part}-images-idx3-ubyte.gz"), np.uint8, offset=16)
    labels = np.frombuffer(_read("mnist", f"{part}-labels-idx1-ubyte.gz"), np.uint8, offset=8)
    return Samples((images.reshape(-1, _MNIST_PIXELS) / np.float32(255)).astype(np.float32), labels.astype(np.int64))


def _cifar(name: str) -> Samples:
    records = np.frombuffer(_read("cifar10-subset", name), np.uint8).reshape(-1, _CIFAR_RECORD_BYTES)
    images: NDArray[Any] = records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return Samples(np.ascontiguousarray(images, dtype=np.float32), records[:, 0].astype(np.int64))
