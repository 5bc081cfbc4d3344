"""What reads one step of an unrolled layer's outputs takes that step, and not a place of all of them put together."""

import sys
from typing import Any

import torch
from torch import fx

__all__ = ["take_steps"]

_aten = torch.ops.aten


def take_steps(program: fx.GraphModule) -> bool:
    """Replace each choice of one place among tensors that were joined, in place; return whether there was any."""
    found = False
    for node in program.graph.nodes:
        if node.op != "call_function" or node.target is not _aten.select.int:
            continue
        axis, place = int(node.args[1]), int(node.args[2])
        step = _step(node.args[0], axis, place)
        if step is not None:
            with program.graph.inserting_before(node):
                node.replace_all_uses_with(program.graph.call_function(_aten.squeeze.dim, (step, axis)))
            found = True
    if found:
        program.graph.eliminate_dead_code()
        program.graph.lint()
        program.recompile()
    return found


def _step(node: Any, axis: int, place: int) -> fx.Node | None:
    """Return the tensor of one place along *axis* that *node* was joined of, or None."""
    while node.target is _aten.slice.Tensor and _is_whole(node):
        node = node.args[0]
    if node.target is not _aten.cat.default or (node.args[1] if len(node.args) > 1 else 0) != axis:
        return None
    sizes = [part.meta["val"].shape[axis] for part in node.args[0] if "val" in part.meta]
    if len(sizes) < len(node.args[0]) or not all(isinstance(size, int) for size in sizes):
        return None
    place %= sum(sizes)
    for part, size in zip(node.args[0], sizes, strict=True):
        if place < size:
            found: fx.Node | None = part if size == 1 else _step(part, axis, place)
            return found
        place -= size
    return None


def _is_whole(node: fx.Node) -> bool:
    """Say whether a slice leaves nothing out."""
    given: Any = node.args
    start, end, step = (
        given[place] if len(given) > place else default for place, default in ((2, 0), (3, None), (4, 1))
    )
    return not start and end in {None, sys.maxsize} and bool(step == 1)
