"""Structured pruning: whole channels go, with everything that depends on them (Fang et al., DepGraph, 2023).

torch-pruning finds which layers must lose a channel together, such as the two sides of a residual addition, and ranks
channels by the magnitude of all their weights. Run ``fine-tune`` after it.
"""

import contextlib
import copy
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
import torch_pruning
from torch import nn

from hedgerow.blame import is_raised_by_hedgerow
from hedgerow.compile.errors import PassError, UnsuitableError
from hedgerow.compile.passes.examples import example_inputs
from hedgerow.compile.passes.macs import count_macs
from hedgerow.compile.passes.settings import between, one_of, read_settings
from hedgerow.compile.stage import Settings, Source
from hedgerow.task_module import LogitsModule

__all__ = ["PruneChannelsSettings", "prune_channels"]

_STEP = "prune-channels"
_LAYERS = (nn.Linear, nn.modules.conv._ConvNd)  # noqa: SLF001  # torch has no public base of convolutions


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneChannelsSettings:
    """Settings of :func:`prune_channels`.

    Attributes:
        share: Share of the channels that every layer loses.
        round_to: Channels left are a multiple of it, which vector units like.
        scope: ``layer``: the same share of every layer; ``model``: the least important of all, wherever they are.
    """

    share: float = between(0.0, 0.95)
    round_to: int = between(1, 64, default=1)
    scope: str = one_of("layer", "model", default="layer")


def prune_channels(source: Source, settings: Settings) -> Source:
    """Return the source with a narrower model; its inputs and outputs keep their shapes.

    Raises:
        PassError: torch-pruning does not understand the model.
        UnsuitableError: No channel can go.
        PassSettingsError: The settings make no sense.
    """
    chosen = read_settings(_STEP, PruneChannelsSettings, settings)
    inputs = example_inputs(source.task.schema, 2)
    before = count_macs(source, source.model)
    try:
        model = _pruned(source, inputs, chosen, frozenset())
    except PassError:
        # Some layer's width is written into the model's code; the others may go on.
        model = _pruned(source, inputs, chosen, _fixed_layers(source, inputs))
    after = count_macs(source, model)
    if after >= before:
        found = f"{before} multiplications before and {after} after"
        raise UnsuitableError(_STEP, "a model that channels can be taken from", found, "choose another recipe")
    return replace(source, model=model)


def _pruned(
    source: Source, inputs: tuple[torch.Tensor, ...], chosen: PruneChannelsSettings, fixed: frozenset[str]
) -> nn.Module:
    """Return a narrower copy of the model, whose layers called *fixed* keep their width."""
    model = copy.deepcopy(source.model).eval()
    module = LogitsModule(source.task, model)
    layers = dict(model.named_modules())
    heads = {layer: layer.num_heads for layer in model.modules() if isinstance(layer, nn.MultiheadAttention)}
    with _tool_errors():
        wanted = module(*inputs).shape
        pruner = torch_pruning.pruner.BasePruner(
            module,
            inputs,
            importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
            global_pruning=chosen.scope == "model",
            pruning_ratio=chosen.share,
            ignored_layers=[_last_layer(module, inputs), *(layers[name] for name in sorted(fixed))],
            round_to=chosen.round_to,
            num_heads=heads,
        )
        pruner.step()
        _check_shape(module, inputs, wanted)
    for parameter in model.parameters():
        parameter.grad = None
    return model


def _fixed_layers(source: Source, inputs: tuple[torch.Tensor, ...]) -> frozenset[str]:
    """Return the layers that cannot lose one channel: the model then breaks, such as at a fixed reshape."""
    found = set()
    wanted = LogitsModule(source.task, source.model.eval())(*inputs).shape
    for name, layer in source.model.named_modules():
        if not isinstance(layer, _LAYERS):
            continue
        model = copy.deepcopy(source.model).eval()
        module, tried = LogitsModule(source.task, model), model.get_submodule(name)
        try:
            with _tool_errors():
                graph = torch_pruning.DependencyGraph().build_dependency(module, inputs)
                graph.get_pruning_group(tried, graph.get_pruner_of_module(tried).prune_out_channels, [0]).prune()
                _check_shape(module, inputs, wanted)
        except PassError:
            found.add(name)
    return frozenset(found)


def _check_shape(module: nn.Module, inputs: tuple[torch.Tensor, ...], wanted: torch.Size) -> None:
    with torch.no_grad():
        found = module(*inputs).shape
    if found != wanted:
        raise PassError(_STEP, f"pruning changed the outputs from {list(wanted)} to {list(found)}")


@contextlib.contextmanager
def _tool_errors() -> Iterator[None]:
    """Name the step in whatever torch-pruning raises, or the model that it made wrong."""
    with warnings.catch_warnings(), torch.enable_grad():
        # torch-pruning 1.6 warns of parameters outside layers, which it handles.
        warnings.simplefilter("ignore")
        try:
            yield
        except PassError:
            raise
        except Exception as exc:
            if is_raised_by_hedgerow(exc):
                raise
            said = (str(exc).strip().splitlines() or [""])[0][:200]
            raise PassError(_STEP, f"{type(exc).__name__}: {said}") from exc


def _last_layer(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> nn.Module:
    """Return the layer that ran last: its channels are the model's outputs."""
    ran: list[nn.Module] = []
    hooks = [
        layer.register_forward_hook(lambda layer, _arguments, _output: ran.append(layer))
        for layer in module.modules()
        if isinstance(layer, _LAYERS)
    ]
    try:
        with torch.no_grad():
            module(*inputs)
    finally:
        for hook in hooks:
            hook.remove()
    if not ran:
        raise UnsuitableError(_STEP, "a convolution or a linear layer", "none", "choose another recipe")
    return ran[-1]
