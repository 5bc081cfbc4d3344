"""Operators that a traced step holds whole, because ONNX has one where torch would write several.

They run in torch too, so a traced step can be called. TFLite has none of them: its table takes them apart again.
"""

from collections.abc import Callable
from typing import Any

import torch

__all__ = ["apart", "batch_norm", "onnx_translations", "positive"]

_library: Any = torch.library.Library("hedgerow", "DEF")  # type: ignore[no-untyped-call]
_library.define("positive(Tensor values) -> Tensor")
_library.define(
    "batch_norm(Tensor values, Tensor weight, Tensor bias, Tensor mean, Tensor variance, float eps) -> Tensor"
)
_operators = torch.ops.hedgerow
# Times this, every positive number but a subnormal one is above one.
_STEEP = 3.0e38


def _positive(values: torch.Tensor) -> torch.Tensor:
    return (values > 0).to(values.dtype)


def _wide(vector: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    return vector.reshape(1, -1, *(1,) * (values.ndim - 2))


def _batch_norm(
    values: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    mean: torch.Tensor,
    variance: torch.Tensor,
    eps: float,
) -> torch.Tensor:
    scale = torch.rsqrt(variance + eps) * weight
    return (values - _wide(mean, values)) * _wide(scale, values) + _wide(bias, values)


for _name, _function in (("positive", _positive), ("batch_norm", _batch_norm)):
    _library.impl(_name, _function, "CompositeExplicitAutograd")


def positive(values: torch.Tensor) -> torch.Tensor:
    """Return one where *values* are above zero, and zero elsewhere."""
    result: torch.Tensor = _operators.positive(values)
    return result


def batch_norm(
    values: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    mean: torch.Tensor,
    variance: torch.Tensor,
    eps: float,
) -> torch.Tensor:
    """Return ``(values - mean) / sqrt(variance + eps) * weight + bias``, channel by channel (axis 1)."""
    result: torch.Tensor = _operators.batch_norm(values, weight, bias, mean, variance, eps)
    return result


def _steep(values: torch.Tensor) -> torch.Tensor:
    # XNNPACK has no comparisons: what it cannot take stands alone between parts of the graph, and memory with it.
    return torch.clamp(values * _STEEP, 0.0, 1.0)


def apart() -> dict[Any, Callable[..., Any]]:
    """Return the decompositions for a format that has none of these operators."""
    return {_operators.positive.default: _steep, _operators.batch_norm.default: _batch_norm}


def onnx_translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """Return the table for torch's exporter: each operator as one of ONNX."""
    from onnxscript import opset18 as op

    def step(values: Any) -> Any:
        # One pass; a comparison, a cast and its choice would be three.
        return op.HardSigmoid(values, alpha=_STEEP, beta=0.0)

    def normalise(values: Any, weight: Any, bias: Any, mean: Any, variance: Any, eps: float) -> Any:
        return op.BatchNormalization(values, weight, bias, mean, variance, epsilon=eps)

    # Its training mode does more in one node, but in ONNX Runtime 1.31 tensors given as statistics came out changed.
    return {_operators.positive.default: step, _operators.batch_norm.default: normalise}
