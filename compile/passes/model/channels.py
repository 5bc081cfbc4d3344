"""Take channels out of a model with torch-pruning, with everything that depends on them."""

import copy
from typing import Any

import torch
import torch_pruning
from torch import nn

from hedgerow.compile.errors import PassError, UnsuitableError
from hedgerow.compile.pass_models import FloatModel
from hedgerow.compile.passes.examples import example_inputs
from hedgerow.compile.passes.model.macs import count_macs
from hedgerow.compile.passes.model.prune_channels import PruneChannels
from hedgerow.compile.passes.model.sharing import shared_layers
from hedgerow.compile.passes.model.student import given_shapes
from hedgerow.compile.passes.runner import tool_errors
from hedgerow.task_module import LogitsModule

__all__ = ["narrower"]

Shapes = tuple[tuple[int, ...], ...]
_LAYERS = (nn.Linear, nn.modules.conv._ConvNd)  # noqa: SLF001  # torch has no public base of convolutions


def narrower(source: FloatModel, chosen: PruneChannels) -> nn.Module:
    """Return a narrower model; its inputs and outputs keep their shapes.

    Raises:
        PassError: torch-pruning does not understand the model.
        UnsuitableError: No channel can go.
    """
    inputs = example_inputs(source.task.schema, 2)
    before = count_macs(source, source.model)
    try:
        model = _pruned(source, inputs, chosen, frozenset())
    except PassError:
        # Some layer's width is written into the model's code; the others may go on.
        model = _pruned(source, inputs, chosen, _fixed_layers(chosen.name, source, inputs))
    after = count_macs(source, model)
    if after >= before:
        found = f"{before} multiplications before and {after} after"
        raise UnsuitableError(chosen.name, "a model that channels can be taken from", found, "choose another recipe")
    return model


def _pruned(
    source: FloatModel, inputs: tuple[torch.Tensor, ...], chosen: PruneChannels, fixed: frozenset[str]
) -> nn.Module:
    """Return a narrower copy of the model, whose layers called *fixed* keep their width."""
    model = copy.deepcopy(source.model).eval()
    module = LogitsModule(source.task, model)
    layers = dict(model.named_modules())
    # torch-pruning would give each layer a weight of its own, and cut what runs twice for one of its places.
    shared = shared_layers(module, inputs)
    heads = {layer: layer.num_heads for layer in model.modules() if isinstance(layer, nn.MultiheadAttention)}
    with tool_errors(chosen.name), torch.enable_grad():
        wanted = given_shapes(module(*inputs))
        pruner = torch_pruning.pruner.BasePruner(
            module,
            inputs,
            importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
            global_pruning=chosen.scope == "model",
            pruning_ratio=chosen.share,
            ignored_layers=[
                *_last_layers(chosen.name, module, inputs),
                *(layers[name] for name in sorted(fixed)),
                *(layer for layer in layers.values() if layer in shared),
            ],
            round_to=chosen.round_to,
            num_heads=heads,
        )
        pruner.step()
        _check_shape(chosen.name, module, inputs, wanted)
    for parameter in model.parameters():
        parameter.grad = None
    return model


def _fixed_layers(step: str, source: FloatModel, inputs: tuple[torch.Tensor, ...]) -> frozenset[str]:
    """Return the layers that cannot lose one channel: the model then breaks, such as at a fixed reshape."""
    found = set()
    wanted = given_shapes(LogitsModule(source.task, source.model.eval())(*inputs))
    for name, layer in source.model.named_modules():
        if not isinstance(layer, _LAYERS):
            continue
        model = copy.deepcopy(source.model).eval()
        module, tried = LogitsModule(source.task, model), model.get_submodule(name)
        try:
            with tool_errors(step), torch.enable_grad():
                graph = torch_pruning.DependencyGraph().build_dependency(module, inputs)
                graph.get_pruning_group(tried, graph.get_pruner_of_module(tried).prune_out_channels, [0]).prune()
                _check_shape(step, module, inputs, wanted)
        except PassError:
            found.add(name)
    return frozenset(found)


def _check_shape(step: str, module: nn.Module, inputs: tuple[torch.Tensor, ...], wanted: Shapes) -> None:
    with torch.no_grad():
        found = given_shapes(module(*inputs))
    if found != wanted:
        told = (" and ".join(str(list(shape)) for shape in shapes) for shapes in (wanted, found))
        raise PassError(step, f"pruning changed the outputs from {next(told)} to {next(told)}")


def _last_layers(step: str, module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> list[nn.Module]:
    """Return the layers whose channels are the model's outputs: the one that ran last, and every one that gives one.

    Of several outputs each has a layer of its own, which is found by what it gave.
    """
    ran: list[tuple[nn.Module, Any]] = []
    hooks = [
        layer.register_forward_hook(lambda layer, _arguments, output: ran.append((layer, output)))
        for layer in module.modules()
        if isinstance(layer, _LAYERS)
    ]
    try:
        with torch.no_grad():
            given = module(*inputs)
    finally:
        for hook in hooks:
            hook.remove()
    if not ran:
        raise UnsuitableError(step, "a convolution or a linear layer", "none", "choose another recipe")
    parts = given if isinstance(given, tuple) else ()
    heads = [layer for layer, output in ran if any(output is part for part in parts)]
    return list(dict.fromkeys([ran[-1][0], *heads]))
