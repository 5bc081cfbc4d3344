"""Batch norm with a gradient of few passes over the values.

Autograd of the formula would keep four tensors of the size of the values and go over them some fifteen times; written
as one function (Ioffe and Szegedy 2015, arXiv 1502.03167, section 3) there are three passes beside the two sums.
"""

from typing import Any

import torch

from hedgerow.compile.train_graph.operators import batch_norm

__all__ = ["frozen_batch_norm", "train_batch_norm"]


def _axes(values: torch.Tensor) -> list[int]:
    return [axis for axis in range(values.ndim) if axis != 1]


def _wide(vector: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    return vector.reshape(1, -1, *(1,) * (values.ndim - 2))


class _FrozenBatchNorm(torch.autograd.Function):
    """Batch norm with given statistics: ``(values, weight, bias, mean, variance, eps) -> values``."""

    @staticmethod
    def forward(
        values: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor,
        mean: torch.Tensor,
        variance: torch.Tensor,
        eps: float,
    ) -> torch.Tensor:
        """Return the normalised values."""
        return batch_norm(values, weight, bias, mean, variance, eps)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        """Keep what the gradient needs."""
        del output
        values, weight, _bias, mean, variance, ctx.eps = inputs
        ctx.save_for_backward(values, weight, mean, variance)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Return the gradients of values, weight and bias."""
        (grad,), (values, weight, mean, variance) = grads, ctx.saved_tensors
        ones, zeros = torch.ones_like(weight), torch.zeros_like(weight)
        normalised = batch_norm(values, ones, zeros, mean, variance, ctx.eps)
        scale = torch.rsqrt(variance + ctx.eps) * weight
        axes = _axes(values)
        return grad * _wide(scale, values), (grad * normalised).sum(axes), grad.sum(axes), None, None, None


class _TrainBatchNorm(torch.autograd.Function):
    """Batch norm with the batch's statistics.

    ``(values, weight, bias, eps) -> (values, mean, variance, centred)``: the variance is the biased one, and only the
    first output has a gradient.
    """

    @staticmethod
    def forward(
        values: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, eps: float
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the normalised values, each channel's mean and variance, and the values without their mean."""
        axes = _axes(values)
        mean = values.mean(axes)
        centred = values - _wide(mean, values)
        variance = (centred * centred).mean(axes)
        return batch_norm(centred, weight, bias, torch.zeros_like(mean), variance, eps), mean, variance, centred

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        """Keep what the gradient needs."""
        _values, weight, _bias, ctx.eps = inputs
        _result, mean, variance, centred = output
        ctx.save_for_backward(weight, variance, centred)
        ctx.mark_non_differentiable(mean, variance, centred)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Return the gradients of values, weight and bias."""
        grad, (weight, variance, centred) = grads[0], ctx.saved_tensors
        axes, each = _axes(centred), centred.shape[1] / centred.numel()
        inverse = torch.rsqrt(variance + ctx.eps)
        for_weight, for_bias = (grad * centred).sum(axes) * inverse, grad.sum(axes)
        # What reaches the values through their variance and mean; with mean zero and variance one this only scales.
        zeros, ones = torch.zeros_like(weight), torch.ones_like(weight)
        through = batch_norm(centred, for_weight * inverse * -each, for_bias * -each, zeros, ones, 0.0)
        return (grad + through) * _wide(inverse * weight, centred), for_weight, for_bias, None


def frozen_batch_norm(
    values: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    mean: torch.Tensor,
    variance: torch.Tensor,
    eps: float,
) -> torch.Tensor:
    """Return *values* normalised with the given statistics; values, weight and bias have gradients."""
    result: torch.Tensor = _FrozenBatchNorm.apply(values, weight, bias, mean, variance, eps)  # type: ignore[no-untyped-call]
    return result


def train_batch_norm(
    values: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, eps: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return *values* normalised with their own statistics, and each channel's mean and biased variance."""
    result, mean, variance, _centred = _TrainBatchNorm.apply(values, weight, bias, eps)  # type: ignore[no-untyped-call]
    return result, mean, variance
