"""Which layer of a model loses most when numbers become coarse, for who asks why a quantized file was refused.

Each layer alone is rounded to eight bits, in torch, and the rest stays float: its weights with one scale for each row
of the output, as converters have it, and what it gives with one scale for all, over the range that it has on
calibration samples. That is no measurement of the file that was refused, whose converter rounds in its own way; it
says where to look, and the sentence says how it was found.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hedgerow.compile.pass_models import FloatModel
from hedgerow.compile.scoring import least_snr_db

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["LayerLoss", "LayerLosses", "layer_losses"]

_SAMPLES, _LIMIT_S = 64, 20.0
_STEPS, _HALF = 255, 127
_NEAR_DB, _MOST_NAMED = 6.0, 3
"""Within half the amplitude of the noise, layers are about as bad; more than so many at once are no finding."""


@dataclass(frozen=True, slots=True)
class LayerLoss:
    """What is left of the outputs when one layer is rounded.

    Attributes:
        layer: Its name in the model.
        kind: Its class.
        snr_db: Signal to noise of the model's outputs against those of the float model, of the one that lost most.
    """

    layer: str
    kind: str
    snr_db: float


@dataclass(frozen=True, slots=True)
class LayerLosses:
    """What the layers of a model cost.

    Attributes:
        found: Those that cost anything, the worst first.
        tried, layers: How many were tried, and how many there are.
    """

    found: tuple[LayerLoss, ...]
    tried: int
    layers: int

    def __str__(self) -> str:
        """Say which is the worst, without a full stop; empty where none costs anything."""
        if not self.found:
            return ""
        tried = "each" if self.tried == self.layers else f"{self.tried} of {self.layers} layers, each"
        how = f"({tried} rounded alone to 8 bits in torch)"
        worst = [loss for loss in self.found if loss.snr_db - self.found[0].snr_db < _NEAR_DB]
        told = ", ".join(f"{loss.layer!r} ({loss.kind}) {loss.snr_db:.0f} dB" for loss in worst[:_MOST_NAMED])
        if len(worst) > _MOST_NAMED:
            return f"no layer stands out; {told} and {len(worst) - _MOST_NAMED} others leave about as little {how}"
        rest = f", the next one {self.found[len(worst)].snr_db:.0f} dB" if len(worst) < len(self.found) else ""
        return f"most is lost where little is left: {told}{rest} {how}"


def layer_losses(
    source: FloatModel, *, limit_s: float = _LIMIT_S, clock: Callable[[], float] = time.monotonic
) -> LayerLosses:
    """Return what each layer costs when it is rounded alone.

    Args:
        source: The float model; nothing of it is changed afterwards.
        limit_s: No further layer is begun after that; the others are then left out.
        clock: Seconds.
    """
    import torch

    from hedgerow.task_module import ServingModule

    count = min(_SAMPLES, len(source.calibration))
    inputs = [torch.from_numpy(source.calibration.inputs[spec.name][:count]) for spec in source.task.inputs]
    serving = ServingModule(source.task, source.model).eval()
    layers = dict(_layers(source.model))
    begun, tried, found = clock(), 0, []
    fast = torch.backends.mha.get_fastpath_enabled()
    # It runs a layer's weights without calling the layers that hold them.
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad():
            plain = _parts(serving(*inputs))
            for name, layer in layers.items():
                if clock() - begun > limit_s:
                    break
                tried += 1
                with _rounded(layer):
                    outputs = _parts(serving(*inputs))
                if any(not np.array_equal(outputs[of], plain[of]) for of in plain):
                    found.append(LayerLoss(name, type(layer).__name__, least_snr_db(plain, outputs)))
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    return LayerLosses(tuple(sorted(found, key=lambda loss: loss.snr_db)), tried, len(layers))


def _parts(given: Any) -> dict[str, NDArray[np.float32]]:
    """Return each output that a model gives, by its place."""
    parts = given if isinstance(given, tuple) else (given,)
    return {str(place): part.numpy() for place, part in enumerate(parts)}


def _layers(model: "nn.Module") -> Iterator[tuple[str, "nn.Module"]]:
    """Yield what a user calls a layer: modules without any inside, and attention, which calls none of its own."""
    from torch import nn

    inside = set[str]()
    for name, module in model.named_modules():
        if any(name.startswith(f"{outer}.") for outer in inside):
            continue
        if isinstance(module, nn.MultiheadAttention):
            inside.add(name)
            yield name, module
        elif name and not any(True for _ in module.children()):
            yield name, module


@contextmanager
def _rounded(layer: "nn.Module") -> Iterator[None]:
    import torch

    def coarse(_module: Any, _arguments: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            return (_coarse_output(output[0]), *output[1:])
        return _coarse_output(output)

    kept = {name: value.detach().clone() for name, value in layer.named_parameters() if value.ndim > 1}
    hook = layer.register_forward_hook(coarse)
    try:
        with torch.no_grad():
            for name, value in layer.named_parameters():
                if name in kept:
                    value.copy_(_coarse_weight(layer, value))
        yield
    finally:
        hook.remove()
        with torch.no_grad():
            for name, value in layer.named_parameters():
                if name in kept:
                    value.copy_(kept[name])


def _coarse_weight(layer: "nn.Module", weight: "torch.Tensor") -> "torch.Tensor":
    from torch.nn.modules.conv import _ConvTransposeNd

    out = 1 if isinstance(layer, _ConvTransposeNd) else 0
    others = tuple(axis for axis in range(weight.ndim) if axis != out)
    scale = weight.abs().amax(dim=others, keepdim=True).clamp(min=1e-30) / _HALF
    return (weight / scale).round() * scale


def _coarse_output(values: Any) -> Any:
    import torch

    if not isinstance(values, torch.Tensor) or not values.is_floating_point() or not values.numel():
        return values
    low, high = values.amin().clamp(max=0), values.amax().clamp(min=0)
    scale = (high - low).clamp(min=1e-30) / _STEPS
    zero = (-low / scale).round()
    return ((values / scale + zero).round().clamp(0, _STEPS) - zero) * scale
