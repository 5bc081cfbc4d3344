"""Weight-only rounding of linear layers with Intel neural-compressor's RTN, to 15 or 255 steps in groups.

The weights stay float numbers that lie on the grid; ``quantize-onnx-weights`` with the same bits and block stores them
as integers without a further loss. neural-compressor's own packed layer has no ONNX form, and its entry point for RTN
imports a package that its extra does not install, so the rounding function under both is called.
"""

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from hedgerow.compile.errors import PassError
from hedgerow.compile.pass_models import FloatModel
from hedgerow.compile.passes.kinds import ModelPass
from hedgerow.compile.passes.settings import one_of

if TYPE_CHECKING:
    from torch import nn

__all__ = ["WeightRoundingInc"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightRoundingInc(ModelPass):
    """Rounds the weights of linear layers.

    Attributes:
        bits: 4 or 8.
        block: Inputs that share a scale.
    """

    name: ClassVar[str] = "round-weights-inc"
    bits: int = one_of(4, 8)
    block: int = one_of(16, 32, 64, 128, 256, default=32)

    def apply(self, source: FloatModel) -> "nn.Module":
        """Return a model whose linear layers have rounded weights.

        Raises:
            PassError: The model has no linear layer.
        """
        import torch
        from neural_compressor.torch.algorithms.weight_only.utility import quant_tensor
        from torch import nn

        model = copy.deepcopy(source.model)
        layers = [layer for layer in model.modules() if isinstance(layer, nn.Linear)]
        if not layers:
            raise PassError(self.name, "it has no linear layer")
        with torch.no_grad():
            for layer in layers:
                # It writes into what it is given.
                rounded = quant_tensor(layer.weight.clone(), bits=self.bits, group_size=self.block, scheme="sym")
                layer.weight.copy_(rounded)
        return model
