"""Unstructured magnitude pruning: the smallest weights become zero (Han et al., 2015).

The shapes stay: a file gets smaller only where its format or its transport compresses zeros, and faster nowhere that
multiplies densely. Run ``fine-tune`` with ``keep_zeros`` after it.
"""

import copy
from dataclasses import dataclass, replace

import torch

from hedgerow.compile.errors import PassError
from hedgerow.compile.passes.model.prunable import prunable_weights
from hedgerow.compile.passes.settings import between, one_of, read_settings
from hedgerow.compile.stage import Settings, Source

__all__ = ["PruneWeightsSettings", "prune_weights"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneWeightsSettings:
    """Settings of :func:`prune_weights`.

    Attributes:
        share: Share of the weights that become zero, rounded down.
        scope: ``layer``: the same share of every layer; ``model``: the smallest of all, wherever they are.
    """

    share: float = between(0.0, 0.99)
    scope: str = one_of("layer", "model", default="layer")


def prune_weights(source: Source, settings: Settings) -> Source:
    """Return the source with a model whose smallest weights are zero; exactly the share asked for.

    Raises:
        PassError: The model has no weights to prune.
        PassSettingsError: The settings make no sense.
    """
    chosen = read_settings("prune-weights", PruneWeightsSettings, settings)
    model = copy.deepcopy(source.model)
    weights = [value for _name, value in prunable_weights(model)]
    if not weights:
        raise PassError("prune-weights", "it has no matrix or kernel")
    groups = [[value] for value in weights] if chosen.scope == "layer" else [weights]
    with torch.no_grad():
        for group in groups:
            magnitudes = torch.cat([value.abs().flatten() for value in group])
            mask = torch.ones_like(magnitudes)
            # A stable order: of two equal weights the first goes, on every machine.
            mask[torch.argsort(magnitudes, stable=True)[: int(chosen.share * len(magnitudes))]] = 0
            start = 0
            for value in group:
                value.mul_(mask[start : start + value.numel()].view_as(value))
                start += value.numel()
    return replace(source, model=model)
