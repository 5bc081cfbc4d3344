"""Move the outliers of a model's activations into its weights."""

import copy

import torch
from torch import nn

from hedgerow.compile.errors import PassError
from hedgerow.compile.pass_models import FloatModel
from hedgerow.compile.passes.model.sharing import shared_layers
from hedgerow.compile.passes.model.smooth_activations import SmoothActivations
from hedgerow.compile.passes.model.training import input_tensors
from hedgerow.task_module import LogitsModule

__all__ = ["smoothed"]

_BATCH = 256


class _Divide(nn.Module):
    """Divides every channel by a constant."""

    factors: torch.Tensor

    def __init__(self, divisors: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("factors", 1 / divisors)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Return the divided values."""
        return values * self.factors


def smoothed(source: FloatModel, chosen: SmoothActivations) -> nn.Module:
    """Return a model that computes the same with smoother inputs of its linear layers.

    Raises:
        PassError: The model has no linear layer that is called by itself and whose weights are its own.
    """
    model = copy.deepcopy(source.model).eval()
    # Attention reads its projections' weights without calling them.
    inside = {
        id(part) for layer in model.modules() if isinstance(layer, nn.MultiheadAttention) for part in layer.modules()
    }
    # The weights of one layer can take outliers of its own inputs alone.
    shared = shared_layers(model)
    layers = {
        name: layer
        for name, layer in model.named_modules()
        if name and isinstance(layer, nn.Linear) and id(layer) not in inside and layer not in shared
    }
    extremes = _input_extremes(source, model, layers)
    if not extremes:
        raise PassError(chosen.name, "it has no linear layer")
    with torch.no_grad():
        for name, largest in extremes.items():
            layer = layers[name]
            weights = layer.weight.abs().amax(dim=0).clamp_min(1e-5)
            divisors = largest.clamp_min(1e-5) ** chosen.alpha / weights ** (1 - chosen.alpha)
            # A channel that calibration never saw move stays as it is.
            divisors = torch.where(largest > 0, divisors.clamp_min(1e-5), torch.ones_like(divisors))
            layer.weight.mul_(divisors)
            model.set_submodule(name, nn.Sequential(_Divide(divisors), layer))
    return model


def _input_extremes(source: FloatModel, model: nn.Module, layers: dict[str, nn.Linear]) -> dict[str, torch.Tensor]:
    """Return the largest magnitude of every input channel of the layers that calibration reaches."""
    found: dict[str, torch.Tensor] = {}

    def watch(name: str) -> torch.utils.hooks.RemovableHandle:
        def keep(_layer: nn.Module, arguments: tuple[torch.Tensor, ...]) -> None:
            values = arguments[0].abs().reshape(-1, arguments[0].shape[-1]).amax(dim=0)
            found[name] = torch.maximum(found[name], values) if name in found else values

        return layers[name].register_forward_pre_hook(keep)

    hooks = [watch(name) for name in layers]
    inputs, module = input_tensors(source, source.calibration), LogitsModule(source.task, model)
    try:
        with torch.no_grad():
            for start in range(0, len(inputs[0]), _BATCH):
                module(*(values[start : start + _BATCH] for values in inputs))
    finally:
        for hook in hooks:
            hook.remove()
    return dict(sorted(found.items()))
