"""Where the task's model begins in a traced program. Pure."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import fx

__all__ = ["nodes_from_model_on"]


def nodes_from_model_on(graph: "fx.Graph", path: str) -> "frozenset[fx.Node]":
    """Return the nodes inside the task's model, and all that use what comes out of it.

    Args:
        graph: Of an exported program, or of its module.
        path: Where the model is in the module that was exported, or in one around that, such as ``logits.model``.
    """
    found: set[fx.Node] = set()
    for node in graph.nodes:
        stack = [str(place) for place, _kind in (node.meta.get("nn_module_stack") or {}).values()]
        inside = any(f".{path}." in f".{place}." for place in stack)
        if inside or not found.isdisjoint(node.all_input_nodes):
            found.add(node)
    return frozenset(found)
