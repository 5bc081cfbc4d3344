"""What one layer of a model sees."""

import torch
from torch import nn

from hedgerow.compile.errors import PassError
from hedgerow.compile.pass_models import FloatModel
from hedgerow.compile.passes.model.training import input_tensors, training_data
from hedgerow.task_module import LogitsModule

__all__ = ["Tap", "teacher_features"]

_BATCH = 256


class Tap:
    """Keeps what the last call gave to a module: ``(batch, features)``, averaged over positions.

    Args:
        step: Name of the pass, for messages.
        model: What is looked into.
        name: Of the module; empty: the last linear layer.

    Raises:
        PassError: There is no such module.
    """

    def __init__(self, step: str, model: nn.Module, name: str) -> None:
        self._step = step
        layers = dict(model.named_modules())
        linear = [place for place, module in layers.items() if isinstance(module, nn.Linear)]
        if not name and not linear:
            raise PassError(step, "a model has no linear layer; name the layers to compare")
        chosen = name or linear[-1]
        if chosen not in layers:
            raise PassError(step, f"a model has no layer {chosen!r}; it has {', '.join(sorted(layers)[1:9])}, ...")
        self.seen: torch.Tensor | None = None
        self._hook = layers[chosen].register_forward_pre_hook(self._keep)

    def _keep(self, _module: nn.Module, arguments: tuple[torch.Tensor, ...]) -> None:
        values = arguments[0]
        # (batch, channels, *positions) for images; (batch, positions, channels) for sequences is seen as it is.
        self.seen = values.flatten(2).mean(dim=2) if values.dim() > 2 else values

    def features(self) -> torch.Tensor:
        """Return what was kept."""
        if self.seen is None:
            raise PassError(self._step, "the layer to compare is not used by its model")
        return self.seen

    def close(self) -> None:
        """Take the hook off."""
        self._hook.remove()


def teacher_features(step: str, source: FloatModel, layer: str) -> torch.Tensor:
    """Return what a layer of the model sees of all training samples, in their order.

    Raises:
        PassError: There is no such layer, or no training data.
    """
    inputs = input_tensors(source, training_data(step, source))
    module = LogitsModule(source.task, source.model).eval()
    tap = Tap(step, source.model, layer)
    rows = []
    try:
        with torch.no_grad():
            for start in range(0, len(inputs[0]), _BATCH):
                module(*(values[start : start + _BATCH] for values in inputs))
                rows.append(tap.features())
    finally:
        tap.close()
    return torch.cat(rows)
