"""LSTM layers of a traced model as Core ML's own operator, for coremltools' converter.

Core ML's GRU multiplies with the reset gate before it adds the hidden bias, which torch does not, and coremltools
writes plain recurrent layers as a loop; both are unrolled instead.
"""

from typing import Any

import numpy as np
from coremltools.converters.mil import Builder as mb  # noqa: N813 - what coremltools calls it everywhere
from coremltools.converters.mil.frontend.torch.ops import _get_inputs
from coremltools.converters.mil.frontend.torch.torch_op_registry import register_torch_op
from numpy.typing import NDArray

__all__ = ["KEPT"]

KEPT = ("lstm",)
"""The kinds that Core ML has as torch has them."""


def _recurrent_layer(context: Any, node: Any) -> None:
    """Convert one layer; see :data:`hedgerow.compile.passes.traced.layers.RECURRENT_LAYER`."""
    inputs = _get_inputs(context, node)
    x, (weights, hidden, bias), states = inputs[0], (_array(value) for value in inputs[1:4]), inputs[4:6]
    size, directions = hidden.shape[2], hidden.shape[0]
    given: dict[str, Any] = {"direction": "forward" if directions == 1 else "bidirectional"}
    # Both biases as one.
    biases = bias.reshape(directions, 2, -1).sum(1)
    for name, stored in (("weight_ih", weights), ("weight_hh", hidden), ("bias", biases)):
        for ending, one in zip(("", "_back"), stored, strict=False):
            given[name + ending] = _ordered(one, size)
    for name, state in zip(("initial_h", "initial_c"), states, strict=True):
        given[name] = _beside(state, x.shape[1], directions * size)
    output, last, memory = mb.lstm(x=x, output_sequence=True, **given)
    steps, batch = x.shape[:2]
    apart = mb.reshape(x=output, shape=[steps, batch, directions, size])
    ends = [
        mb.transpose(x=mb.reshape(x=value, shape=[batch, directions, size]), perm=[1, 0, 2]) for value in (last, memory)
    ]
    context.add((mb.transpose(x=apart, perm=[0, 2, 1, 3]), *ends), torch_name=node.name)


register_torch_op(_func=_recurrent_layer, torch_alias=["recurrent_layer", "hedgerow::recurrent_layer"], override=True)


def _array(value: Any) -> NDArray[Any]:
    found: NDArray[Any] = value.val
    return found


def _ordered(stored: NDArray[Any], size: int) -> NDArray[Any]:
    """Return gates in Core ML's order (input, forget, output, cell), given ONNX's (input, output, forget, cell)."""
    return np.concatenate([stored[place * size : (place + 1) * size] for place in (0, 2, 1, 3)])


def _beside(state: Any, batch: int, width: int) -> Any:
    """Return an initial state with the directions side by side."""
    if state is None:
        return np.zeros((batch, width), np.float32)
    return mb.reshape(x=mb.transpose(x=state, perm=[1, 0, 2]), shape=[batch, width])
