"""2:4 pruning: of every four neighbours along the input, the two smallest become zero (Mishra et al., 2021).

It is the pattern that sparse tensor cores multiply twice as fast. Run ``fine-tune`` with ``keep_zeros`` after it.
"""

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from hedgerow.compile.errors import PassError
from hedgerow.compile.pass_models import FloatModel
from hedgerow.compile.passes.kinds import ModelPass

if TYPE_CHECKING:
    from torch import nn

__all__ = ["PruneTwoFour"]

_GROUP, _KEPT = 4, 2


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneTwoFour(ModelPass):
    """Leaves two zeros in every four input channels.

    Layers whose input channels are no multiple of four, such as depthwise and first convolutions, stay as they are.
    """

    name: ClassVar[str] = "prune-two-four"

    def apply(self, source: FloatModel) -> "nn.Module":
        """Return a model whose weights are half zeros.

        Raises:
            PassError: No layer of the model has a multiple of four input channels.
        """
        import torch

        from hedgerow.compile.passes.model.prunable import prunable_weights

        model = copy.deepcopy(source.model)
        weights = [value for _name, value in prunable_weights(model) if value.shape[1] % _GROUP == 0]
        if not weights:
            raise PassError(self.name, "no layer has a multiple of four input channels")
        with torch.no_grad():
            for value in weights:
                # Output, groups of four input channels, then the kernel's taps: (o, i / 4, 4, ...).
                groups = value.abs().reshape(len(value), -1, _GROUP, *value.shape[2:])
                smallest = torch.argsort(groups, dim=2, stable=True).narrow(2, 0, _GROUP - _KEPT)
                mask = torch.ones_like(groups).scatter_(2, smallest, 0.0)
                value.mul_(mask.flatten(1, 2))
        return model
