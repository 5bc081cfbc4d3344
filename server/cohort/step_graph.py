"""One client's training step as one graph: loss and gradients, or the whole step of plain SGD. Needs torch.

Autograd builds and walks its tape anew in every step; the operations that come of it are always the same. They are
traced once (``make_fx``) and replayed, and the graph is made shorter and lighter on memory than its origin:

* weights of convolutions lie channels-last, which spares oneDNN its reorders and lets pooling use vectors;
* in plain SGD the gradient of a dense layer is a product that is added to the weights where they lie; it is never
  written anywhere (for a wide layer the gradient is most of the traffic of a step);
* element-wise operations write over an operand that nobody reads again.

What is drawn at random is drawn in the same order and shape as by the model itself, so dropout masks are equal.
"""

from collections.abc import Iterator, Mapping, Sequence
from operator import getitem

import torch
from torch import fx
from torch.func import functional_call
from torch.fx.experimental.proxy_tensor import make_fx

from hedgerow.task import Task
from hedgerow.task_losses import loss_function
from hedgerow.task_module import LogitsModule, as_given

__all__ = ["count_operations", "take_sgd_steps", "trace_gradients"]

_ATEN = torch.ops.aten
_UNSAFE_VIEW = _ATEN._unsafe_view.default  # noqa: SLF001 - the operator's name
_IDENTITIES = (_ATEN.detach.default, _ATEN.alias.default)
_TRANSPOSES = (_ATEN.t.default,)
_IN_PLACE = {
    _ATEN.relu.default: _ATEN.relu_.default,
    _ATEN.mul.Tensor: _ATEN.mul_.Tensor,
    _ATEN.add.Tensor: _ATEN.add_.Tensor,
    _ATEN.tanh.default: _ATEN.tanh_.default,
    _ATEN.sigmoid.default: _ATEN.sigmoid_.default,
}
_MAKES_NEW = {
    *_IN_PLACE, _ATEN.threshold_backward.default, _ATEN.convolution.default, _ATEN.convolution_backward.default,
    _ATEN.mm.default, _ATEN.addmm.default, _ATEN.bmm.default, _ATEN.native_batch_norm.default,
    _ATEN.native_batch_norm_backward.default, _ATEN.native_group_norm.default, _ATEN.max_pool2d_with_indices.default,
    _ATEN.max_pool2d_with_indices_backward.default, _ATEN.sub.Tensor, _ATEN.div.Tensor, _ATEN.div.Scalar,
    _ATEN.avg_pool2d.default, _ATEN.avg_pool2d_backward.default, _ATEN.clone.default,
}  # fmt: skip
"""Operations whose result is memory of its own."""


def trace_gradients(
    task: Task,
    model: torch.nn.Module,
    tensors: Mapping[str, torch.Tensor],
    trained: Sequence[str],
    inputs: Sequence[torch.Tensor],
    wanted: Sequence[torch.Tensor],
) -> fx.GraphModule:
    """Trace one step.

    Args:
        task: Whose pre-processing and loss.
        model: A model of that task, in training mode.
        tensors: Its parameters and buffers by name, laid out in memory as they will be.
        trained: Names of the parameters that are trained.
        inputs: One batch.
        wanted: The target values of that batch, for each output.

    Returns:
        A graph ``(*tensors, *inputs, *wanted) -> (loss, *gradients)``; it changes buffers in place as the model does.

    Raises:
        Exception: Whatever the model does under a trace; then it cannot be traced.
    """
    graph_module = _traced(task, model, tensors, trained, [*inputs, *wanted])
    graph = graph_module.graph
    drawn = list(_drawn(graph))
    if drawn:
        own = model.state_dict()
        plain = [*(value.contiguous() for value in inputs), *wanted]
        as_plain = _traced(task, model, {name: own[name] for name in tensors}, trained, plain).graph
        _draw_alike(drawn, list(_drawn(as_plain)))
    _drop_identities(graph)
    _merge_views(graph)
    _pool_in_one_layout(graph)
    graph.eliminate_dead_code()
    _write_over(graph)
    graph.lint()
    graph_module.recompile()
    return graph_module


def _traced(
    task: Task,
    model: torch.nn.Module,
    tensors: Mapping[str, torch.Tensor],
    trained: Sequence[str],
    batch: Sequence[torch.Tensor],
) -> fx.GraphModule:
    module = LogitsModule(task, model).train()
    loss_of = loss_function(task)
    names, chosen = list(tensors), [list(tensors).index(name) for name in trained]

    def step(*arguments: torch.Tensor) -> list[torch.Tensor]:
        values, given = list(arguments[: len(names)]), arguments[len(names) :]
        inputs, wanted = given[: len(task.inputs)], given[len(task.inputs) :]
        leaves = [values[place].detach().requires_grad_() for place in chosen]
        for place, leaf in zip(chosen, leaves, strict=True):
            values[place] = leaf
        state = {f"model.{name}": value for name, value in zip(names, values, strict=True)}
        loss = loss_of(functional_call(module, state, inputs), as_given(wanted))
        return [loss.detach(), *torch.autograd.grad(loss, leaves, materialize_grads=True)]

    # Fake tensors: nothing is computed, and what depends on values is an error, not a constant. Those that
    # pre-processing holds (means, scales) are real, and become constants of the graph.
    trace = make_fx(step, tracing_mode="fake", _allow_non_fake_inputs=True)
    with torch.enable_grad():
        graph_module = trace(*tensors.values(), *batch)
    graph_module.graph.set_codegen(fx.graph.CodeGen())
    return graph_module


def count_operations(module: fx.GraphModule) -> int:
    """Return how many operations a replay starts."""
    return sum(node.op == "call_function" and node.target is not getitem for node in module.graph.nodes)


def take_sgd_steps(module: fx.GraphModule, trained: Sequence[int]) -> None:
    """Let the graph change the parameters itself; its new last argument is the negative learning rate.

    Args:
        module: As :func:`trace_gradients` returns it, changed in place to return the loss alone.
        trained: Which of its arguments the gradients belong to, in their order.
    """
    graph = module.graph
    inputs = [node for node in graph.nodes if node.op == "placeholder"]
    parameters = [inputs[place] for place in trained]
    output = next(node for node in graph.nodes if node.op == "output")
    loss, *gradients = output.args[0]
    with graph.inserting_after(inputs[-1]):
        rate = graph.placeholder("rate")
    output.args = (loss,)
    order = {node: place for place, node in enumerate(graph.nodes)}
    left: list[tuple[fx.Node, fx.Node]] = []
    for parameter, gradient in zip(parameters, gradients, strict=True):
        reads = [_memory_owner(node) for node in gradient.all_input_nodes]
        is_own = not gradient.users and gradients.count(gradient) == 1
        if gradient.target is _ATEN.mm.default and is_own and not set(reads) & set(parameters):
            last = max([gradient, *_readers(parameter)], key=lambda node: order.get(node, -1))
            with graph.inserting_after(last):
                graph.call_function(_ATEN.addmm_.default, (parameter, *gradient.args), {"alpha": rate})
            graph.erase_node(gradient)
        else:
            left.append((parameter, gradient))
    with graph.inserting_before(output):
        # A gradient may be weights themselves, which are about to change.
        changes = [
            graph.call_function(_ATEN.clone.default, (gradient,)) if _memory_owner(gradient) in parameters else gradient
            for _parameter, gradient in left
        ]
        if left:
            targets = [parameter for parameter, _gradient in left]
            graph.call_function(_ATEN._foreach_add_.List, (targets, changes), {"alpha": rate})
    graph.eliminate_dead_code()
    graph.lint()
    module.recompile()


def _is_view(node: fx.Node) -> bool:
    return bool(getattr(node.target, "is_view", False)) or node.target is _UNSAFE_VIEW


def _memory_owner(node: fx.Node) -> fx.Node:
    while _is_view(node):
        node = node.all_input_nodes[0]
    return node


def _readers(node: fx.Node) -> Iterator[fx.Node]:
    """Yield everything that reads *node*'s memory, through views too."""
    for user in node.users:
        yield user
        if _is_view(user):
            yield from _readers(user)


def _value(node: object) -> torch.Tensor | None:
    value = node.meta.get("val") if isinstance(node, fx.Node) else None
    return value if isinstance(value, torch.Tensor) else None


def _drawn(graph: fx.Graph) -> Iterator[fx.Node]:
    """Yield what makes the memory that random numbers are drawn into."""
    for node in graph.nodes:
        if node.target is _ATEN.empty_like.default and any(
            torch.Tag.nondeterministic_seeded in getattr(user.target, "tags", ()) for user in node.users
        ):
            yield node


def _draw_alike(drawn: Sequence[fx.Node], plain: Sequence[fx.Node]) -> None:
    """Draw into memory that is laid out as the plain loop's is: numbers are drawn in the order of addresses."""
    for node, like in zip(drawn, plain, strict=True):
        value = like.meta["val"]
        node.target = _ATEN.empty_strided.default
        node.args = (tuple(value.shape), value.stride())
        node.kwargs = {"dtype": value.dtype, "device": value.device}


def _drop_identities(graph: fx.Graph) -> None:
    for node in graph.nodes:
        if node.target in _IDENTITIES:
            node.replace_all_uses_with(node.args[0])
        elif node.target in _TRANSPOSES and node.args[0].target in _TRANSPOSES:
            node.replace_all_uses_with(node.args[0].args[0])
    graph.eliminate_dead_code()


def _merge_views(graph: fx.Graph) -> None:
    """Make each view once. Equal views stay equal whatever is written to their memory."""
    seen: dict[object, fx.Node] = {}
    for node in graph.nodes:
        if node.op != "call_function" or not _is_view(node):
            continue
        first = seen.setdefault((node.target, str(node.args), str(node.kwargs)), node)
        if first is not node:
            node.replace_all_uses_with(first)
    graph.eliminate_dead_code()


def _pool_in_one_layout(graph: fx.Graph) -> None:
    """Give max-pooling's backward a gradient in its input's layout: it walks another one six times slower."""
    for node in graph.nodes:
        if node.target is not _ATEN.max_pool2d_with_indices_backward.default:
            continue
        gradient, image = _value(node.args[0]), _value(node.args[1])
        if gradient is None or image is None or gradient.dim() != 4:
            continue
        if image.is_contiguous(memory_format=torch.channels_last) and not gradient.is_contiguous(
            memory_format=torch.channels_last
        ):
            with graph.inserting_before(node):
                copied = graph.call_function(
                    _ATEN.clone.default, (node.args[0],), {"memory_format": torch.channels_last}
                )
            node.replace_input_with(node.args[0], copied)


def _makes_new(node: object) -> bool:
    if not isinstance(node, fx.Node):
        return False
    if node.target is getitem:
        return _makes_new(node.args[0])
    return node.target in _MAKES_NEW or bool(node.meta.get("owns_memory", False))


def _write_over(graph: fx.Graph) -> None:
    for node in list(graph.nodes):
        if node.target is not _ATEN.threshold_backward.default and node.target not in _IN_PLACE:
            continue
        first = node.args[0]
        before, after = _value(first), _value(node)
        if before is None or after is None or not _makes_new(first) or len(first.users) != 1:
            continue
        if (before.shape, before.stride(), before.dtype) != (after.shape, after.stride(), after.dtype):
            continue
        if sum(argument is first for argument in node.args) != 1:
            continue
        if node.target is _ATEN.threshold_backward.default:
            node.target = _ATEN.threshold_backward.grad_input
            node.kwargs = {"grad_input": first}
        else:
            node.target = _IN_PLACE[node.target]
        node.meta["owns_memory"] = True
