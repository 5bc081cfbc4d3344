"""Write the masks of a traced model anew, so that no number is lower than softmax can see.

What a mask hides gets :data:`LOW` in place of a sum with minus infinity or -1e9: softmax gives both exactly zero, and a
quantizer that looks at extremes finds the scores' own. ``scaled_dot_product_attention`` with a mask is taken apart, for
its mask would be inside.
"""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import fx

from hedgerow.compile.passes.traced.constants import constant_values
from hedgerow.compile.passes.traced.in_place import write_nothing
from hedgerow.compile.passes.traced.invisible import Splitter

__all__ = ["LOW", "rewrite_masks"]

_aten = torch.ops.aten
LOW = -1e4
"""What hidden scores become: far below all others, and a number of float16."""
_GAP = 20.0
"""Softmax gives a number that is so far below the largest 2e-9 of its share: less than float32 resolves."""
_OURS = "hedgerow_mask_"
_SOFTMAX = {_aten.softmax.int, _aten._softmax.default}  # noqa: SLF001 - the operator's name
_ATTENTION = _aten.scaled_dot_product_attention.default


def rewrite_masks(program: fx.GraphModule, batches: Iterable[tuple[torch.Tensor, ...]]) -> bool:
    """Rewrite every mask before a softmax, in place.

    A mask is what lies further below the scores than they differ among themselves; how much that is, *batches* show.
    Where a mask hides all that a softmax could see, torch gives zeros in ``scaled_dot_product_attention`` and so does
    the result; elsewhere torch gives the mean or, for minus infinity, NaN, and the result is the mean.

    Args:
        program: A traced model.
        batches: Inputs of the model, to look at its scores.

    Returns:
        Whether there was any.
    """
    write_nothing(program)
    zeroed = _take_apart(program)
    constants = constant_values(program)
    sites = [node for node in program.graph.nodes if node.op == "call_function" and node.target in _SOFTMAX]
    ranges = _ranges(program, sites, constants, batches)
    rewritten = False
    for site in sites:
        low, high = ranges.get(site, (0.0, 0.0))
        if _hide(program, constants, site, 2 * (high - low) + _GAP, min(LOW, 10 * low), zeroed=site in zeroed):
            rewritten = True
    _finish(program)
    return rewritten


def _splitter(program: fx.GraphModule, constants: dict[fx.Node, torch.Tensor]) -> Splitter:
    def keep(value: torch.Tensor) -> fx.Node:
        node = _stored(program, value)
        constants[node] = value
        return node

    return Splitter(program.graph, constants, keep)


def _stored(program: fx.GraphModule, value: torch.Tensor) -> fx.Node:
    number = sum(name.startswith(_OURS) for name, _buffer in program.named_buffers(recurse=False))
    program.register_buffer(f"{_OURS}{number}", value.contiguous(), persistent=False)
    return program.graph.get_attr(f"{_OURS}{number}")


def _hide(
    program: fx.GraphModule,
    constants: dict[fx.Node, torch.Tensor],
    site: fx.Node,
    depth: float,
    low: float,
    *,
    zeroed: bool,
) -> bool:
    scores: Any = site.args[0]
    with program.graph.inserting_before(site):
        splitter = _splitter(program, constants)
        parts = splitter.split(scores, depth)
        if parts.hidden is None or parts.shown is None:
            return False
        if _shape(parts.shown) == _shape(scores):
            masked = splitter.call(_aten.masked_fill.Scalar, parts.shown, parts.hidden, low)
        else:
            masked = splitter.call(_aten.where.ScalarSelf, parts.hidden, low, parts.shown)
    site.replace_input_with(scores, masked)
    dim = int(site.args[1])  # type: ignore[arg-type]
    if zeroed and not _sees_something(constants.get(parts.hidden), dim):
        with program.graph.inserting_after(site):
            shown = program.graph.call_function(_aten.masked_fill.Scalar, (site, parts.hidden, 0.0))
        site.replace_all_uses_with(shown, delete_user_cb=lambda user: user is not shown)
    return True


def _shape(node: fx.Node) -> Any:
    value = node.meta.get("val")
    return value.shape if isinstance(value, torch.Tensor) else None


def _sees_something(hidden: torch.Tensor | None, dim: int) -> bool:
    return hidden is not None and not bool(hidden.all(dim).any())


def _ranges(
    program: fx.GraphModule,
    sites: list[fx.Node],
    constants: dict[fx.Node, torch.Tensor],
    batches: Iterable[tuple[torch.Tensor, ...]],
) -> dict[fx.Node, tuple[float, float]]:
    """Return the extremes of the scores behind each mask, the hidden ones too."""
    found: dict[fx.Node, tuple[float, float]] = {}
    watched: dict[fx.Node, fx.Node] = {}
    for site in sites:
        with program.graph.inserting_before(site):
            parts = _splitter(program, constants).split(site.args[0], _GAP)  # type: ignore[arg-type]
        if parts.hidden is not None and parts.shown is not None:
            watched[parts.shown] = site
    if not watched:
        return found

    class _Watch(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            value = super().run_node(n)
            if n in watched:
                before = found.get(watched[n], (math.inf, -math.inf))
                seen = value[torch.isfinite(value)]
                if seen.numel():
                    least, most = (float(extreme) for extreme in torch.aminmax(seen))
                    found[watched[n]] = (min(before[0], least), max(before[1], most))
            return value

    watch = _Watch(program)
    with torch.no_grad():
        for batch in batches:
            watch.run(*batch)
    return found


def _take_apart(program: fx.GraphModule) -> set[fx.Node]:
    """Write attention with a mask as products and a softmax; return those softmaxes."""
    graph, made = program.graph, set()
    for node in list(graph.nodes):
        if node.op != "call_function" or node.target is not _ATTENTION:
            continue
        given = dict(zip(("query", "key", "value", "attn_mask", "dropout_p", "is_causal"), node.args, strict=False))
        given |= node.kwargs
        mask, causal = given.get("attn_mask"), given.get("is_causal", False)
        if (mask is None and not causal) or given.get("dropout_p", 0.0):
            continue
        with graph.inserting_before(node):
            softmax, result = _attention(program, given, mask)
        made.add(softmax)
        node.replace_all_uses_with(result)
        graph.erase_node(node)
    return made


def _attention(program: fx.GraphModule, given: dict[str, Any], mask: fx.Node | None) -> tuple[fx.Node, fx.Node]:
    call = program.graph.call_function
    query, key, value = given["query"], given["key"], given["value"]
    shape = query.meta["val"].shape
    scale = given.get("scale")
    if given.get("enable_gqa", False):
        times = int(shape[-3]) // int(key.meta["val"].shape[-3])
        key, value = (call(_aten.repeat_interleave.self_int, (part, times, -3)) for part in (key, value))
    scaled = call(_aten.mul.Tensor, (query, float(shape[-1]) ** -0.5 if scale is None else scale))
    scores = call(_aten.matmul.default, (scaled, call(_aten.transpose.int, (key, -2, -1))))
    keys = given["key"].meta["val"].shape[-2]
    scores.meta["val"] = given["query"].meta["val"].new_empty((*shape[:-1], keys))
    if mask is None:
        hidden = torch.ones(int(shape[-2]), int(keys), dtype=torch.bool).tril().logical_not()
        scores = _masked(call, scores, _stored(program, hidden))
    elif mask.meta["val"].dtype == torch.bool:
        scores = _masked(call, scores, call(_aten.logical_not.default, (mask,)))
    else:
        before, scores = scores, call(_aten.add.Tensor, (scores, mask))
        scores.meta["val"] = before.meta["val"]
    softmax = call(_aten.softmax.int, (scores, -1))
    return softmax, call(_aten.matmul.default, (softmax, value))


def _masked(call: Any, scores: fx.Node, hidden: fx.Node) -> fx.Node:
    found: fx.Node = call(_aten.masked_fill.Scalar, (scores, hidden, -math.inf))
    found.meta["val"] = scores.meta["val"]
    return found


def _finish(program: fx.GraphModule) -> None:
    """Drop what nothing reads any more, constants too."""
    program.graph.eliminate_dead_code()
    read = {str(node.target) for node in program.graph.nodes if node.op == "get_attr"}
    for name, _buffer in list(program.named_buffers(recurse=False)):
        if name.startswith(_OURS) and name not in read:
            delattr(program, name)
    program.graph.lint()
    program.recompile()
