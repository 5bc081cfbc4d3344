"""Recurrent layers of torch in other words while a model is traced: unrolled where a format has no such operator."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from hedgerow.compile.errors import UntranslatableError
from hedgerow.compile.passes.traced.unrolled import Dropout, unrolled_gru, unrolled_lstm, unrolled_rnn

__all__ = ["RECURRENT", "UnrolledLayers", "unrolling_table"]

_VF = torch._VF  # noqa: SLF001 - what torch.nn's recurrent layers call
RECURRENT: Mapping[Any, str] = {_VF.lstm: "lstm", _VF.gru: "gru", _VF.rnn_tanh: "rnn_tanh", _VF.rnn_relu: "rnn_relu"}
"""What a recurrent layer calls -> its kind."""


class UnrolledLayers(TorchFunctionMode):
    """Unrolls recurrent layers while it is entered.

    Args:
        keeps: Kinds that stay as they are.
    """

    def __init__(self, keeps: Collection[str] = ()) -> None:
        super().__init__()
        self._keeps, self._table = frozenset(keeps), unrolling_table(None)

    def __torch_function__(
        self, func: Any, _types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call the other words for *func*, or *func*."""
        kind = RECURRENT.get(func)
        if kind is not None and (kind in self._keeps or not _is_plain(args)):
            return func(*args, **(kwargs or {}))
        return self._table.get(func, func)(*args, **(kwargs or {}))


def _is_plain(arguments: tuple[Any, ...]) -> bool:
    """Say whether a call is over one tensor of sequences, and not over packed ones or a single one."""
    return len(arguments) == 9 and isinstance(arguments[2], list | tuple) and arguments[0].ndim == 3


def unrolling_table(drop: Dropout | None) -> dict[Any, Callable[..., Any]]:
    """Return torch function -> the same, unrolled over the steps of its input.

    Args:
        drop: Drops a share of a tensor between the layers in training; None: nothing is dropped.
    """
    zeros: dict[int, torch.Tensor] = {}

    def make_zeros(*arguments: Any, **named: Any) -> torch.Tensor:
        # A layer without an initial state asks for zeros; they are kept, so that no other tensor gets their address.
        made = torch.zeros(*arguments, **named)
        zeros[id(made)] = made
        return made

    def known(state: torch.Tensor) -> torch.Tensor | None:
        return None if id(state) in zeros else state

    def dropping(share: float, training: bool) -> Dropout | None:
        return drop if training and share > 0 else None

    def gru(*arguments: Any) -> Any:
        values, hidden, weights, biases, layers, share, training, *ways = _plain("gru", arguments)
        return unrolled_gru(
            values, known(hidden), weights, biases, layers, share, dropping(share, training), ways[0], ways[1]
        )

    def lstm(*arguments: Any) -> Any:
        values, states, weights, biases, layers, share, training, *ways = _plain("lstm", arguments)
        given = None if all(known(state) is None for state in states) else states
        return unrolled_lstm(values, given, weights, biases, layers, share, dropping(share, training), ways[0], ways[1])

    def plain(activation: Callable[[torch.Tensor], torch.Tensor]) -> Callable[..., Any]:
        def layer(*arguments: Any) -> Any:
            values, hidden, weights, biases, layers, share, training, *ways = _plain("rnn", arguments)
            dropped = dropping(share, training)
            return unrolled_rnn(
                activation, values, known(hidden), weights, biases, layers, share, dropped, ways[0], ways[1]
            )

        return layer

    return {
        torch.zeros: make_zeros,
        _VF.gru: gru,
        _VF.lstm: lstm,
        _VF.rnn_tanh: plain(torch.tanh),
        _VF.rnn_relu: plain(torch.relu),
    }


def _plain(name: str, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """Refuse what a graph of static shapes cannot hold."""
    if not _is_plain(arguments):
        raise UntranslatableError((f"{name} over packed or single sequences",))
    return arguments
