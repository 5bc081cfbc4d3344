"""Recurrent layers of a traced model as one operator each, in the form that ONNX and Core ML know.

Each layer's weights become constants in the order of ONNX's gates; an initial state of zeros is left out. A projection,
which neither format has, is folded: the state before it takes the place of the state, and the projection becomes part
of the weights that it is multiplied with (``W (P m) = (W P) m``), and a product after the layer.
"""

import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from hedgerow.compile.errors import UntranslatableError

__all__ = ["RECURRENT_LAYER", "rewrite_recurrent"]

_library: Any = torch.library.Library("hedgerow", "FRAGMENT")  # type: ignore[no-untyped-call]
_BORDER = "Tensor x, Tensor w, Tensor r, Tensor b, Tensor? h, Tensor? c, str kind, str direction, int hidden"
_library.define(f"recurrent_layer({_BORDER}) -> (Tensor, Tensor, Tensor)")
RECURRENT_LAYER: Any = torch.ops.hedgerow.recurrent_layer.default
"""``(steps, batch, inputs) -> outputs (steps, directions, batch, hidden), last states (directions, batch, hidden)``."""
_aten = torch.ops.aten
_KINDS = {
    _aten.lstm.input: "lstm",
    _aten.gru.input: "gru",
    _aten.rnn_tanh.input: "rnn_tanh",
    _aten.rnn_relu.input: "rnn_relu",
}
# ONNX's order of the gates, in torch's places.
_GATES = {"lstm": (0, 3, 1, 2), "gru": (1, 0, 2), "rnn_tanh": (0,), "rnn_relu": (0,)}
_OURS = "hedgerow_layer_"
_EXACT = 1e-5


def _shapes(
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


_library.impl("recurrent_layer", _shapes, "Meta")


@dataclass(frozen=True, slots=True)
class _Layer:
    """One layer's weights in ONNX's form, the directions first.

    Attributes:
        inputs, hidden, bias: Of all gates.
        projection: ``(directions, hidden, outputs)``, or None.
    """

    inputs: torch.Tensor
    hidden: torch.Tensor
    bias: torch.Tensor
    projection: torch.Tensor | None


def rewrite_recurrent(program: fx.GraphModule) -> bool:
    """Replace torch's recurrent layers, in place; return whether there were any.

    Raises:
        UntranslatableError: A projection has an initial state, and loses numbers of it.
    """
    found = [node for node in program.graph.nodes if node.op == "call_function" and node.target in _KINDS]
    for node in found:
        with program.graph.inserting_before(node):
            results = _Writer(program).layers(node, _KINDS[node.target])
        for user in list(node.users):
            if user.target is operator.getitem:
                user.replace_all_uses_with(results[user.args[1]])
                program.graph.erase_node(user)
        program.graph.erase_node(node)
    program.graph.eliminate_dead_code()
    program.graph.lint()
    program.recompile()
    return bool(found)


class _Writer:
    """Inserts layers into a graph."""

    def __init__(self, program: fx.GraphModule) -> None:
        self._program = program

    def layers(self, node: fx.Node, kind: str) -> list[fx.Node]:
        """Insert the layers of *node*; return outputs, last hidden states and, of an LSTM, last memories."""
        given: Any = node.args
        values, states, names, has_biases, layers, _share, _training, bidirectional, batch_first = given
        weights = [self._weight(name) for name in names]
        directions = 1 + int(bidirectional)
        initial = states if isinstance(states, list | tuple) else (states,)
        hidden, memory = (*(_known(state) for state in initial), None)[:2]
        steps = self._call(_aten.transpose.int, values, 0, 1) if batch_first else values
        finals: list[list[fx.Node]] = [[], []]
        for index, layer in enumerate(_packed(weights, kind, layers, directions, has_biases)):
            place = (index * directions, (index + 1) * directions)
            begin = [
                None if state is None else self._call(_aten.slice.Tensor, state, 0, *place)
                for state in (hidden, memory)
            ]
            steps, last, last_memory = self._layer(layer, kind, steps, begin, directions)
            finals[0].append(last)
            finals[1].append(last_memory)
        outputs = self._call(_aten.transpose.int, steps, 0, 1) if batch_first else steps
        return [outputs, *(kept[0] if len(kept) == 1 else self._call(_aten.cat.default, kept, 0) for kept in finals)]

    def _layer(
        self, layer: _Layer, kind: str, steps: fx.Node, begin: list[fx.Node | None], directions: int
    ) -> tuple[fx.Node, fx.Node, fx.Node]:
        """Insert one layer; return what the next one takes, the last hidden states and memories."""
        stored = [self._stored(tensor) for tensor in (layer.inputs, layer.hidden, layer.bias)]
        hidden, memory = begin
        if hidden is not None and layer.projection is not None:
            hidden = self._call(_aten.matmul.default, hidden, self._stored(_undone(layer.projection)))
        way = "bidirectional" if directions == 2 else "forward"
        made = self._call(RECURRENT_LAYER, steps, *stored, hidden, memory, kind, way, layer.hidden.shape[2])
        output, last, last_memory = (self._call(operator.getitem, made, number) for number in range(3))
        if layer.projection is not None:
            # Matrices of their own: a quantizer of stacked ones takes no scale for each column.
            projections = [self._stored(one) for one in layer.projection]
            beside = self._projected(output, 1, projections)
            outputs = beside[0] if directions == 1 else self._call(_aten.cat.default, beside, 2)
            return outputs, self._call(_aten.stack.default, self._projected(last, 0, projections)), last_memory
        if directions == 1:
            return self._call(_aten.squeeze.dim, output, 1), last, last_memory
        turned = self._call(_aten.permute.default, output, [0, 2, 1, 3])
        return self._call(_aten.flatten.using_ints, turned, 2, 3), last, last_memory

    def _projected(self, values: fx.Node, axis: int, projections: list[fx.Node]) -> list[fx.Node]:
        """Return each direction's part of *values* times its projection."""
        return [
            self._call(_aten.matmul.default, self._call(_aten.select.int, values, axis, place), projection)
            for place, projection in enumerate(projections)
        ]

    def _call(self, target: Any, *args: Any) -> fx.Node:
        return self._program.graph.call_function(target, args)

    def _weight(self, node: fx.Node) -> torch.Tensor:
        tensor: torch.Tensor = fx.Interpreter(self._program).fetch_attr(str(node.target))
        return tensor.detach()

    def _stored(self, value: torch.Tensor) -> fx.Node:
        number = sum(name.startswith(_OURS) for name, _buffer in self._program.named_buffers(recurse=False))
        self._program.register_buffer(f"{_OURS}{number}", value.contiguous(), persistent=False)
        return self._program.graph.get_attr(f"{_OURS}{number}")


def _known(state: Any) -> fx.Node | None:
    """Return an initial state, or None where it is zeros: then it is left out."""
    return None if state.target is _aten.zeros.default else state


def _undone(projection: torch.Tensor) -> torch.Tensor:
    """Return what gives a state before the projection for one after it.

    Raises:
        UntranslatableError: There is none.
    """
    found: torch.Tensor = torch.linalg.pinv(projection.double())
    exact = torch.eye(projection.shape[2], dtype=torch.float64)
    if float((found @ projection.double() - exact).abs().max()) > _EXACT:
        raise UntranslatableError(("lstm with a projection of dependent rows and an initial state",))
    return found.to(projection.dtype)


def _packed(
    weights: Sequence[torch.Tensor], kind: str, layers: int, directions: int, has_biases: bool
) -> Iterator[_Layer]:
    each, gates = len(weights) // (layers * directions), _GATES[kind]

    def ordered(tensor: torch.Tensor) -> torch.Tensor:
        parts = tensor.chunk(len(gates))
        return torch.cat([parts[gate] for gate in gates])

    for layer in range(layers):
        parts: list[list[torch.Tensor]] = [[], [], [], []]
        for direction in range(directions):
            first = (layer * directions + direction) * each
            inputs, hidden, *more = weights[first : first + each]
            biases, projection = (more[:2], more[2:]) if has_biases else ([inputs.new_zeros(len(inputs))] * 2, more)
            if projection:
                hidden = (hidden.double() @ projection[0].double()).to(hidden.dtype)
                parts[3].append(projection[0].t())
            for kept, tensor in zip(parts, (ordered(inputs), ordered(hidden)), strict=False):
                kept.append(tensor)
            parts[2].append(torch.cat([ordered(bias) for bias in biases]))
        stacked = [torch.stack(kept) for kept in parts if kept]
        yield _Layer(stacked[0], stacked[1], stacked[2], stacked[3] if len(stacked) > 3 else None)
