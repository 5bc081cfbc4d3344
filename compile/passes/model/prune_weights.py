"""Unstructured magnitude pruning: the smallest weights become zero (Han et al., 2015).

The shapes stay: a file gets smaller only where its format or its transport compresses zeros, and faster nowhere that
multiplies densely. Run ``fine-tune`` with ``keep_zeros`` after it.
"""

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from hedgerow.compile.errors import PassError
from hedgerow.compile.pass_models import FloatModel
from hedgerow.compile.passes.kinds import ModelPass
from hedgerow.compile.passes.settings import between, one_of

if TYPE_CHECKING:
    from torch import nn

__all__ = ["PruneWeights"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneWeights(ModelPass):
    """Sets the smallest weights to zero; exactly the share asked for.

    Attributes:
        share: Share of the weights that become zero, rounded down.
        scope: ``layer``: the same share of every layer; ``model``: the smallest of all, wherever they are.
    """

    name: ClassVar[str] = "prune-weights"
    share: float = between(0.0, 0.99)
    scope: str = one_of("layer", "model", default="layer")

    def apply(self, source: FloatModel) -> "nn.Module":
        """Return a model whose smallest weights are zero.

        Raises:
            PassError: The model has no weights to prune.
        """
        import torch

        from hedgerow.compile.passes.model.prunable import prunable_weights

        model = copy.deepcopy(source.model)
        weights = [value for _name, value in prunable_weights(model)]
        if not weights:
            raise PassError(self.name, "it has no matrix or kernel")
        groups = [[value] for value in weights] if self.scope == "layer" else [weights]
        with torch.no_grad():
            for group in groups:
                magnitudes = torch.cat([value.abs().flatten() for value in group])
                mask = torch.ones_like(magnitudes)
                # A stable order: of two equal weights the first goes, on every machine.
                mask[torch.argsort(magnitudes, stable=True)[: int(self.share * len(magnitudes))]] = 0
                start = 0
                for value in group:
                    value.mul_(mask[start : start + value.numel()].view_as(value))
                    start += value.numel()
        return model
