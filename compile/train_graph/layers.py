"""Layers that torch would trace into something no exporter takes, put in other words while a step is traced.

Batch norm in training mode gives its new running statistics back instead of writing them; dropout multiplies with a
mask that is an input of the graph; attention, recurrent layers, adaptive pooling and 1-D convolution become the
operators that gradients are known for. All other functions pass untouched.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from hedgerow.compile.errors import UntranslatableError
from hedgerow.compile.passes.traced.recurrent import unrolling_table
from hedgerow.compile.train_graph.norms import frozen_batch_norm, train_batch_norm
from hedgerow.compile.train_graph.resampling import RESAMPLING
from hedgerow.compile.train_graph.signals import conv1d, conv_transpose1d

__all__ = ["MaskSpec", "StepLayers"]

_functional = torch.nn.functional
_NOTHING = -100
"""What torch's cross-entropy ignores by default: no class."""


@dataclass(frozen=True, slots=True)
class MaskSpec:
    """A mask that dropout wants.

    Attributes:
        shape: Of the mask.
        keep: The share of ones.
    """

    shape: tuple[int, ...]
    keep: float


class StepLayers(TorchFunctionMode):
    """Rewrites layers while it is entered.

    Args:
        weights: The model's parameters and buffers by name, the very tensors that the model is called with.
        masks: Dropout's masks of zeros and ones in the order of use; None: ones, to find out which it wants.

    Attributes:
        wanted: What each mask has to be, in the order of use.
        statistics: Name -> new value of each buffer that batch norm moves.
    """

    def __init__(self, weights: Mapping[str, torch.Tensor], masks: Sequence[torch.Tensor] | None) -> None:
        super().__init__()
        self._names = {id(value): name for name, value in weights.items()}
        self._masks = masks
        self.wanted: list[MaskSpec] = []
        self.statistics: dict[str, torch.Tensor] = {}
        self._table: dict[Any, Callable[..., Any]] = {
            **RESAMPLING,
            torch.Tensor.add_: self._add_in_place,
            _functional.batch_norm: self._batch_norm,
            _functional.dropout: self._dropout,
            _functional.dropout1d: self._dropout_channels,
            _functional.dropout2d: self._dropout_channels,
            _functional.dropout3d: self._dropout_channels,
            _functional.multi_head_attention_forward: self._attention_layer,
            _functional.scaled_dot_product_attention: self._attention,
            _functional.layer_norm: _layer_norm,
            _functional.group_norm: _group_norm,
            _functional.silu: _silu,
            _functional.mish: _mish,
            _functional.binary_cross_entropy_with_logits: _binary_cross_entropy,
            _functional.cross_entropy: _cross_entropy,
            _functional.conv1d: conv1d,
            _functional.conv_transpose1d: conv_transpose1d,
            _functional.prelu: _prelu,
            _functional.bilinear: _bilinear,
            _functional.max_pool1d_with_indices: _refused("max pooling with return_indices"),
            _functional.max_pool2d_with_indices: _refused("max pooling with return_indices"),
            _functional.max_pool3d_with_indices: _refused("max pooling with return_indices"),
            _functional.alpha_dropout: _not_in_training(_functional.alpha_dropout),
            _functional.feature_alpha_dropout: _not_in_training(_functional.feature_alpha_dropout),
            _functional.rrelu: _rrelu,
            _functional.adaptive_avg_pool1d: _adaptive(_functional.avg_pool1d, _functional.adaptive_avg_pool1d, 1),
            _functional.adaptive_avg_pool2d: _adaptive(_functional.avg_pool2d, _functional.adaptive_avg_pool2d, 2),
            _functional.adaptive_max_pool1d: _adaptive(_functional.max_pool1d, _functional.adaptive_max_pool1d, 1),
            _functional.adaptive_max_pool2d: _adaptive(_functional.max_pool2d, _functional.adaptive_max_pool2d, 2),
            **unrolling_table(self._drop),
        }

    def __torch_function__(
        self, func: Any, _types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call the other words for *func*, or *func*."""
        return self._table.get(func, func)(*args, **(kwargs or {}))

    def _add_in_place(self, values: torch.Tensor, other: Any, *, alpha: float = 1) -> torch.Tensor:
        name = self._names.get(id(values))
        if name is None:
            return values.add_(other, alpha=alpha)
        # The count of batches: a traced step must not write to its inputs.
        self.statistics[name] = values + other * alpha
        return values

    def _batch_norm(
        self,
        values: torch.Tensor,
        running_mean: torch.Tensor | None,
        running_var: torch.Tensor | None,
        weight: torch.Tensor | None = None,
        bias: torch.Tensor | None = None,
        training: bool = False,
        momentum: float | None = 0.1,
        eps: float = 1e-5,
    ) -> torch.Tensor:
        channels = values.shape[1]
        weight = torch.ones(channels) if weight is None else weight
        bias = torch.zeros(channels) if bias is None else bias
        if not training and running_mean is not None and running_var is not None:
            return frozen_batch_norm(values, weight, bias, running_mean, running_var, eps)
        result, mean, variance = train_batch_norm(values, weight, bias, eps)
        if training and running_mean is not None and running_var is not None and momentum is not None:
            count = values.numel() // channels
            self._move(running_mean, mean, momentum)
            # The running variance is the unbiased one.
            self._move(running_var, variance * (count / max(count - 1, 1)), momentum)
        return result

    def _move(self, running: torch.Tensor, found: torch.Tensor, momentum: float) -> None:
        name = self._names.get(id(running))
        if name is None:
            raise UntranslatableError(("batch_norm with statistics that are no buffers of the model",))
        self.statistics[name] = (1 - momentum) * running + momentum * found.detach().reshape(running.shape)

    def _mask(self, shape: tuple[int, ...], share: float) -> torch.Tensor:
        place = len(self.wanted)
        self.wanted.append(MaskSpec(shape, 1 - share))
        mask = torch.ones(shape) if self._masks is None else self._masks[place]
        return mask * (1 / (1 - share))

    def _drop(self, values: torch.Tensor, share: float) -> torch.Tensor:
        return values * self._mask(tuple(values.shape), share) if 0 < share < 1 else values * (1 - share)

    def _dropout(
        self, values: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
    ) -> torch.Tensor:
        del inplace
        return self._drop(values, p) if training and p > 0 else values

    def _dropout_channels(
        self, values: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
    ) -> torch.Tensor:
        del inplace
        if not training or p <= 0:
            return values
        return values * self._mask((*values.shape[:2], *(1,) * (values.ndim - 2)), p)

    def _attention(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attn_mask: torch.Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> torch.Tensor:
        if enable_gqa:
            raise UntranslatableError(("scaled_dot_product_attention with enable_gqa",))
        return self._attend(query, key, value, attn_mask, dropout_p, is_causal, scale)[0]

    def _attend(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        mask: torch.Tensor | None,
        share: float,
        causal: bool,
        scale: float | None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        scores = (query * (query.shape[-1] ** -0.5 if scale is None else scale)) @ key.transpose(-2, -1)
        if causal and mask is None:
            mask = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
        if mask is not None:
            scores = scores + _additive(mask)
        weights = torch.softmax(scores, -1)
        return (self._drop(weights, share) if share > 0 else weights) @ value, weights

    def _attention_layer(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        _embed_dim: int,
        num_heads: int,
        in_proj_weight: torch.Tensor | None,
        in_proj_bias: torch.Tensor | None,
        bias_k: torch.Tensor | None,
        bias_v: torch.Tensor | None,
        add_zero_attn: bool,
        dropout_p: float,
        out_proj_weight: torch.Tensor,
        out_proj_bias: torch.Tensor | None,
        training: bool = True,
        key_padding_mask: torch.Tensor | None = None,
        need_weights: bool = True,
        attn_mask: torch.Tensor | None = None,
        use_separate_proj_weight: bool = False,
        q_proj_weight: torch.Tensor | None = None,
        k_proj_weight: torch.Tensor | None = None,
        v_proj_weight: torch.Tensor | None = None,
        static_k: torch.Tensor | None = None,
        static_v: torch.Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        del is_causal  # A hint; the mask says the same.
        odd = any(tensor is not None for tensor in (bias_k, bias_v, static_k, static_v)) or add_zero_attn
        if query.ndim != 3 or odd:
            raise UntranslatableError(("multi_head_attention without a batch, or with biases of keys and values",))
        if use_separate_proj_weight or in_proj_weight is None:
            projections = [q_proj_weight, k_proj_weight, v_proj_weight]
        else:
            projections = list(in_proj_weight.chunk(3))
        biases = [None] * 3 if in_proj_bias is None else list(in_proj_bias.chunk(3))
        length, batch, width = query.shape
        heads = [
            _functional.linear(tensor, weight, bias)
            .reshape(tensor.shape[0], batch * num_heads, width // num_heads)
            .transpose(0, 1)
            for tensor, weight, bias in zip((query, key, value), projections, biases, strict=True)
            if weight is not None
        ]
        # Unlike scaled_dot_product_attention's, a boolean mask of this function is true where nothing may look.
        mask = None if attn_mask is None else _additive(attn_mask if attn_mask.is_floating_point() else ~attn_mask)
        if key_padding_mask is not None:
            padding = _additive(key_padding_mask if key_padding_mask.is_floating_point() else ~key_padding_mask)
            padding = padding.reshape(batch, 1, 1, -1).expand(batch, num_heads, 1, padding.shape[-1])
            padding = padding.reshape(batch * num_heads, 1, -1)
            mask = padding if mask is None else mask + padding
        found, weights = self._attend(
            heads[0], heads[1], heads[2], mask, dropout_p if training else 0.0, causal=False, scale=None
        )
        joined = found.transpose(0, 1).reshape(length * batch, width)
        output = _functional.linear(joined, out_proj_weight, out_proj_bias).reshape(length, batch, -1)
        if not need_weights:
            return output, None
        shown = weights.reshape(batch, num_heads, length, -1)
        return output, shown.mean(1) if average_attn_weights else shown


def _normalised(values: torch.Tensor, axes: tuple[int, ...], eps: float) -> torch.Tensor:
    centred = values - values.mean(axes, keepdim=True)
    return centred * torch.rsqrt((centred * centred).mean(axes, keepdim=True) + eps)


def _silu(values: torch.Tensor, inplace: bool = False) -> torch.Tensor:
    del inplace
    return values * torch.sigmoid(values)


def _mish(values: torch.Tensor, inplace: bool = False) -> torch.Tensor:
    del inplace
    return values * torch.tanh(_functional.softplus(values))


def _layer_norm(
    values: torch.Tensor,
    normalized_shape: Sequence[int],
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    eps: float = 1e-5,
) -> torch.Tensor:
    """Return layer norm in simple operators; torch's own decomposition has some that exporters refuse."""
    result = _normalised(values, tuple(range(-len(normalized_shape), 0)), eps)
    result = result if weight is None else result * weight
    return result if bias is None else result + bias


def _group_norm(
    values: torch.Tensor,
    num_groups: int,
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    eps: float = 1e-5,
) -> torch.Tensor:
    shape = (1, -1, *(1,) * (values.ndim - 2))
    result = _normalised(values.reshape(values.shape[0], num_groups, -1), (2,), eps).reshape(values.shape)
    result = result if weight is None else result * weight.reshape(shape)
    return result if bias is None else result + bias.reshape(shape)


def _additive(mask: torch.Tensor) -> torch.Tensor:
    """Return what is added to scores; a boolean mask is true where attention may look."""
    if mask.dtype != torch.bool:
        return mask
    # Far below any score, and finite: minus infinity times zero would be NaN in a gradient.
    return (1 - mask.to(torch.float32)) * -1e9


def _cross_entropy(
    logits: torch.Tensor,
    labels: torch.Tensor,
    weight: torch.Tensor | None = None,
    size_average: Any = None,
    ignore_index: int = _NOTHING,
    reduce: Any = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> torch.Tensor:
    """Return the mean cross-entropy without a gather by index, whose gradient is a scatter, which TFLite lacks."""
    plain = weight is None and reduction == "mean" and ignore_index < 0 and logits.ndim == 2 and labels.ndim == 1
    plain = plain and (ignore_index == _NOTHING or label_smoothing == 0)
    if not plain:
        return _functional.cross_entropy(
            logits, labels, weight, size_average, ignore_index, reduce, reduction, label_smoothing
        )
    logs = torch.log_softmax(logits, -1)
    classes = torch.arange(logits.shape[-1], dtype=labels.dtype)
    chosen = (labels[:, None] == classes).to(logits.dtype)
    # What is below zero is no class, and chooses nothing.
    count: Any = logits.shape[0] if ignore_index == _NOTHING else (labels != ignore_index).to(logits.dtype).sum()
    loss: torch.Tensor = -(logs * chosen).sum() / count
    return loss if label_smoothing == 0 else (1 - label_smoothing) * loss - label_smoothing * logs.mean()


def _binary_cross_entropy(
    logits: torch.Tensor,
    target: torch.Tensor,
    weight: torch.Tensor | None = None,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
    pos_weight: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the mean over all logits as a cross-entropy of two classes; TFLite lacks parts of torch's own words."""
    if weight is not None or pos_weight is not None or reduction != "mean":
        return _functional.binary_cross_entropy_with_logits(
            logits, target, weight, size_average, reduce, reduction, pos_weight
        )
    logs = torch.log_softmax(torch.stack([logits * 0, logits], -1), -1)
    return -(logs * torch.stack([1 - target, target], -1)).sum() / logits.numel()


def _prelu(values: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return PReLU by ReLU, whose gradient is known; at zero it is the slope, as torch has it."""
    slope = weight if weight.numel() == 1 else weight.reshape(1, -1, *(1,) * (values.ndim - 2))
    above = torch.relu(values)
    return above + slope * (values - above)


def _bilinear(
    one: torch.Tensor, other: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """Return ``one[..., i] weight[o, i, j] other[..., j]`` as a product; exporters lack torch's operator for it."""
    filters, before, beside = weight.shape
    flat = one.reshape(-1, before) @ weight.permute(1, 0, 2).reshape(before, filters * beside)
    found = (flat.reshape(-1, filters, beside) * other.reshape(-1, 1, beside)).sum(-1)
    found = found.reshape(*one.shape[:-1], filters)
    return found if bias is None else found + bias


def _refused(what: str) -> Callable[..., Any]:
    def refuse(*_args: Any, **_kwargs: Any) -> Any:
        raise UntranslatableError((what,))

    return refuse


def _not_in_training(dropout: Callable[..., Any]) -> Callable[..., Any]:
    """Return a dropout that passes its values on; what it draws would stand in the graph as it fell once."""

    def drop(values: torch.Tensor, p: float = 0.5, training: bool = False, inplace: bool = False) -> torch.Tensor:
        del inplace
        if training and p > 0:
            raise UntranslatableError((f"{dropout.__name__} in training",))
        return values

    return drop


def _rrelu(
    values: torch.Tensor, lower: float = 1 / 8, upper: float = 1 / 3, training: bool = False, inplace: bool = False
) -> torch.Tensor:
    del inplace
    if training:
        raise UntranslatableError(("rrelu in training",))
    return _functional.leaky_relu(values, (lower + upper) / 2)


def _adaptive(fixed: Callable[..., Any], adaptive: Callable[..., Any], axes: int) -> Callable[..., Any]:
    """Return adaptive pooling as pooling with a fixed window, where the output's sizes divide the input's."""

    def pool(values: torch.Tensor, output_size: Any, return_indices: bool = False) -> Any:
        wanted = (output_size,) * axes if isinstance(output_size, int) else tuple(output_size)
        given = tuple(values.shape[-axes:])
        sizes = tuple(have if want is None else want for want, have in zip(wanted, given, strict=True))
        if return_indices or any(have % want for want, have in zip(sizes, given, strict=True)):
            raise UntranslatableError(("adaptive pooling with windows of unequal sizes",))
        if set(sizes) == {1} and adaptive is _functional.adaptive_avg_pool2d:
            return adaptive(values, output_size)
        if set(sizes) == {1} and adaptive is _functional.adaptive_avg_pool1d:
            return values.mean(-1, keepdim=True)
        return fixed(values, tuple(have // want for want, have in zip(sizes, given, strict=True)))

    return pool
