"""One step of a recurrent layer, as streaming models call it, in words that every converter has."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

__all__ = ["CELL_WORDS"]

Bias = Tensor | None


def _lstm(
    x: Tensor, state: tuple[Tensor, Tensor], taken: Tensor, kept: Tensor, one: Bias = None, other: Bias = None
) -> tuple[Tensor, Tensor]:
    """Return the new hidden and cell state; torch's order of gates is input, forget, cell, output."""
    hidden, cell = state
    gates = linear(x, taken, one) + linear(hidden, kept, other)
    into, forget, candidate, out = gates.chunk(4, dim=-1)
    cell = torch.sigmoid(forget) * cell + torch.sigmoid(into) * torch.tanh(candidate)
    return torch.sigmoid(out) * torch.tanh(cell), cell


def _gru(x: Tensor, hidden: Tensor, taken: Tensor, kept: Tensor, one: Bias = None, other: Bias = None) -> Tensor:
    """Return the new state; torch's order of gates is reset, update, new."""
    reset_x, update_x, new_x = linear(x, taken, one).chunk(3, dim=-1)
    reset_h, update_h, new_h = linear(hidden, kept, other).chunk(3, dim=-1)
    update = torch.sigmoid(update_x + update_h)
    new = torch.tanh(new_x + torch.sigmoid(reset_x + reset_h) * new_h)
    return new + update * (hidden - new)


def _plain(activation: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    """Return a cell of one layer with an activation."""

    def cell(x: Tensor, hidden: Tensor, taken: Tensor, kept: Tensor, one: Bias = None, other: Bias = None) -> Tensor:
        return activation(linear(x, taken, one) + linear(hidden, kept, other))

    return cell


CELL_WORDS: Mapping[Any, Callable[..., Any]] = {
    torch.lstm_cell: _lstm,
    torch.gru_cell: _gru,
    torch.rnn_tanh_cell: _plain(torch.tanh),
    torch.rnn_relu_cell: _plain(torch.relu),
}
"""Function of torch -> the same in plain operators."""
