"""GRU, LSTM and plain recurrent layers, unrolled over the time steps of the traced input.

The formulas and the order of gates are torch's (``torch.nn.GRU``, ``torch.nn.LSTM``, ``torch.nn.RNN``). The products
with the inputs of all steps are one matrix product; only those with the hidden state go step by step, without a bias
of their own where the formula allows: an integer file would hold one for each step. A state that is zero at the start
is not multiplied.
"""

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch

__all__ = ["Dropout", "unrolled_gru", "unrolled_lstm", "unrolled_rnn"]

_linear = torch.nn.functional.linear
Dropout = Callable[[torch.Tensor, float], torch.Tensor]
"""Drops a share of a tensor."""

_State = tuple[torch.Tensor, ...] | None
_Weights = Sequence[torch.Tensor]
_Steps = torch.Tensor | list[torch.Tensor]
_Cell = Callable[[torch.Tensor, _State, _Weights], tuple[torch.Tensor, ...]]
"""``(inputs' product, state or None for zeros, hidden weights) -> state``, the output first."""


def _gru_cell(product: torch.Tensor, state: _State, weights: _Weights) -> tuple[torch.Tensor, ...]:
    size = product.shape[1] // 3
    gates, in_new = product[:, : 2 * size], product[:, 2 * size :]
    to_new: torch.Tensor | None = None
    if state is not None:
        hidden = _linear(state[0], weights[0])
        gates, to_new = gates + hidden[:, : 2 * size], hidden[:, 2 * size :]
    if len(weights) > 1:
        to_new = weights[1] if to_new is None else to_new + weights[1]
    gates = torch.sigmoid(gates)
    reset, update = gates[:, :size], gates[:, size:]
    new = torch.tanh(in_new if to_new is None else in_new + reset * to_new)
    return (new - update * new if state is None else new + update * (state[0] - new),)


def _lstm_cell(product: torch.Tensor, state: _State, weights: _Weights) -> tuple[torch.Tensor, ...]:
    gates = product if state is None else product + _linear(state[0], weights[0])
    size = gates.shape[1] // 4
    # Input and forget gate are neighbours.
    first = torch.sigmoid(gates[:, : 2 * size])
    taken, kept = first[:, :size], first[:, size:]
    memory = taken * torch.tanh(gates[:, 2 * size : 3 * size])
    memory = memory if state is None else kept * state[1] + memory
    hidden = torch.sigmoid(gates[:, 3 * size :]) * torch.tanh(memory)
    return (hidden if len(weights) < 2 else _linear(hidden, weights[1])), memory


def _rnn_cell(activation: Callable[[torch.Tensor], torch.Tensor]) -> _Cell:
    def cell(product: torch.Tensor, state: _State, weights: _Weights) -> tuple[torch.Tensor, ...]:
        return (activation(product if state is None else product + _linear(state[0], weights[0])),)

    return cell


def _folded(cell: _Cell, weights: _Weights, has_biases: bool) -> tuple[torch.Tensor | None, _Weights]:
    """Return the bias of the inputs' product, and what the cell multiplies and adds at each step."""
    hidden, biases = [weights[1]], weights[2:4] if has_biases else ()
    # A projection stands last.
    hidden += weights[4:] if has_biases else weights[2:]
    if not biases:
        return None, hidden
    if cell is not _gru_cell:
        return biases[0] + biases[1], hidden
    size = 2 * len(biases[0]) // 3
    return torch.cat([biases[0][:size] + biases[1][:size], biases[0][size:]]), [*hidden, biases[1][size:]]


def _each_step(values: _Steps, weight: torch.Tensor, bias: torch.Tensor | None) -> list[torch.Tensor]:
    """Return the product with *weight* of each step of ``(steps, batch, inputs)``, from one where they are one."""
    if not isinstance(values, torch.Tensor):
        return [_linear(step, weight, bias) for step in values]
    steps, count = values.shape[0], cast("Any", values.shape[1])
    if isinstance(count, int):
        # Rows are cut out by one operator; a place of an axis takes two.
        products = _linear(values.reshape(steps * count, values.shape[2]), weight, bias)
        return [products[index * count : (index + 1) * count] for index in range(steps)]
    # Cuts at multiples of an open size take the tracer minutes.
    return list(_linear(values, weight, bias).unbind(0))


def _stacked(tensors: Sequence[torch.Tensor], axis: int) -> torch.Tensor:
    return torch.cat([tensor.unsqueeze(axis) for tensor in tensors], axis)


def _layer(
    cell: _Cell, values: _Steps, state: _State, weights: _Weights, *, has_biases: bool, backwards: bool
) -> tuple[list[torch.Tensor], tuple[torch.Tensor, ...]]:
    bias, hidden = _folded(cell, weights, has_biases)
    products = _each_step(values, weights[0], bias)
    outputs: list[torch.Tensor] = []
    found: tuple[torch.Tensor, ...] = ()
    for product in reversed(products) if backwards else products:
        found = cell(product, found or state, hidden)
        outputs.append(found[0])
    return outputs[::-1] if backwards else outputs, found


def _unrolled(
    cell: _Cell,
    values: torch.Tensor,
    initial: Sequence[torch.Tensor] | None,
    weights: Sequence[torch.Tensor],
    has_biases: bool,
    layers: int,
    dropout: float,
    drop: Dropout | None,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
    axis, directions = int(batch_first), 1 + int(bidirectional)
    each = len(weights) // (layers * directions)
    inside: _Steps = values.transpose(0, 1) if batch_first else values
    steps: list[torch.Tensor] = []
    finals: list[tuple[torch.Tensor, ...]] = []
    for layer in range(layers):
        found = []
        for direction in range(directions):
            place = layer * directions + direction
            chosen = weights[place * each : (place + 1) * each]
            state = None if initial is None else tuple(tensor[place] for tensor in initial)
            outputs, final = _layer(cell, inside, state, chosen, has_biases=has_biases, backwards=direction == 1)
            found.append(outputs)
            finals.append(final)
        steps = [torch.cat(pair, 1) for pair in zip(*found, strict=True)] if directions == 2 else found[0]
        if drop is not None and layer < layers - 1:
            steps = [drop(step, dropout) for step in steps]
        if layer < layers - 1:
            # TensorFlow Lite Micro joins ten tensors at most, and a device's single sample gains nothing by it.
            inside = steps if steps[0].shape[0] == 1 else _stacked(steps, 0)
    return _stacked(steps, axis), tuple(torch.stack(tensors) for tensors in zip(*finals, strict=True))


def unrolled_gru(
    values: torch.Tensor,
    initial: torch.Tensor | None,
    weights: Sequence[torch.Tensor],
    has_biases: bool,
    layers: int,
    dropout: float,
    drop: Dropout | None,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return outputs and final hidden states as ``torch.gru`` does.

    *initial* is None for zeros, and *drop* None outside training.
    """
    states = None if initial is None else [initial]
    outputs, (hidden,) = _unrolled(
        _gru_cell, values, states, weights, has_biases, layers, dropout, drop, bidirectional, batch_first
    )
    return outputs, hidden


def unrolled_lstm(
    values: torch.Tensor,
    initial: Sequence[torch.Tensor] | None,
    weights: Sequence[torch.Tensor],
    has_biases: bool,
    layers: int,
    dropout: float,
    drop: Dropout | None,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return outputs, final hidden states and final memories as ``torch.lstm`` does, with a projection too."""
    outputs, (hidden, memory) = _unrolled(
        _lstm_cell, values, initial, weights, has_biases, layers, dropout, drop, bidirectional, batch_first
    )
    return outputs, hidden, memory


def unrolled_rnn(
    activation: Callable[[torch.Tensor], torch.Tensor],
    values: torch.Tensor,
    initial: torch.Tensor | None,
    weights: Sequence[torch.Tensor],
    has_biases: bool,
    layers: int,
    dropout: float,
    drop: Dropout | None,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return outputs and final hidden states as ``torch.rnn_tanh`` and ``torch.rnn_relu`` do."""
    states = None if initial is None else [initial]
    outputs, (hidden,) = _unrolled(
        _rnn_cell(activation), values, states, weights, has_biases, layers, dropout, drop, bidirectional, batch_first
    )
    return outputs, hidden
