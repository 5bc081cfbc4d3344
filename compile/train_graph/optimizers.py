"""The update rules of ``torch.optim``, as functions of tensors. All state starts at zero."""

from collections.abc import Mapping

import torch

from hedgerow.compile.train_graph.options import StepOptions

__all__ = ["Tensors", "state_shapes", "updated"]

Tensors = Mapping[str, torch.Tensor]


def state_shapes(options: StepOptions, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Return name -> shape of the state for parameters of *shapes*."""
    if options.optimizer == "momentum":
        return {f"momentum:{name}": shape for name, shape in shapes.items()}
    if options.optimizer == "adam":
        moments = {f"{moment}:{name}": shape for name, shape in shapes.items() for moment in ("first", "second")}
        return {"first correction": (1,), "second correction": (1,), **moments}
    return {}


def updated(
    options: StepOptions, rate: torch.Tensor, weights: Tensors, gradients: Tensors, state: Tensors
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Return the weights that have gradients, after one step, and the new state."""
    if options.optimizer == "momentum":
        moved = {f"momentum:{n}": options.momentum * state[f"momentum:{n}"] + g for n, g in gradients.items()}
        return {name: weights[name] - rate * moved[f"momentum:{name}"] for name in gradients}, moved
    if options.optimizer == "adam":
        return _adam(options, rate, weights, gradients, state)
    return {name: weights[name] - rate * gradient for name, gradient in gradients.items()}, {}


def _adam(
    options: StepOptions, rate: torch.Tensor, weights: Tensors, gradients: Tensors, state: Tensors
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    one, other = options.betas
    # 1 - beta^t as c = beta c + (1 - beta): a power would lose the digits that matter in the first steps.
    fresh = {
        "first correction": one * state["first correction"] + (1 - one),
        "second correction": other * state["second correction"] + (1 - other),
    }
    root = torch.sqrt(fresh["second correction"])
    # torch adds epsilon to sqrt(second) / root; torch's ONNX exporter takes an added 1e-8 for zero and leaves it out.
    size, least = rate / fresh["first correction"] * root, options.epsilon * root
    after = {}
    for name, gradient in gradients.items():
        first = one * state[f"first:{name}"] + (1 - one) * gradient
        second = other * state[f"second:{name}"] + (1 - other) * gradient * gradient
        after[name] = weights[name] - size * first / (torch.sqrt(second) + least)
        fresh |= {f"first:{name}": first, f"second:{name}": second}
    return after, fresh
