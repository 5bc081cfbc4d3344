"""Torch's layers in train graphs: an example of each, and what is not translated, with the sentence that refuses it.

The documentation's list of what is not translated is that of :data:`UNTRANSLATED`; a test holds every layer of
``torch.nn`` against both tables.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from hedgerow.compile.train_graph.cases import Case
from hedgerow.compile.train_graph.options import StepOptions
from hedgerow.schema import TensorSpec

__all__ = ["LAYERS", "UNTRANSLATED", "Untranslated", "case_of", "case_of_all", "untranslated_text"]

_CLASSES = 3
_VECTOR, _SIGNAL, _IMAGE = TensorSpec("x", (8,)), TensorSpec("x", (4, 12)), TensorSpec("x", (4, 8, 8))
_VOLUME, _SERIES, _WORDS = TensorSpec("x", (2, 4, 4, 4)), TensorSpec("x", (3, 8)), TensorSpec("x", (6,), "int64")
_PLAIN, _TRAIN, _DROPOUT = StepOptions(), StepOptions(batch_norm="train"), StepOptions(dropout=True)
_BOTH = ("onnx", "tflite")
Layer = Callable[[], nn.Module]


@dataclass(frozen=True, slots=True)
class Untranslated:
    """What is not translated.

    Attributes:
        layer, given: A layer that needs it, and what it takes.
        said: What the refusal's sentence calls it.
        options: Of the training in which it is met.
        formats: Those that refuse it; the others step as torch does.
    """

    layer: Layer
    given: TensorSpec
    said: str
    options: StepOptions = _PLAIN
    formats: tuple[str, ...] = _BOTH


def _first(found: Any) -> torch.Tensor:
    result: torch.Tensor = found[0] if isinstance(found, tuple) else found
    return result


class _Around(nn.Module):
    """A layer between weights: something before it needs its gradient, and a classifier takes what it gives."""

    def __init__(self, layer: nn.Module, given: TensorSpec) -> None:
        super().__init__()
        self.layer = layer
        whole = given.dtype == "int64"
        self.scale = None if whole else nn.Parameter(torch.ones(given.shape[-1]))
        example = torch.zeros(4, *given.shape, dtype=torch.int64 if whole else torch.float32)
        mode = layer.training
        with torch.no_grad():
            features = self._inside(example)
        layer.train(mode)
        self.head = nn.Linear(features.shape[1], _CLASSES)

    def _inside(self, values: torch.Tensor) -> torch.Tensor:
        return _first(self.layer(values if self.scale is None else values * self.scale)).flatten(1)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.head(self._inside(values))
        return found


class _Beside(nn.Module):
    """Layers between weights, each on its own, whose scores are added up."""

    def __init__(self, parts: Sequence[nn.Module]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        total: torch.Tensor = sum(part(values) for part in self.parts)
        return total


class _Twice(nn.Module):
    """A layer that takes two or three of one tensor."""

    def __init__(self, layer: nn.Module, times: int = 2) -> None:
        super().__init__()
        self.layer, self.times = layer, times

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        # Unlike enough that no distance between them is zero.
        return _first(self.layer(*(values * (1 + 0.5 * place) for place in range(self.times))))


class _Called(nn.Module):
    """A function as a layer."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return self.function(values)


class _Unpooled(nn.Module):
    def __init__(self, pool: nn.Module, unpool: nn.Module) -> None:
        super().__init__()
        self.pool, self.unpool = pool, unpool

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.unpool(*self.pool(values))
        return found


class _Packed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.GRU(8, 4, batch_first=True)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        packed = nn.utils.rnn.pack_padded_sequence(values, torch.tensor([3, 3, 2, 1]), batch_first=True)
        found: torch.Tensor = self.layer(packed)[1][-1]
        return found


def _vectors() -> Mapping[str, Layer]:
    return {
        "AlphaDropout": nn.AlphaDropout,
        "Bilinear": lambda: _Twice(nn.Bilinear(8, 8, 4)),
        "CELU": nn.CELU,
        "CosineSimilarity": lambda: nn.Sequential(_Twice(nn.CosineSimilarity(dim=-1)), nn.Unflatten(0, (-1, 1))),
        "Dropout": nn.Dropout,
        "ELU": nn.ELU,
        "GELU": nn.GELU,
        "GLU": nn.GLU,
        "GRUCell": lambda: nn.GRUCell(8, 4),
        "Hardshrink": nn.Hardshrink,
        "Hardsigmoid": nn.Hardsigmoid,
        "Hardswish": nn.Hardswish,
        "Hardtanh": nn.Hardtanh,
        "Identity": nn.Identity,
        "LSTMCell": lambda: nn.LSTMCell(8, 4),
        "LayerNorm": lambda: nn.LayerNorm(8),
        "LazyBatchNorm1d": nn.LazyBatchNorm1d,
        "LazyLinear": lambda: nn.LazyLinear(5),
        "LeakyReLU": nn.LeakyReLU,
        "Linear": lambda: nn.Linear(8, 5),
        "LogSigmoid": nn.LogSigmoid,
        "LogSoftmax": lambda: nn.LogSoftmax(-1),
        "Mish": nn.Mish,
        "PReLU": nn.PReLU,
        "PairwiseDistance": lambda: nn.Sequential(_Twice(nn.PairwiseDistance()), nn.Unflatten(0, (-1, 1))),
        "RMSNorm": lambda: nn.RMSNorm(8),
        "RNNCell": lambda: nn.RNNCell(8, 4),
        "RReLU": nn.RReLU,
        "ReLU": nn.ReLU,
        "ReLU6": nn.ReLU6,
        "SELU": nn.SELU,
        "SiLU": nn.SiLU,
        "Sigmoid": nn.Sigmoid,
        "Softmax": lambda: nn.Softmax(-1),
        "Softmin": lambda: nn.Softmin(-1),
        "Softplus": nn.Softplus,
        "Softshrink": nn.Softshrink,
        "Softsign": nn.Softsign,
        "Tanh": nn.Tanh,
        "Tanhshrink": nn.Tanhshrink,
        "Threshold": lambda: nn.Threshold(0.1, 0.2),
        "Unflatten": lambda: nn.Unflatten(1, (2, 4)),
    }


def _signals() -> Mapping[str, Layer]:
    return {
        "AdaptiveAvgPool1d": lambda: nn.AdaptiveAvgPool1d(4),
        "AdaptiveMaxPool1d": lambda: nn.AdaptiveMaxPool1d(4),
        "AvgPool1d": lambda: nn.AvgPool1d(2),
        "BatchNorm1d": lambda: nn.BatchNorm1d(4),
        "CircularPad1d": lambda: nn.CircularPad1d(2),
        "ConstantPad1d": lambda: nn.ConstantPad1d(2, 0.5),
        "Conv1d": lambda: nn.Conv1d(4, 5, 3, padding=1),
        "ConvTranspose1d": lambda: nn.ConvTranspose1d(4, 5, 3, stride=2),
        "Dropout1d": nn.Dropout1d,
        "InstanceNorm1d": lambda: nn.InstanceNorm1d(4, affine=True),
        "LPPool1d": lambda: nn.LPPool1d(2, 2),
        "LazyConv1d": lambda: nn.LazyConv1d(5, 3),
        "LazyConvTranspose1d": lambda: nn.LazyConvTranspose1d(5, 3),
        "LazyInstanceNorm1d": nn.LazyInstanceNorm1d,
        "MaxPool1d": lambda: nn.MaxPool1d(2),
        "ReflectionPad1d": lambda: nn.ReflectionPad1d(2),
        "ReplicationPad1d": lambda: nn.ReplicationPad1d(2),
        "ZeroPad1d": lambda: nn.ZeroPad1d(2),
    }


def _images() -> Mapping[str, Layer]:
    return {
        "AdaptiveAvgPool2d": lambda: nn.AdaptiveAvgPool2d(2),
        "AdaptiveMaxPool2d": lambda: nn.AdaptiveMaxPool2d(2),
        "AvgPool2d": lambda: nn.AvgPool2d(2),
        "BatchNorm2d": lambda: nn.BatchNorm2d(4),
        "ChannelShuffle": lambda: nn.ChannelShuffle(2),
        "CircularPad2d": lambda: nn.CircularPad2d(1),
        "ConstantPad2d": lambda: nn.ConstantPad2d(1, 0.5),
        "Conv2d": lambda: nn.Conv2d(4, 5, 3),
        "ConvTranspose2d": lambda: nn.ConvTranspose2d(4, 5, 3, stride=2),
        "Dropout2d": nn.Dropout2d,
        "FeatureAlphaDropout": nn.FeatureAlphaDropout,
        "Flatten": nn.Flatten,
        "Fold": lambda: nn.Sequential(nn.Flatten(), nn.Unflatten(1, (16, 16)), nn.Fold(8, 2, stride=2)),
        "GroupNorm": lambda: nn.GroupNorm(2, 4),
        "InstanceNorm2d": lambda: nn.InstanceNorm2d(4, affine=True),
        "LPPool2d": lambda: nn.LPPool2d(2, 2),
        "LazyBatchNorm2d": nn.LazyBatchNorm2d,
        "LazyConv2d": lambda: nn.LazyConv2d(5, 3),
        "LazyConvTranspose2d": lambda: nn.LazyConvTranspose2d(5, 3),
        "LazyInstanceNorm2d": nn.LazyInstanceNorm2d,
        "MaxPool2d": lambda: nn.MaxPool2d(2),
        "PixelShuffle": lambda: nn.PixelShuffle(2),
        "PixelUnshuffle": lambda: nn.PixelUnshuffle(2),
        "ReflectionPad2d": lambda: nn.ReflectionPad2d(1),
        "ReplicationPad2d": lambda: nn.ReplicationPad2d(1),
        "Softmax2d": nn.Softmax2d,
        "SyncBatchNorm": lambda: nn.SyncBatchNorm(4),
        "Unfold": lambda: nn.Unfold(2, stride=2),
        "Upsample": lambda: nn.Upsample(scale_factor=2),
        "UpsamplingBilinear2d": lambda: nn.UpsamplingBilinear2d(scale_factor=2),
        "UpsamplingNearest2d": lambda: nn.UpsamplingNearest2d(scale_factor=2),
        "ZeroPad2d": lambda: nn.ZeroPad2d(1),
    }


def _volumes() -> Mapping[str, Layer]:
    return {
        "BatchNorm3d": lambda: nn.BatchNorm3d(2),
        "ConstantPad3d": lambda: nn.ConstantPad3d(1, 0.5),
        "Dropout3d": nn.Dropout3d,
        "InstanceNorm3d": lambda: nn.InstanceNorm3d(2, affine=True),
        "LazyBatchNorm3d": nn.LazyBatchNorm3d,
        "LazyInstanceNorm3d": nn.LazyInstanceNorm3d,
        "ZeroPad3d": lambda: nn.ZeroPad3d(1),
    }


def _series() -> Mapping[str, Layer]:
    return {
        "GRU": lambda: nn.GRU(8, 4, batch_first=True),
        "LSTM": lambda: nn.LSTM(8, 4, batch_first=True),
        "MultiheadAttention": lambda: _Twice(nn.MultiheadAttention(8, 2, batch_first=True), 3),
        "RNN": lambda: nn.RNN(8, 4, batch_first=True),
        "Transformer": lambda: _Twice(nn.Transformer(8, 2, 1, 1, 16, 0.0, batch_first=True)),
        "TransformerDecoder": lambda: _Twice(
            nn.TransformerDecoder(nn.TransformerDecoderLayer(8, 2, 16, 0.0, batch_first=True), 1)
        ),
        "TransformerDecoderLayer": lambda: _Twice(nn.TransformerDecoderLayer(8, 2, 16, 0.0, batch_first=True)),
        "TransformerEncoder": lambda: nn.TransformerEncoder(
            nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True), 1
        ),
        "TransformerEncoderLayer": lambda: nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True),
    }


_GROUPS = (
    (_vectors(), _VECTOR),
    (_signals(), _SIGNAL),
    (_images(), _IMAGE),
    (_volumes(), _VOLUME),
    (_series(), _SERIES),
)
LAYERS: Mapping[str, tuple[Layer, TensorSpec]] = {
    **{name: (layer, given) for group, given in _GROUPS for name, layer in group.items()},
    "Embedding": (lambda: nn.Embedding(11, 4), _WORDS),
}
"""Name in ``torch.nn`` -> an example that has a train graph, and what it takes."""


def _called(
    function: Callable[[torch.Tensor], torch.Tensor], said: str, formats: tuple[str, ...] = _BOTH
) -> Untranslated:
    return Untranslated(lambda: _Called(function), _VECTOR, said, formats=formats)


def _determinant(values: torch.Tensor) -> torch.Tensor:
    found: torch.Tensor = torch.linalg.det(values.reshape(-1, 1, 2, 4)[..., :2])
    return found


def _added_up(values: torch.Tensor) -> torch.Tensor:
    return torch.zeros(values.shape).scatter_add(1, torch.zeros(values.shape, dtype=torch.int64), values)


def _unpooled(axes: int, given: TensorSpec) -> Untranslated:
    pool, unpool = getattr(nn, f"MaxPool{axes}d"), getattr(nn, f"MaxUnpool{axes}d")
    return Untranslated(
        lambda: _Unpooled(pool(2, return_indices=True), unpool(2)), given, "max pooling with return_indices"
    )


UNTRANSLATED: Mapping[str, Mapping[str, Untranslated]] = {
    "3-D convolution": {
        name: Untranslated(layer, _VOLUME, "convolution_backward")
        for name, layer in {
            "Conv3d": lambda: nn.Conv3d(2, 3, 3),
            "ConvTranspose3d": lambda: nn.ConvTranspose3d(2, 3, 3),
            "LazyConv3d": lambda: nn.LazyConv3d(3, 3),
            "LazyConvTranspose3d": lambda: nn.LazyConvTranspose3d(3, 3),
        }.items()
    },
    "3-D pooling": {
        "AdaptiveAvgPool3d": Untranslated(lambda: nn.AdaptiveAvgPool3d(2), _VOLUME, "adaptive_avg_pool3d_backward"),
        "AdaptiveMaxPool3d": Untranslated(lambda: nn.AdaptiveMaxPool3d(2), _VOLUME, "adaptive_max_pool3d_backward"),
        "AvgPool3d": Untranslated(lambda: nn.AvgPool3d(2), _VOLUME, "avg_pool3d_backward"),
        "LPPool3d": Untranslated(lambda: nn.LPPool3d(2, 2), _VOLUME, "avg_pool3d_backward"),
        "MaxPool3d": Untranslated(lambda: nn.MaxPool3d(2), _VOLUME, "max_pool3d_with_indices_backward"),
    },
    "fractional pooling": {
        "FractionalMaxPool2d": Untranslated(
            lambda: nn.FractionalMaxPool2d(2, output_size=4), _IMAGE, "fractional_max_pool2d_backward"
        ),
        "FractionalMaxPool3d": Untranslated(
            lambda: nn.FractionalMaxPool3d(2, output_size=2), _VOLUME, "fractional_max_pool3d_backward"
        ),
    },
    "max pooling that returns its indices, and un-pooling": {
        "MaxUnpool1d": _unpooled(1, _SIGNAL),
        "MaxUnpool2d": _unpooled(2, _IMAGE),
        "MaxUnpool3d": _unpooled(3, _VOLUME),
    },
    "`ceil_mode`": {
        "MaxPool2d, ceil_mode": Untranslated(
            lambda: nn.MaxPool2d(3, ceil_mode=True), _IMAGE, "max_pool2d_with_indices_backward"
        ),
        "AvgPool2d, ceil_mode": Untranslated(lambda: nn.AvgPool2d(3, ceil_mode=True), _IMAGE, "avg_pool2d_backward"),
    },
    "adaptive pooling with unequal windows": {
        "AdaptiveAvgPool2d, unequal": Untranslated(
            lambda: nn.AdaptiveAvgPool2d(3), _IMAGE, "adaptive pooling with windows of unequal sizes"
        ),
    },
    "local response norm": {
        "LocalResponseNorm": Untranslated(lambda: nn.LocalResponseNorm(3), _IMAGE, "avg_pool3d_backward"),
        "CrossMapLRN2d": Untranslated(
            lambda: nn.CrossMapLRN2d(3), _IMAGE, "an autograd.Function without setup_context"
        ),
    },
    "embedding bags": {
        "EmbeddingBag": Untranslated(lambda: nn.EmbeddingBag(11, 4), _WORDS, "_embedding_bag_backward"),
    },
    "padding of three axes by their values": {
        "CircularPad3d": Untranslated(lambda: nn.CircularPad3d(1), _VOLUME, "circular padding of three axes"),
        "ReflectionPad3d": Untranslated(lambda: nn.ReflectionPad3d(1), _VOLUME, "reflection_pad3d_backward"),
        "ReplicationPad3d": Untranslated(lambda: nn.ReplicationPad3d(1), _VOLUME, "replication_pad3d_backward"),
    },
    "bicubic up-sampling": {
        "Upsample, bicubic": Untranslated(
            lambda: nn.Upsample(scale_factor=2, mode="bicubic"), _IMAGE, "upsample_bicubic2d_backward"
        ),
    },
    "packed sequences": {"GRU, packed": Untranslated(_Packed, _SERIES, "gru over packed or single sequences")},
    "batch norm with `momentum=None`": {
        "BatchNorm2d, momentum=None": Untranslated(
            lambda: nn.BatchNorm2d(4, momentum=None), _IMAGE, "batch_norm with momentum=None", _TRAIN
        ),
    },
    "products and cumulative products of values": {
        "torch.prod": _called(lambda values: values.prod(-1, keepdim=True), "prod"),
        "torch.cumprod": _called(lambda values: values.cumprod(-1), "prod"),
    },
    "determinants": {"torch.linalg.det": _called(_determinant, "_linalg_")},
    "a choice by a list of places (`x[:, places]`) and sorting, in TFLite": {
        "x[:, places]": _called(lambda values: values[:, torch.tensor([0, 2, 2])], "scatter", ("tflite",)),
        "torch.index_select": _called(
            lambda values: values.index_select(1, torch.tensor([1, 3])), "scatter", ("tflite",)
        ),
        "torch.scatter_add": _called(_added_up, "scatter", ("tflite",)),
        "torch.sort": _called(lambda values: values.sort(-1)[0], "sort", ("tflite",)),
    },
    "alpha dropout and RReLU under `dropout=True`": {
        "AlphaDropout, dropout": Untranslated(nn.AlphaDropout, _VECTOR, "alpha_dropout", _DROPOUT),
        "FeatureAlphaDropout, dropout": Untranslated(nn.FeatureAlphaDropout, _IMAGE, "feature_alpha_dropout", _DROPOUT),
        "RReLU, dropout": Untranslated(nn.RReLU, _VECTOR, "rrelu", _DROPOUT),
    },
}
"""Words of the documentation -> name -> what is refused, and how the refusal calls it."""


def case_of(layer: Layer, given: TensorSpec, options: StepOptions = _PLAIN) -> Case:
    """Return a layer between weights as a case."""
    return Case(kind="layer", model=lambda: _Around(layer(), given), given=given, options=options)


def case_of_all(names: Sequence[str]) -> Case:
    """Return layers that take the same input as one case, so that they are exported at once."""
    given = LAYERS[names[0]][1]
    return Case(
        kind="layer",
        model=lambda: _Beside([_Around(LAYERS[name][0](), given) for name in names]),
        given=given,
    )


def untranslated_text() -> str:
    """Return the documentation's sentence about what is not translated."""
    return f"Not translated, and refused by name: {', '.join(UNTRANSLATED)}."
