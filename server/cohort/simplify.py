"""Make a traced step short: what vmap, grad and functionalization leave behind costs more than the arithmetic.

A small step is bound by the cost of starting operations, about 2 microseconds each. Needs torch.
"""

import operator
from typing import Any

import torch
from torch import fx

__all__ = ["memory_owner", "simplify", "update_in_place"]

_ATEN = torch.ops.aten
_UNSAFE_VIEW = _ATEN._unsafe_view.default  # noqa: SLF001 - its name
_SAME_SHAPE = (_ATEN.view.default, _UNSAFE_VIEW, _ATEN.expand.default, _ATEN.reshape.default)
_IDENTITIES = (_ATEN.detach.default, _ATEN.alias.default)
_SCALINGS = (_ATEN.mul.Scalar, _ATEN.mul.Tensor, _ATEN.div.Tensor, _ATEN.div.Scalar)
_MAKERS = (
    _ATEN.scalar_tensor.default, _ATEN.ones.default, _ATEN.zeros.default, _ATEN.full.default, _ATEN.arange.default,
    _ATEN.arange.start, _ATEN.arange.start_step, _ATEN.ones_like.default, _ATEN.zeros_like.default,
    _ATEN.full_like.default, _ATEN.new_zeros.default, _ATEN.new_ones.default, _ATEN.new_full.default,
)  # fmt: skip
_CONSTANT_BYTES = 2**20


def simplify(module: fx.GraphModule, device: torch.device) -> None:
    """Drop operations without effect, merge equal ones, compute constants once, and join products with sums.

    Args:
        module: A functional graph of aten operations (nothing in it changes a tensor); changed in place.
        device: Where it runs.
    """
    graph = module.graph
    _bake_constants(module, device)
    for pass_over in (_drop_identities, _merge_equal, _drop_identities, _join_bias):
        pass_over(graph)
    graph.eliminate_dead_code()
    graph.lint()
    module.recompile()


def update_in_place(module: fx.GraphModule, parameters: int) -> None:
    """Let the graph take the step of plain SGD itself instead of returning gradients.

    The gradient of a dense layer is a product, which is added to the weights without being written anywhere. A new last
    argument is the negative learning rate.

    Args:
        module: Its first *parameters* inputs are parameters, and its first outputs their gradients; changed in place.
        parameters: How many.
    """
    graph = module.graph
    inputs = [node for node in graph.nodes if node.op == "placeholder"]
    output = next(node for node in graph.nodes if node.op == "output")
    gradients, rest = output.args[0][:parameters], output.args[0][parameters:]
    with graph.inserting_after(inputs[-1]):
        rate = graph.placeholder("rate")
    weights = set(inputs[:parameters])
    with graph.inserting_before(output):
        # A gradient may be other weights themselves, which are about to change.
        changes = [
            _copied(graph, gradient) if memory_owner(gradient) in weights else gradient for gradient in gradients
        ]
        for parameter, change in zip(inputs, changes, strict=False):
            reads_weights = any(memory_owner(node) in weights for node in change.all_input_nodes)
            if change.target is _ATEN.bmm.default and len(change.users) == 1 and not reads_weights:
                graph.call_function(_ATEN.baddbmm_.default, (parameter, *change.args), {"alpha": rate})
            else:
                graph.call_function(_ATEN.add_.Tensor, (parameter, change), {"alpha": rate})
    output.args = (tuple(rest),)
    graph.eliminate_dead_code()
    module.recompile()


def _copied(graph: fx.Graph, node: fx.Node) -> fx.Node:
    return graph.call_function(_ATEN.clone.default, (node,))


def memory_owner(node: fx.Node) -> fx.Node:
    """Return the node whose memory *node* may share."""
    while node.all_input_nodes and _is_view(node):
        node = node.all_input_nodes[0]
    return node


def _is_view(node: fx.Node) -> bool:
    if node.target is operator.getitem:
        # One of the parts that a view such as split returns.
        return _is_view(node.all_input_nodes[0])
    return bool(getattr(node.target, "is_view", False)) or node.target is _UNSAFE_VIEW


def _shape(node: object) -> tuple[int, ...] | None:
    meta = node.meta.get("tensor_meta") if isinstance(node, fx.Node) else None
    shape = getattr(meta, "shape", None)
    return None if shape is None else tuple(shape)


def _bake_constants(module: fx.GraphModule, device: torch.device) -> None:
    """Compute what depends on shapes only, once."""
    graph = module.graph
    for number, node in enumerate(graph.nodes):
        if node.op != "call_function" or node.target not in _MAKERS:
            continue
        meta = node.meta["tensor_meta"]
        if meta.shape.numel() * meta.dtype.itemsize > _CONSTANT_BYTES:
            continue
        value = _constant(node, device)
        name = f"constant_{number}"
        module.register_buffer(name, value, persistent=False)
        with graph.inserting_before(node):
            constant = graph.get_attr(name)
        constant.meta = dict(node.meta)
        node.replace_all_uses_with(constant)


def _constant(node: fx.Node, device: torch.device) -> torch.Tensor:
    kwargs = dict(node.kwargs)
    args = list(node.args)
    if args and isinstance(args[0], fx.Node):
        # Of a tensor only shape, type and device are asked.
        first = args[0].meta["tensor_meta"]
        args[0] = torch.empty_strided(first.shape, first.stride, dtype=first.dtype, device=device)
    made: torch.Tensor = node.target(*args, **kwargs)  # type: ignore[operator]
    return made


def _replacement(node: fx.Node) -> object:
    target = node.target
    args: Any = node.args
    if target in _IDENTITIES:
        return args[0]
    if (
        target is _ATEN.clone.default
        and isinstance(args[0], fx.Node)
        and args[0].op == "placeholder"
        and not node.kwargs
    ):
        return args[0]
    if target in _SAME_SHAPE and _shape(node) == _shape(args[0]) is not None:
        return args[0]
    if target in _SCALINGS and args[1] == 1 and _same_type(node, args[0]):
        return args[0]
    if target is _ATEN.permute.default and list(args[1]) == list(range(len(args[1]))):
        return args[0]
    if target is _ATEN.transpose.int and isinstance(args[0], fx.Node):
        inner = args[0]
        rank = len(_shape(inner) or ())
        if inner.target is target and _axes(inner, rank) == _axes(node, rank):
            return inner.args[0]
    return None


def _axes(node: fx.Node, rank: int) -> set[int]:
    axes: Any = node.args[1:]
    return {axis % rank for axis in axes}


def _same_type(node: fx.Node, other: Any) -> bool:
    return bool(node.meta["tensor_meta"].dtype == other.meta["tensor_meta"].dtype and _shape(node) == _shape(other))


def _drop_identities(graph: fx.Graph) -> None:
    for node in graph.nodes:
        if node.op != "call_function":
            continue
        replacement = _replacement(node)
        if isinstance(replacement, fx.Node):
            node.replace_all_uses_with(replacement)
    graph.eliminate_dead_code()


def _merge_equal(graph: fx.Graph) -> None:
    seen: dict[object, fx.Node] = {}
    for node in graph.nodes:
        if node.op not in {"call_function", "get_attr"}:
            continue
        key = (node.op, node.target, _frozen(node.args), _frozen(tuple(sorted(node.kwargs.items()))))
        first = seen.setdefault(key, node)
        if first is not node:
            node.replace_all_uses_with(first)
    graph.eliminate_dead_code()


def _frozen(value: object) -> object:
    if isinstance(value, list | tuple):
        return tuple(_frozen(part) for part in value)
    # 1, 1.0 and True are equal, but not the same argument.
    return (type(value), value) if isinstance(value, int | float) else value


def _join_bias(graph: fx.Graph) -> None:
    """Turn bias + product into one operation."""
    for node in graph.nodes:
        if node.target is not _ATEN.add.Tensor or node.kwargs or len(node.args) != 2:
            continue
        for bias, product in (node.args, node.args[::-1]):
            if not isinstance(bias, fx.Node) or not isinstance(product, fx.Node):
                continue
            if product.target is _ATEN.bmm.default and len(product.users) == 1 and _broadcasts(bias, product):
                with graph.inserting_before(node):
                    joined = graph.call_function(_ATEN.baddbmm.default, (bias, *product.args))
                joined.meta = dict(node.meta)
                node.replace_all_uses_with(joined)
                break
    graph.eliminate_dead_code()


def _broadcasts(bias: fx.Node, product: fx.Node) -> bool:
    small, large = _shape(bias), _shape(product)
    if small is None or large is None or len(small) != len(large):
        return False
    return all(a in (b, 1) for a, b in zip(small, large, strict=True))
