"""GRU, LSTM and plain recurrent layers, unrolled over the time steps of the traced input.

The formulas and the order of gates are torch's (``torch.nn.GRU``, ``torch.nn.LSTM``, ``torch.nn.RNN``). The products
with the inputs of all steps are one matrix product; only those with the hidden state go step by step.
"""

from collections.abc import Callable, Sequence

import torch

__all__ = ["Dropout", "unrolled_gru", "unrolled_lstm", "unrolled_rnn"]

Dropout = Callable[[torch.Tensor, float], torch.Tensor]
"""Drops a share of a tensor."""

_Cell = Callable[
    [torch.Tensor, tuple[torch.Tensor, ...], torch.Tensor, "torch.Tensor | None"], tuple[torch.Tensor, ...]
]
"""``(inputs' product, state, hidden weight, hidden bias) -> state``, the output first."""


def _linear(values: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    product = values @ weight.t()
    return product if bias is None else product + bias


def _parts(values: torch.Tensor, count: int) -> list[torch.Tensor]:
    size = values.shape[1] // count
    return [values[:, index * size : (index + 1) * size] for index in range(count)]


def _gru_cell(
    product: torch.Tensor, state: tuple[torch.Tensor, ...], weight: torch.Tensor, bias: torch.Tensor | None
) -> tuple[torch.Tensor, ...]:
    hidden = state[0]
    in_reset, in_update, in_new = _parts(product, 3)
    to_reset, to_update, to_new = _parts(_linear(hidden, weight, bias), 3)
    reset, update = torch.sigmoid(in_reset + to_reset), torch.sigmoid(in_update + to_update)
    new = torch.tanh(in_new + reset * to_new)
    return (new + update * (hidden - new),)


def _lstm_cell(
    product: torch.Tensor, state: tuple[torch.Tensor, ...], weight: torch.Tensor, bias: torch.Tensor | None
) -> tuple[torch.Tensor, ...]:
    hidden, memory = state
    taken, kept, new, given = _parts(product + _linear(hidden, weight, bias), 4)
    memory = torch.sigmoid(kept) * memory + torch.sigmoid(taken) * torch.tanh(new)
    return torch.sigmoid(given) * torch.tanh(memory), memory


def _rnn_cell(activation: Callable[[torch.Tensor], torch.Tensor]) -> _Cell:
    def cell(
        product: torch.Tensor, state: tuple[torch.Tensor, ...], weight: torch.Tensor, bias: torch.Tensor | None
    ) -> tuple[torch.Tensor, ...]:
        return (activation(product + _linear(state[0], weight, bias)),)

    return cell


def _layer(
    cell: _Cell,
    steps: Sequence[torch.Tensor],
    state: tuple[torch.Tensor, ...],
    weights: Sequence[torch.Tensor],
    *,
    backwards: bool,
) -> tuple[list[torch.Tensor], tuple[torch.Tensor, ...]]:
    in_weight, weight = weights[:2]
    in_bias, bias = (weights[2], weights[3]) if len(weights) == 4 else (None, None)
    count = steps[0].shape[0]
    products = _linear(torch.cat(list(steps)), in_weight, in_bias)
    outputs = []
    order = range(len(steps))
    for index in reversed(order) if backwards else order:
        state = cell(products[index * count : (index + 1) * count], state, weight, bias)
        outputs.append(state[0])
    return outputs[::-1] if backwards else outputs, state


def _unrolled(
    cell: _Cell,
    values: torch.Tensor,
    initial: Sequence[torch.Tensor],
    weights: Sequence[torch.Tensor],
    has_biases: bool,
    layers: int,
    dropout: float,
    drop: Dropout | None,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
    axis, directions, each = int(batch_first), 1 + int(bidirectional), 4 if has_biases else 2
    steps = [values.select(axis, index) for index in range(values.shape[axis])]
    finals: list[tuple[torch.Tensor, ...]] = []
    for layer in range(layers):
        found = []
        for direction in range(directions):
            place = layer * directions + direction
            chosen = weights[place * each : (place + 1) * each]
            state = tuple(tensor[place] for tensor in initial)
            outputs, state = _layer(cell, steps, state, chosen, backwards=direction == 1)
            found.append(outputs)
            finals.append(state)
        steps = [torch.cat(pair, 1) for pair in zip(*found, strict=True)] if directions == 2 else found[0]
        if drop is not None and layer < layers - 1:
            steps = [drop(step, dropout) for step in steps]
    return torch.stack(steps, axis), tuple(torch.stack(tensors) for tensors in zip(*finals, strict=True))


def unrolled_gru(
    values: torch.Tensor,
    initial: torch.Tensor,
    weights: Sequence[torch.Tensor],
    has_biases: bool,
    layers: int,
    dropout: float,
    drop: Dropout | None,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return outputs and final hidden states as ``torch.gru`` does; *drop* is None outside training."""
    outputs, (hidden,) = _unrolled(
        _gru_cell, values, [initial], weights, has_biases, layers, dropout, drop, bidirectional, batch_first
    )
    return outputs, hidden


def unrolled_lstm(
    values: torch.Tensor,
    initial: Sequence[torch.Tensor],
    weights: Sequence[torch.Tensor],
    has_biases: bool,
    layers: int,
    dropout: float,
    drop: Dropout | None,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return outputs, final hidden states and final memories as ``torch.lstm`` does."""
    outputs, (hidden, memory) = _unrolled(
        _lstm_cell, values, initial, weights, has_biases, layers, dropout, drop, bidirectional, batch_first
    )
    return outputs, hidden, memory


def unrolled_rnn(
    activation: Callable[[torch.Tensor], torch.Tensor],
    values: torch.Tensor,
    initial: torch.Tensor,
    weights: Sequence[torch.Tensor],
    has_biases: bool,
    layers: int,
    dropout: float,
    drop: Dropout | None,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return outputs and final hidden states as ``torch.rnn_tanh`` and ``torch.rnn_relu`` do."""
    outputs, (hidden,) = _unrolled(
        _rnn_cell(activation), values, [initial], weights, has_biases, layers, dropout, drop, bidirectional, batch_first
    )
    return outputs, hidden
