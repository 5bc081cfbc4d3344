"""Recurrent layers of a traced model as ONNX's own operators, their weights in ONNX's order, and nothing around them.

torch's exporter writes each weight's slices and the batch's size as operators, and unrolls plain recurrent layers.
"""

import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

__all__ = ["KEPT", "recurrent_translations", "rewrite_recurrent"]

KEPT = ("lstm", "gru", "rnn_tanh", "rnn_relu")
"""The kinds that ONNX has."""

_library: Any = torch.library.Library("hedgerow", "FRAGMENT")  # type: ignore[no-untyped-call]
_BORDER = "Tensor x, Tensor w, Tensor r, Tensor b, Tensor? h, Tensor? c, str kind, str direction, int hidden"
_library.define(f"onnx_recurrent({_BORDER}) -> (Tensor, Tensor, Tensor)")
_operators = torch.ops.hedgerow
_aten = torch.ops.aten
_KINDS = {
    _aten.lstm.input: "lstm",
    _aten.gru.input: "gru",
    _aten.rnn_tanh.input: "rnn_tanh",
    _aten.rnn_relu.input: "rnn_relu",
}
# ONNX's order of the gates, in torch's places.
_GATES = {"lstm": (0, 3, 1, 2), "gru": (1, 0, 2), "rnn_tanh": (0,), "rnn_relu": (0,)}


def _fake(
    x: torch.Tensor,
    w: torch.Tensor,
    _r: torch.Tensor,
    _b: torch.Tensor,
    _h: torch.Tensor | None,
    _c: torch.Tensor | None,
    _kind: str,
    _direction: str,
    hidden: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    steps, batch = x.shape[:2]
    last = (w.shape[0], batch, hidden)
    return x.new_empty((steps, w.shape[0], batch, hidden)), x.new_empty(last), x.new_empty(last)


_library.impl("onnx_recurrent", _fake, "Meta")


@dataclass(frozen=True, slots=True)
class _Layer:
    """One layer's weights in ONNX's form."""

    inputs: torch.Tensor
    hidden: torch.Tensor
    bias: torch.Tensor


def rewrite_recurrent(program: fx.GraphModule) -> bool:
    """Replace torch's recurrent layers, in place; return whether there were any."""
    found = [node for node in program.graph.nodes if node.op == "call_function" and node.target in _KINDS]
    for node in found:
        with program.graph.inserting_before(node):
            results = _layers(program, node, _KINDS[node.target])
        for user in list(node.users):
            if user.target is operator.getitem:
                user.replace_all_uses_with(results[user.args[1]])
                program.graph.erase_node(user)
        program.graph.erase_node(node)
    program.graph.eliminate_dead_code()
    program.graph.lint()
    program.recompile()
    return bool(found)


def _layers(program: fx.GraphModule, node: fx.Node, kind: str) -> list[fx.Node]:
    """Insert the layers of *node*, and return outputs, final hidden states and, of an LSTM, final memories."""
    call = program.graph.call_function
    given: Any = node.args
    values, states, names, has_biases, layers, _share, _training, bidirectional, batch_first = given
    weights = [_weight(program, name) for name in names]
    directions = 1 + int(bidirectional)
    initial = states if isinstance(states, list | tuple) else (states,)
    hidden, memory = (*(_known(state) for state in initial), None)[:2]
    steps: Any = call(_aten.transpose.int, (values, 0, 1)) if batch_first else values
    width = weights[1].shape[1]
    finals: list[list[fx.Node]] = [[], []]
    for index, layer in enumerate(_packed(weights, kind, layers, directions, has_biases)):
        stored = [_stored(program, tensor) for tensor in (layer.inputs, layer.hidden, layer.bias)]
        place = (index * directions, (index + 1) * directions)
        begin = [None if state is None else call(_aten.slice.Tensor, (state, 0, *place)) for state in (hidden, memory)]
        way = "bidirectional" if bidirectional else "forward"
        made = call(_operators.onnx_recurrent.default, (steps, *stored, *begin, kind, way, width))
        output, *last = (call(operator.getitem, (made, number)) for number in range(3))
        for kept, one in zip(finals, last, strict=True):
            kept.append(one)
        if directions == 1:
            steps = call(_aten.squeeze.dim, (output, 1))
        else:
            steps = call(_aten.flatten.using_ints, (call(_aten.permute.default, (output, [0, 2, 1, 3])), 2, 3))
    outputs = call(_aten.transpose.int, (steps, 0, 1)) if batch_first else steps
    return [outputs, *(kept[0] if len(kept) == 1 else call(_aten.cat.default, (kept, 0)) for kept in finals)]


def _known(state: Any) -> fx.Node | None:
    """Return an initial state, or None where it is zeros: then ONNX wants none."""
    return None if state.target is _aten.zeros.default else state


def _weight(program: fx.GraphModule, node: fx.Node) -> torch.Tensor:
    tensor: torch.Tensor = fx.Interpreter(program).fetch_attr(str(node.target))
    return tensor.detach()


def _packed(
    weights: Sequence[torch.Tensor], kind: str, layers: int, directions: int, has_biases: bool
) -> Iterator[_Layer]:
    each, gates = 4 if has_biases else 2, _GATES[kind]

    def ordered(tensor: torch.Tensor) -> torch.Tensor:
        parts = tensor.chunk(len(gates))
        return torch.cat([parts[gate] for gate in gates])

    for layer in range(layers):
        parts: list[list[torch.Tensor]] = [[], [], []]
        for direction in range(directions):
            first = (layer * directions + direction) * each
            inputs, hidden, *biases = (ordered(tensor) for tensor in weights[first : first + each])
            both = biases or [inputs.new_zeros(len(inputs))] * 2
            for kept, tensor in zip(parts, (inputs, hidden, torch.cat(both)), strict=True):
                kept.append(tensor)
        yield _Layer(*(torch.stack(kept) for kept in parts))


def _stored(program: fx.GraphModule, value: torch.Tensor) -> fx.Node:
    number = sum(name.startswith("recurrent_") for name, _buffer in program.named_buffers(recurse=False))
    program.register_buffer(f"recurrent_{number}", value, persistent=False)
    return program.graph.get_attr(f"recurrent_{number}")


def recurrent_translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """Return the table for torch's exporter."""
    from onnxscript import opset18 as op

    def layer(x: Any, w: Any, r: Any, b: Any, h: Any, c: Any, kind: str, direction: str, hidden: int) -> Any:
        if kind == "lstm":
            return op.LSTM(x, w, r, b, None, h, c, direction=direction, hidden_size=hidden)
        if kind == "gru":
            # torch multiplies with the reset gate after the product, as its bias stands inside.
            output, last = op.GRU(x, w, r, b, None, h, direction=direction, hidden_size=hidden, linear_before_reset=1)
        else:
            ways = 2 if direction == "bidirectional" else 1
            activations = ["Tanh" if kind == "rnn_tanh" else "Relu"] * ways
            output, last = op.RNN(x, w, r, b, None, h, direction=direction, hidden_size=hidden, activations=activations)
        return output, last, last

    return {_operators.onnx_recurrent.default: layer}
