"""Operators of a traced model that write into their argument, as operators that make a new tensor."""

import torch
from torch import fx

__all__ = ["write_nothing"]


def write_nothing(program: fx.GraphModule) -> None:
    """Replace every such operator whose argument nothing else reads afterwards; the others stay as they are."""
    order = {node: place for place, node in enumerate(program.graph.nodes)}
    for node in program.graph.nodes:
        target = node.target
        if not isinstance(target, torch._ops.OpOverload) or not target._schema.is_mutable:  # noqa: SLF001 - no other way
            continue
        plain = _plain(target)
        written = node.args[0] if node.args else None
        if plain is None or not isinstance(written, fx.Node) or not _is_own(written):
            continue
        if all(order[user] <= order[node] for user in written.users):
            node.target = plain
    program.recompile()


def _plain(target: torch._ops.OpOverload) -> torch._ops.OpOverload | None:
    """Return the operator that gives what *target* writes."""
    space, _, name = target._schema.name.partition("::")  # noqa: SLF001
    if space != "aten" or not name.endswith("_") or name.endswith("__"):
        return None
    packet = getattr(torch.ops.aten, name.removesuffix("_"), None)
    found: torch._ops.OpOverload | None = getattr(packet, target._overloadname, None)  # noqa: SLF001
    return found


def _is_own(node: fx.Node) -> bool:
    """Say whether a node's result is a tensor of its own: no input, parameter or view of another."""
    target = node.target
    if node.op != "call_function" or not isinstance(target, torch._ops.OpOverload):  # noqa: SLF001
        return False
    return all(result.alias_info is None for result in target._schema.returns)  # noqa: SLF001
