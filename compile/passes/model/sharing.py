"""Which layers of a model share a weight with others, so that a change for one would be a change for all."""

from collections import Counter

import torch
from torch import nn

__all__ = ["shared_layers"]


def shared_layers(model: nn.Module, inputs: tuple[torch.Tensor, ...] | None = None) -> frozenset[nn.Module]:
    """Return the layers that hold a parameter which another layer holds too, or that stand at several places.

    Args:
        model: The model.
        inputs: What it is called with, to find layers that run more than once, too; None: those do not count.
    """
    places = Counter(id(layer) for _name, layer in model.named_modules(remove_duplicate=False))
    layers = list(model.modules())
    holders = Counter(id(value) for layer in layers for value in layer.parameters(recurse=False))
    found = {
        layer
        for layer in layers
        if places[id(layer)] > 1 or any(holders[id(value)] > 1 for value in layer.parameters(recurse=False))
    }
    if inputs is not None:
        runs = Counter[nn.Module]()
        hooks = [layer.register_forward_hook(lambda layer, *_given: runs.update([layer])) for layer in layers]
        try:
            with torch.no_grad():
                model(*inputs)
        finally:
            for hook in hooks:
                hook.remove()
        found |= {layer for layer, count in runs.items() if count > 1 and next(layer.parameters(), None) is not None}
    return frozenset(found)
