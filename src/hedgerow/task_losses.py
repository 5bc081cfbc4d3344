"""What a task is trained with, as torch functions: the named losses of every kind of output, and their sum."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from hedgerow.outputs import Output
from hedgerow.outputs.losses import loss_of
from hedgerow.task import Task

__all__ = ["loss_function"]

_PADDING = -1
_GAMMA = 2

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def loss_function(task: Task) -> Callable[[Any, Any], torch.Tensor]:
    """Return the task's loss, ``(given, target values) -> mean loss``; with state each step counts as a sample.

    With one output both are tensors, with several tuples of them, in the order of the outputs; the loss is then the sum
    of theirs by weight. What *given* is says :class:`hedgerow.task_module.LogitsModule`.
    """
    outputs = task.answers
    if callable(task.loss):
        whole: Any = task.loss
    else:
        parts = [_named(output, loss_of(outputs, name, task.loss)) for name, output in outputs.items()]
        whole = parts[0] if len(parts) == 1 else _Sum(parts, [output.weight for output in outputs.values()])
    if not task.state:
        return whole  # type: ignore[no-any-return]
    return lambda given, wanted: whole(_steps(given), _steps(wanted))


class _Sum:
    def __init__(self, parts: list[Loss], weights: list[float]) -> None:
        self._parts, self._weights = parts, weights

    def __call__(self, given: tuple[torch.Tensor, ...], wanted: tuple[torch.Tensor, ...]) -> torch.Tensor:
        losses = [part(*pair) for part, *pair in zip(self._parts, given, wanted, strict=True)]
        return torch.stack([loss * weight for loss, weight in zip(losses, self._weights, strict=True)]).sum()


def _steps(tensors: Any) -> Any:
    return tuple(t.flatten(0, 1) for t in tensors) if isinstance(tensors, tuple) else tensors.flatten(0, 1)


def _named(output: Output, loss: Any) -> Loss:
    if callable(loss):
        return loss  # type: ignore[no-any-return]
    if output.learns_alone:  # what is given is how far the model is from its own input
        return lambda given, _wanted: _ERRORS[loss](given, torch.zeros_like(given))
    if scale := getattr(output, "tolerance", None):
        return lambda given, wanted: _in_tolerances(loss, given, wanted, scale)
    return _LOSSES[loss]


def _in_tolerances(loss: str, given: torch.Tensor, wanted: torch.Tensor, scale: tuple[float, ...]) -> torch.Tensor:
    unit = torch.tensor(scale, dtype=given.dtype, device=given.device)
    return _ERRORS[loss](given / unit, wanted / unit)


def _ones(logits: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Return what each logit should be: floats as they are, labels as floats, classes as ones among zeros."""
    if wanted.is_floating_point():
        return wanted
    if wanted.shape == logits.shape:
        return wanted.to(logits.dtype)
    classes = torch.arange(logits.shape[-1], dtype=wanted.dtype, device=wanted.device)
    return (wanted[..., None] == classes).to(logits.dtype)


def _cross_entropy(logits: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    if wanted.is_floating_point() or wanted.dim() == 1:
        return nn.functional.cross_entropy(logits, wanted)
    return nn.functional.cross_entropy(logits.flatten(0, -2), wanted.flatten(), ignore_index=_PADDING)


def _binary_cross_entropy(logits: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    return nn.functional.binary_cross_entropy_with_logits(logits, _ones(logits, wanted))


def _squared_error(logits: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    return nn.functional.mse_loss(logits, _ones(logits, wanted))


def _focal(logits: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    if wanted.dim() == 1:
        logs = torch.log_softmax(logits, dim=-1).gather(1, wanted[:, None])[:, 0]
        return -((1 - logs.exp()) ** _GAMMA * logs).mean()
    ones = _ones(logits, wanted)
    logs = nn.functional.logsigmoid(logits) * ones + nn.functional.logsigmoid(-logits) * (1 - ones)
    return -((1 - logs.exp()) ** _GAMMA * logs).mean()


_ERRORS: dict[str, Loss] = {
    "mse": nn.functional.mse_loss,
    "mae": nn.functional.l1_loss,
    "huber": nn.functional.huber_loss,
}
_LOSSES: dict[str, Loss] = {
    "cross_entropy": _cross_entropy,
    "bce": _binary_cross_entropy,
    "mse": _squared_error,
    "focal": _focal,
}
