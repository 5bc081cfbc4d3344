"""2:4 pruning: of every four neighbours along the input, the two smallest become zero (Mishra et al., 2021).

It is the pattern that sparse tensor cores multiply twice as fast. Run ``fine-tune`` with ``keep_zeros`` after it.
"""

import copy
from dataclasses import replace

import torch

from hedgerow.compile.errors import PassError
from hedgerow.compile.passes.model.prunable import prunable_weights
from hedgerow.compile.passes.settings import NoSettings, read_settings
from hedgerow.compile.stage import Settings, Source

__all__ = ["prune_two_four"]

_GROUP, _KEPT = 4, 2


def prune_two_four(source: Source, settings: Settings) -> Source:
    """Return the source with a model whose weights have two zeros in every four input channels.

    Layers whose input channels are no multiple of four, such as depthwise and first convolutions, stay as they are.

    Raises:
        PassError: No layer of the model has a multiple of four input channels.
        PassSettingsError: Settings are given; it has none.
    """
    read_settings("prune-two-four", NoSettings, settings)
    model = copy.deepcopy(source.model)
    weights = [value for _name, value in prunable_weights(model) if value.shape[1] % _GROUP == 0]
    if not weights:
        raise PassError("prune-two-four", "no layer has a multiple of four input channels")
    with torch.no_grad():
        for value in weights:
            # Output, groups of four input channels, then the kernel's taps: (o, i / 4, 4, ...).
            groups = value.abs().reshape(len(value), -1, _GROUP, *value.shape[2:])
            smallest = torch.argsort(groups, dim=2, stable=True).narrow(2, 0, _GROUP - _KEPT)
            mask = torch.ones_like(groups).scatter_(2, smallest, 0.0)
            value.mul_(mask.flatten(1, 2))
    return replace(source, model=model)
