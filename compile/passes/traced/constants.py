"""What in a traced model does not depend on its inputs."""

from typing import Any

import torch
from torch import fx

__all__ = ["constant_values"]


def constant_values(program: fx.GraphModule) -> dict[fx.Node, torch.Tensor]:
    """Return the values of buffers, parameters and all that is computed from them and from nothing else."""
    found: dict[fx.Node, Any] = {}
    interpreter = fx.Interpreter(program)
    with torch.no_grad():
        for node in program.graph.nodes:
            if node.op == "get_attr":
                found[node] = interpreter.fetch_attr(str(node.target))
            elif node.op == "call_function" and _is_pure(node) and all(one in found for one in node.all_input_nodes):
                args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda one: found[one])
                call: Any = node.target
                found[node] = call(*args, **kwargs)
    return {node: value for node, value in found.items() if isinstance(value, torch.Tensor)}


def _is_pure(node: fx.Node) -> bool:
    target = node.target
    if not isinstance(target, torch._ops.OpOverload):  # noqa: SLF001  # torch has no other name for it
        return callable(target) and getattr(target, "__module__", "") in {"_operator", "operator"}
    # An operator that draws numbers gives others in the next call.
    return not target._schema.is_mutable and torch.Tag.nondeterministic_seeded not in target.tags  # noqa: SLF001
