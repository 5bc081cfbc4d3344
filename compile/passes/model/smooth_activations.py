"""SmoothQuant: move the outliers of activations into the weights before quantizing (Xiao et al., 2023).

Every linear layer's input channel is divided by ``max|x|^alpha / max|w|^(1 - alpha)`` and its weight column multiplied
by the same number: the same function, with ranges that eight bits hold better. neural-compressor 3.10's own SmoothQuant
imports Intel's extension for PyTorch, which has no release for this torch, so the step is done here and its static
quantizer follows.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from hedgerow.compile.pass_models import FloatModel
from hedgerow.compile.passes.kinds import ModelPass
from hedgerow.compile.passes.settings import between

if TYPE_CHECKING:
    from torch import nn

__all__ = ["SmoothActivations"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SmoothActivations(ModelPass):
    """Gives the linear layers smoother inputs; the model computes the same.

    Attributes:
        alpha: 0 leaves all the difficulty with the activations, 1 gives all of it to the weights.
    """

    name: ClassVar[str] = "smooth-activations"
    alpha: float = between(0.0, 1.0, default=0.5)

    def apply(self, source: FloatModel) -> "nn.Module":
        """Return a model that computes the same with smoother inputs of its linear layers.

        Raises:
            PassError: The model has no linear layer that is called by itself.
        """
        from hedgerow.compile.passes.model.smoothing import smoothed

        return smoothed(source, self)
