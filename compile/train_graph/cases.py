"""Small models that together hold every layer, loss and optimizer that train graphs translate.

Each is as small as shows the translation; the parity table and the tests go through them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from hedgerow.compile.pass_models import FloatModel
from hedgerow.compile.train_graph.options import StepOptions
from hedgerow.outputs import Classes, Custom, Labels, Output, Reconstruction, Tokens, Values
from hedgerow.schema import TensorSpec
from hedgerow.task import Dataset, LocalTraining, Loss, Task, TaskData

__all__ = ["CASES", "Case", "make_source"]

_BATCH, _BATCHES, _CLASSES, _TOKENS = 4, 3, 3, 11
_PLAIN = StepOptions()
_IMAGE = TensorSpec("x", (2, 8, 8))
_SIGNAL = TensorSpec("x", (3, 16))
_SERIES = TensorSpec("x", (6, 5))
_VECTOR = TensorSpec("x", (12,))
_WORDS = TensorSpec("x", (6,), "int64")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One model and how it trains.

    Attributes:
        kind: ``layer``, ``loss``, ``output``, ``optimizer``, ``choice`` (of what trains) or ``network``.
        model: Makes it.
        given: Its one input.
        options, loss, rate: Of its training.
        outputs: What it gives; None: one of three classes.
        wanted: Draws target values of so many samples; None: classes.
    """

    kind: str
    model: Callable[[], nn.Module]
    given: TensorSpec
    options: StepOptions = _PLAIN
    loss: str | Loss | Mapping[str, str | Loss] | None = "cross_entropy"
    rate: float = 0.05
    outputs: Output | Mapping[str, Output] | None = None
    wanted: Callable[[np.random.Generator, int], NDArray[Any] | Mapping[str, NDArray[Any]] | None] | None = None


class _Attention(nn.Module):
    """Self-attention over a series, then a classifier of the mean."""

    def __init__(self) -> None:
        super().__init__()
        self.inside, self.head = nn.Linear(5, 8), nn.Linear(8, _CLASSES)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        inside = self.inside(values)
        found: torch.Tensor = self.head(self.attention(inside, inside, inside, need_weights=False)[0].mean(1))
        return found


class _Transformer(nn.Module):
    """Embedded words, one encoder layer, a classifier of the mean."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.head = nn.Embedding(_TOKENS, 8), nn.Linear(8, _CLASSES)
        self.encoder = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, activation="gelu", dropout=0.0)

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.head(self.encoder(self.words(words)).mean(1))
        return found


class _Recurrent(nn.Module):
    """A recurrent layer, then a classifier of the last step."""

    def __init__(self, layer: nn.Module, width: int) -> None:
        super().__init__()
        self.layer, self.head = layer, nn.Linear(width, _CLASSES)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.head(self.layer(values)[0][:, -1])
        return found


class _Tied(nn.Module):
    """An embedding whose table is the weight of a layer behind it, too, and a layer that runs twice."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.twice = nn.Embedding(_TOKENS, 8), nn.Linear(8, 8)
        self.back, self.head = nn.Linear(8, _TOKENS, bias=False), nn.Linear(_TOKENS, _CLASSES)
        self.back.weight = self.words.weight

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        inside = self.twice(torch.tanh(self.twice(self.words(words).mean(1))))
        found: torch.Tensor = self.head(torch.tanh(self.back(torch.tanh(inside))))
        return found


class _Residual(nn.Module):
    """A block with a shortcut."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.main = nn.Sequential(
            nn.Conv2d(before, after, 3, stride, 1, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(),
            nn.Conv2d(after, after, 3, 1, 1, bias=False),
            nn.BatchNorm2d(after),
        )
        self.short = nn.Conv2d(before, after, 1, stride) if stride > 1 else nn.Identity()

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.main(values) + self.short(values))


class _Adapted(nn.Module):
    """A linear layer with a low-rank adapter (LoRA: Hu et al. 2021, arXiv 2106.09685)."""

    def __init__(self, before: int, after: int, rank: int) -> None:
        super().__init__()
        self.base = nn.Linear(before, after)
        self.lora_down, self.lora_up = nn.Linear(before, rank, bias=False), nn.Linear(rank, after, bias=False)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.base(values) + self.lora_up(self.lora_down(values))
        return found


class _Both(nn.Module):
    """Two heads on one trunk: logits of classes, and numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk, self.classes, self.numbers = nn.Linear(12, 8), nn.Linear(8, _CLASSES), nn.Linear(8, 2)

    def forward(self, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        inside = torch.tanh(self.trunk(values))
        return self.classes(inside), self.numbers(inside)


class _Rebuilt(nn.Module):
    """An autoencoder, and beside it the logits of classes."""

    def __init__(self) -> None:
        super().__init__()
        self.inside, self.back, self.classes = nn.Linear(12, 4), nn.Linear(4, 12), nn.Linear(4, _CLASSES)

    def forward(self, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        inside = torch.tanh(self.inside(values))
        return self.back(inside), self.classes(inside)


class _Written(nn.Module):
    """A token at each of six positions."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.head = nn.Embedding(_TOKENS, 8), nn.Linear(8, _TOKENS)

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.head(torch.tanh(self.words(words)))
        return found


def _head(features: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(features, _CLASSES))


def _image_net(*layers: nn.Module, features: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), *layers, _head(features))


def _vector_net(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(12, 8), *layers, nn.Linear(8, _CLASSES))


def _image(*layers: Callable[[], nn.Module], features: int, options: StepOptions | None = None) -> Case:
    return Case(
        kind="layer",
        model=lambda: _image_net(*(layer() for layer in layers), features=features),
        given=_IMAGE,
        options=options or StepOptions(),
    )


def _vector(layer: Callable[[], nn.Module], options: StepOptions | None = None) -> Case:
    return Case(kind="layer", model=lambda: _vector_net(layer()), given=_VECTOR, options=options or StepOptions())


def _signal(*layers: Callable[[], nn.Module], features: int) -> Case:
    return Case(
        kind="layer", model=lambda: nn.Sequential(*(layer() for layer in layers), _head(features)), given=_SIGNAL
    )


def _recurrent(layer: Callable[[], nn.Module], width: int) -> Case:
    return Case(kind="layer", model=lambda: _Recurrent(layer(), width), given=_SERIES)


def _optimizer(options: StepOptions, rate: float) -> Case:
    return Case(kind="optimizer", model=lambda: _vector_net(nn.Tanh()), given=_VECTOR, options=options, rate=rate)


def _focal_by_gather(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the focal loss (Lin et al. 2017, arXiv 1708.02002), gamma 2."""
    chosen = torch.log_softmax(logits, -1).gather(1, labels[:, None])[:, 0]
    return -((1 - chosen.exp()) ** 2 * chosen).mean()


def _focal_by_index(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    chosen = torch.log_softmax(logits, -1)[torch.arange(len(labels)), labels]
    return -((1 - chosen.exp()) ** 2 * chosen).mean()


def _weighted(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return nn.functional.cross_entropy(logits, labels, weight=torch.tensor([1.0, 2.0, 3.0]))


def _loss(name: str | Loss) -> Case:
    return Case(kind="loss", model=lambda: _vector_net(nn.Tanh()), given=_VECTOR, loss=name)


_NUMBERS = Values(("level", "flow", "heat"), tolerance=(0.5, 2.0, 0.1))
_THERE = Labels(("hot", "wet", "loud"))
_WRITTEN = Tokens(tuple(map(str, range(_TOKENS))), positions=6)
_PAIR = {"kind": Classes(("a", "b", "c")), "numbers": Values(("x", "y"), tolerance=(0.5, 2.0), weight=3.0)}
_ODD = {"anomaly": Reconstruction(weight=2.0), "kind": Classes(("a", "b", "c"))}


def _own_loss(given: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    return torch.log1p((given - wanted).square()).mean() + 0.1 * given.square().mean()


def _numbers(size: int) -> Callable[[np.random.Generator, int], NDArray[Any]]:
    return lambda rng, count: rng.normal(size=(count, size)).astype(np.float32)


def _there(rng: np.random.Generator, count: int) -> NDArray[Any]:
    return rng.integers(0, 2, (count, _CLASSES))


def _padded(rng: np.random.Generator, count: int) -> NDArray[Any]:
    found = rng.integers(0, _TOKENS, (count, 6))
    found[::2, 4:] = -1
    return found


def _kinds(rng: np.random.Generator, count: int) -> NDArray[Any]:
    return rng.integers(0, _CLASSES, count)


def _output(
    outputs: Output | Mapping[str, Output],
    wanted: Callable[[np.random.Generator, int], Any] | None,
    loss: str | Loss | Mapping[str, str | Loss] | None = None,
    model: Callable[[], nn.Module] = lambda: _vector_net(nn.Tanh()),
    given: TensorSpec = _VECTOR,
    rate: float = 0.05,
) -> Case:
    return Case(kind="output", model=model, given=given, loss=loss, outputs=outputs, wanted=wanted, rate=rate)


_TRAIN = StepOptions(batch_norm="train")
CASES: Mapping[str, Case] = {
    "linear": _vector(nn.Identity),
    "conv2d stride": _image(lambda: nn.Conv2d(4, 6, 3, stride=2, padding=1), nn.ReLU, features=96),
    "conv2d dilation": _image(lambda: nn.Conv2d(4, 6, 3, dilation=2, padding=2), nn.ReLU, features=384),
    "conv2d groups": _image(lambda: nn.Conv2d(4, 6, 3, groups=2), nn.ReLU, features=216),
    "conv2d depthwise": _image(lambda: nn.Conv2d(4, 4, 3, groups=4, padding=1), nn.ReLU, features=256),
    "conv1d stride": _signal(lambda: nn.Conv1d(3, 6, 5, stride=2, padding=2), nn.ReLU, features=48),
    "conv1d dilation": _signal(lambda: nn.Conv1d(3, 6, 3, dilation=2), nn.ReLU, features=72),
    "conv1d depthwise": _signal(
        lambda: nn.Conv1d(3, 3, 3, groups=3, padding=1), lambda: nn.Conv1d(3, 6, 1), features=96
    ),
    "transposed conv2d stride": _image(
        lambda: nn.ConvTranspose2d(4, 3, 3, stride=2, padding=1, output_padding=1), nn.ReLU, features=768
    ),
    "transposed conv2d groups": _image(lambda: nn.ConvTranspose2d(4, 4, 2, stride=2, groups=2), nn.ReLU, features=1024),
    "transposed conv2d dilation": _image(lambda: nn.ConvTranspose2d(4, 2, 3, dilation=2), nn.ReLU, features=288),
    "transposed conv1d stride": _signal(
        lambda: nn.Conv1d(3, 4, 3, padding=1), lambda: nn.ConvTranspose1d(4, 3, 4, stride=2, padding=1), features=96
    ),
    "up-sampling, nearest": _image(lambda: nn.Upsample(scale_factor=2), nn.ReLU, features=1024),
    "up-sampling, nearest, uneven": _image(lambda: nn.Upsample(size=(11, 9)), nn.ReLU, features=396),
    "up-sampling, bilinear": _image(lambda: nn.Upsample(scale_factor=2, mode="bilinear"), nn.ReLU, features=1024),
    "up-sampling, bilinear, corners": _image(
        lambda: nn.Upsample(scale_factor=1.5, mode="bilinear", align_corners=True), nn.ReLU, features=576
    ),
    "up-sampling 1d, linear": _signal(
        lambda: nn.Conv1d(3, 4, 3, padding=1), lambda: nn.Upsample(scale_factor=2, mode="linear"), features=128
    ),
    "reflect padding": _image(lambda: nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"), nn.ReLU, features=256),
    "replicate padding": _image(lambda: nn.ReplicationPad2d((1, 2, 0, 1)), nn.ReLU, features=396),
    "circular padding": _image(lambda: nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular"), nn.ReLU, features=256),
    "circular padding 1d": _signal(
        lambda: nn.Conv1d(3, 4, 3, padding=1),
        lambda: nn.Conv1d(4, 4, 5, padding=2, padding_mode="circular"),
        features=64,
    ),
    "max pool 1d": _signal(lambda: nn.Conv1d(3, 4, 3, padding=1), lambda: nn.MaxPool1d(2), features=32),
    "average pool 1d": _signal(lambda: nn.Conv1d(3, 4, 3, padding=1), lambda: nn.AvgPool1d(2), features=32),
    "max pool 2d": _image(lambda: nn.MaxPool2d(3, 2, padding=1), features=64),
    "average pool 2d": _image(lambda: nn.AvgPool2d(3, 2, padding=1, count_include_pad=False), features=64),
    "adaptive average pool": _image(lambda: nn.AdaptiveAvgPool2d(2), features=16),
    "global average pool": _image(nn.ReLU, lambda: nn.AdaptiveAvgPool2d(1), features=4),
    "global average pool, one place": _image(
        lambda: nn.Conv2d(4, 8, 8, stride=8), lambda: nn.AdaptiveAvgPool2d(1), features=8
    ),
    "batch norm 2d, frozen": _image(lambda: nn.BatchNorm2d(4), nn.ReLU, features=256),
    "batch norm 2d, train": _image(lambda: nn.BatchNorm2d(4), nn.ReLU, features=256, options=_TRAIN),
    # Four samples have deviations near zero, which blow rounding up: small steps keep the two sides comparable.
    "batch norm 1d, train": Case(
        kind="layer", model=lambda: _vector_net(nn.BatchNorm1d(8)), given=_VECTOR, options=_TRAIN, rate=0.005
    ),
    "group norm": _image(lambda: nn.GroupNorm(2, 4), nn.ReLU, features=256),
    "layer norm": _vector(lambda: nn.LayerNorm(8)),
    "relu": _vector(nn.ReLU),
    "prelu": _image(lambda: nn.PReLU(4), features=256),
    "prelu, one slope": _vector(nn.PReLU),
    "gelu": _vector(nn.GELU),
    "gelu, tanh": _vector(lambda: nn.GELU(approximate="tanh")),
    "silu": _vector(nn.SiLU),
    "hard-swish": _vector(nn.Hardswish),
    "softmax": _vector(lambda: nn.Softmax(dim=-1)),
    "embedding": Case(
        kind="layer",
        model=lambda: nn.Sequential(nn.Embedding(_TOKENS, 4, padding_idx=0), _head(24)),
        given=_WORDS,
    ),
    "shared weights": Case(kind="layer", model=_Tied, given=_WORDS, options=StepOptions(optimizer="momentum")),
    "attention": Case(kind="layer", model=_Attention, given=_SERIES),
    "dropout": _vector(lambda: nn.Dropout(0.25), StepOptions(dropout=True)),
    "gru": _recurrent(lambda: nn.GRU(5, 4, num_layers=2, batch_first=True), 4),
    "lstm": _recurrent(lambda: nn.LSTM(5, 4, batch_first=True, bidirectional=True), 8),
    "lstm, projection": _recurrent(lambda: nn.LSTM(5, 6, num_layers=2, batch_first=True, proj_size=3), 3),
    "rnn": _recurrent(lambda: nn.RNN(5, 4, batch_first=True), 4),
    "rnn, relu, no biases": _recurrent(
        lambda: nn.RNN(5, 4, batch_first=True, nonlinearity="relu", bias=False, bidirectional=True), 8
    ),
    "cross-entropy": _loss("cross_entropy"),
    "binary cross-entropy": _loss("bce"),
    "squared error": _loss("mse"),
    "focal, by gather": _loss(_focal_by_gather),
    "focal, by index": _loss(_focal_by_index),
    "weighted cross-entropy": _loss(_weighted),
    "squared error of values": Case(
        kind="loss",
        model=lambda: _vector_net(nn.Tanh()),
        given=_VECTOR,
        loss="mse",
        options=StepOptions(targets="values"),
    ),
    "focal": _loss("focal"),
    # Near the kink of the loss a larger rate sends torch away from itself, by what one rounding differs.
    "values, huber": _output(_NUMBERS, _numbers(3), rate=0.005),
    "values, squared error": _output(_NUMBERS, _numbers(3), "mse", rate=0.001),
    "values, absolute error": _output(_NUMBERS, _numbers(3), "mae"),
    "labels, binary cross-entropy": _output(_THERE, _there),
    "labels, focal": _output(_THERE, _there, "focal"),
    "labels, squared error": _output(_THERE, _there, "mse"),
    "tokens with padding": _output(_WRITTEN, _padded, model=_Written, given=_WORDS),
    "reconstruction": _output(
        Reconstruction(), None, model=lambda: nn.Sequential(nn.Linear(12, 4), nn.Tanh(), nn.Linear(4, 12))
    ),
    "reconstruction, huber": _output(
        Reconstruction(), None, "huber", lambda: nn.Sequential(nn.Linear(12, 4), nn.Tanh(), nn.Linear(4, 12))
    ),
    "an output of one's own": _output(Custom((3,), (3,), loss=_own_loss), _numbers(3)),
    "two outputs": _output(
        _PAIR, lambda rng, count: {"kind": _kinds(rng, count), "numbers": _numbers(2)(rng, count)}, model=_Both
    ),
    "two outputs, one without target values": _output(
        _ODD, lambda rng, count: {"anomaly": np.zeros(count, np.int64), "kind": _kinds(rng, count)}, model=_Rebuilt
    ),
    "two outputs of values": Case(
        kind="output",
        model=_Both,
        given=_VECTOR,
        loss={"kind": "mse", "numbers": "mse"},
        outputs=_PAIR,
        wanted=lambda rng, count: {"kind": _kinds(rng, count), "numbers": _numbers(2)(rng, count)},
        rate=0.005,
        options=StepOptions(targets="values"),
    ),
    "sgd": _optimizer(StepOptions(), 0.1),
    "momentum": _optimizer(StepOptions(optimizer="momentum", momentum=0.9), 0.02),
    "adam": _optimizer(StepOptions(optimizer="adam"), 0.01),
    "sgd, proximal": _optimizer(StepOptions(proximal=True), 0.1),
    "sgd, control variates": _optimizer(StepOptions(control_variates=True), 0.1),
    "adam, proximal and control": _optimizer(StepOptions(optimizer="adam", proximal=True, control_variates=True), 0.01),
    "head only": Case(
        kind="choice",
        model=lambda: _image_net(nn.BatchNorm2d(4), nn.ReLU(), features=256),
        given=_IMAGE,
        options=StepOptions(trainable=("3.*",), optimizer="momentum"),
    ),
    "adapters only": Case(
        kind="choice",
        model=lambda: nn.Sequential(_Adapted(12, 8, 2), nn.ReLU(), nn.Linear(8, _CLASSES)),
        given=_VECTOR,
        options=StepOptions(trainable=("*.lora_*",), optimizer="adam"),
        rate=0.01,
    ),
    "residual network": Case(
        kind="network",
        model=lambda: nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1), _Residual(4, 4, 1), _Residual(4, 8, 2), nn.AdaptiveAvgPool2d(1), _head(8)
        ),
        given=_IMAGE,
        options=StepOptions(batch_norm="train", optimizer="momentum"),
        rate=0.01,
    ),
    # Not Adam: softmax gives the keys' bias a gradient of zero, and Adam makes whole steps of its rounding.
    "transformer": Case(
        kind="network", model=_Transformer, given=_WORDS, options=StepOptions(optimizer="momentum"), rate=0.01
    ),
}


def make_source(case: Case, seed: int = 0) -> FloatModel:
    """Return a case's model, its weights and statistics drawn at random, with three batches of random samples."""
    rng = np.random.default_rng(seed)
    count = _BATCH * _BATCHES
    shape = (count, *case.given.shape)
    integer = case.given.dtype == "int64"
    values = rng.integers(0, _TOKENS, shape) if integer else rng.normal(size=shape).astype(np.float32)
    wanted = case.wanted(rng, count) if case.wanted is not None else None
    if case.outputs is None:
        wanted = rng.integers(0, _CLASSES, count, dtype=np.int64)
    data = Dataset({"x": values}, wanted)
    task = Task(
        name="parity",
        inputs=[case.given],
        outputs=case.outputs if case.outputs is not None else Classes(("a", "b", "c")),
        model=case.model,
        data=lambda: TaskData(train=data, held_out=data),
        loss=case.loss,
        local=LocalTraining(learning_rate=case.rate, batch_size=_BATCH),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = case.model().eval()
        for part in model.modules():
            if isinstance(part, nn.modules.batchnorm._BatchNorm):  # noqa: SLF001 - the base of all batch norms
                part.running_mean.uniform_(-0.5, 0.5)  # type: ignore[union-attr]
                part.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]
    return FloatModel(task=task, model=model, calibration=data)
