"""Structured pruning: whole channels go, with everything that depends on them (Fang et al., DepGraph, 2023).

torch-pruning finds which layers must lose a channel together, such as the two sides of a residual addition, and ranks
channels by the magnitude of all their weights. Run ``fine-tune`` after it.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from hedgerow.compile.pass_models import FloatModel
from hedgerow.compile.passes.kinds import ModelPass
from hedgerow.compile.passes.settings import between, one_of

if TYPE_CHECKING:
    from torch import nn

__all__ = ["PruneChannels"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneChannels(ModelPass):
    """Takes whole channels out of a model.

    Attributes:
        share: Share of the channels that every layer loses.
        round_to: Channels left are a multiple of it, which vector units like.
        scope: ``layer``: the same share of every layer; ``model``: the least important of all, wherever they are.
    """

    name: ClassVar[str] = "prune-channels"
    share: float = between(0.0, 0.95)
    round_to: int = between(1, 64, default=1)
    scope: str = one_of("layer", "model", default="layer")

    def apply(self, source: FloatModel) -> "nn.Module":
        """Return a narrower model; its inputs and outputs keep their shapes.

        Raises:
            PassError: torch-pruning does not understand the model.
            UnsuitableError: No channel can go.
        """
        from hedgerow.compile.passes.model.channels import narrower

        return narrower(source, self)
