"""Which weights of a model can be pruned: matrices and kernels of layers that multiply."""

import torch
from torch import nn

__all__ = ["prunable_weights"]

_LAYERS = (nn.Linear, nn.modules.conv._ConvNd, nn.RNNBase, nn.MultiheadAttention)  # noqa: SLF001  # no public base


def prunable_weights(model: nn.Module) -> tuple[tuple[str, torch.nn.Parameter], ...]:
    """Return name and weight of every matrix or kernel, in the model's order; embeddings and biases are left out."""
    found: dict[int, tuple[str, nn.Parameter]] = {}
    for place, module in model.named_modules():
        if isinstance(module, _LAYERS):
            for name, value in module.named_parameters(recurse=False):
                if value.dim() > 1:
                    # A weight that two layers share is pruned once.
                    found.setdefault(id(value), (f"{place}.{name}" if place else name, value))
    return tuple(found.values())
