"""Weight-only rounding of linear layers with Intel neural-compressor's RTN, to 15 or 255 steps in groups.

The weights stay float numbers that lie on the grid; ``quantize-onnx-weights`` with the same bits and block stores them
as integers without a further loss. neural-compressor's own packed layer has no ONNX form, and its entry point for RTN
imports a package that its extra does not install, so the rounding function under both is called.
"""

import copy
import warnings
from dataclasses import dataclass, replace

import torch
from torch import nn

from hedgerow.compile.errors import PassError
from hedgerow.compile.passes.settings import one_of, read_settings
from hedgerow.compile.stage import Settings, Source

__all__ = ["RoundWeightsSettings", "round_weights_inc"]

_STEP = "round-weights-inc"


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundWeightsSettings:
    """Settings of :func:`round_weights_inc`.

    Attributes:
        bits: 4 or 8.
        block: Inputs that share a scale.
    """

    bits: int = one_of(4, 8)
    block: int = one_of(16, 32, 64, 128, 256, default=32)


def round_weights_inc(source: Source, settings: Settings) -> Source:
    """Return the source with a model whose linear layers have rounded weights.

    Raises:
        PassError: The model has no linear layer.
        PassSettingsError: The settings make no sense.
    """
    chosen = read_settings(_STEP, RoundWeightsSettings, settings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from neural_compressor.torch.algorithms.weight_only.utility import quant_tensor
    model = copy.deepcopy(source.model)
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Linear)]
    if not layers:
        raise PassError(_STEP, "it has no linear layer")
    with torch.no_grad():
        for layer in layers:
            # It writes into what it is given.
            rounded = quant_tensor(layer.weight.clone(), bits=chosen.bits, group_size=chosen.block, scheme="sym")
            layer.weight.copy_(rounded)
    return replace(source, model=model)
