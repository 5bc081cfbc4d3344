"""Recurrent layers of a traced model as ONNX's own operators.

torch's exporter writes each weight's slices and the batch's size as operators, and unrolls plain recurrent layers.
"""

from collections.abc import Callable
from typing import Any

from hedgerow.compile.passes.traced.layers import RECURRENT_LAYER

__all__ = ["KEPT", "recurrent_translations"]

KEPT = ("lstm", "gru", "rnn_tanh", "rnn_relu")
"""The kinds that ONNX has."""


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

    return {RECURRENT_LAYER: layer}
