"""Whether a model ends in the activation that its output adds. Needs torch."""

import re

import torch

__all__ = ["adds_up_to_one", "ends_in_sigmoid"]


def adds_up_to_one(given: torch.Tensor) -> bool:
    """Return whether every row adds up to one without a negative value, which logits do not do by chance."""
    values = given.detach()
    return bool((values >= 0).all()) and bool(((values.sum(dim=-1) - 1).abs() < 1e-4).all())


def ends_in_sigmoid(given: torch.Tensor) -> bool:
    """Return whether a sigmoid is the last that was done; by values alone nobody can tell."""
    step = given.grad_fn
    while step is not None and _name_of(step) in _RESHAPES:
        step = step.next_functions[0][0]
    return step is not None and _name_of(step) in {"Sigmoid", "Hardsigmoid"}


def _name_of(step: torch.autograd.graph.Node) -> str:
    return re.sub(r"Backward\d+$", "", type(step).__name__)


_RESHAPES = {
    "Alias", "Clone", "Permute", "ReshapeAlias", "Squeeze", "Stack", "T", "Transpose", "UnsafeView", "Unsqueeze",
    "View",
}  # fmt: skip
"""Steps of autograd that change no value."""
