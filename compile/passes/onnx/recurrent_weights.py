"""Store the weights of recurrent layers in an ONNX file as int8, which onnxruntime.quantization does for few of them.

An LSTM becomes ``DynamicQuantizeLSTM`` of ONNX Runtime's own operators, which multiplies in int8 (twice as fast as in
float from 128 hidden numbers on); where the standard's operators alone are wanted, and for GRU and plain layers, of
which there is no such operator, the weights stand behind ``DequantizeLinear`` and the arithmetic stays in float.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["RECURRENT", "quantize_recurrent"]

RECURRENT = ("LSTM", "GRU", "RNN")
"""The operators, whose weights are their inputs 1 and 2: ``(directions, gates * hidden, inputs)``."""
_OWN_DOMAIN = "com.microsoft"
_SMALLEST = 1e-12


def quantize_recurrent(
    model: Any, *, limit: int = 127, standard_only: bool = False, left_out: Sequence[str] = ()
) -> None:
    """Quantize the weights of every recurrent layer in place, with one scale for each row of a gate.

    Args:
        model: An ONNX model.
        limit: The largest integer of a weight.
        standard_only: Use no operator of ONNX Runtime's own.
        left_out: Names of nodes that stay as they are.
    """
    from onnx import helper

    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    nodes: list[Any] = []
    done: dict[str, str] = {}
    for node in graph.node:
        chosen = node.op_type in RECURRENT and node.name not in left_out
        if not chosen or not all(node.input[place] in constants for place in (1, 2)):
            nodes.append(node)
        elif node.op_type == "LSTM" and not standard_only:
            nodes.append(_whole(graph, node, constants, limit))
        else:
            for place in (1, 2):
                name = node.input[place]
                if name not in done:
                    done[name] = f"{name}_dequantized"
                    nodes += _stored(graph, name, _array(constants[name]), limit)
                node.input[place] = done[name]
            nodes.append(node)
    used = {name for node in nodes for name in node.input} | {value.name for value in graph.output}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(kept)
    own = any(node.domain == _OWN_DOMAIN for node in nodes)
    if own and not any(entry.domain == _OWN_DOMAIN for entry in model.opset_import):
        model.opset_import.append(helper.make_opsetid(_OWN_DOMAIN, 1))


def _array(tensor: Any) -> NDArray[np.float32]:
    from onnx import numpy_helper

    found: NDArray[np.float32] = numpy_helper.to_array(tensor)
    return found


def _round(weights: NDArray[np.float32], limit: int) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Return integers of *weights*, and a scale for all numbers along the last axis."""
    scales = np.maximum(np.abs(weights).max(-1) / limit, _SMALLEST).astype(np.float32)
    return np.rint(weights / scales[..., None]).astype(np.int8), scales


def _whole(graph: Any, node: Any, constants: dict[str, Any], limit: int) -> Any:
    """Return the LSTM as ``DynamicQuantizeLSTM``, which takes its weights transposed."""
    from onnx import helper

    given, described = [*node.input] + [""] * (8 - len(node.input)), []
    for place in (1, 2):
        integers, scales = _round(_array(constants[node.input[place]]), limit)
        given[place] = _constant(graph, f"{node.input[place]}_transposed", integers.transpose(0, 2, 1))
        described.append(_constant(graph, f"{node.input[place]}_scales", scales))
        described.append(_constant(graph, f"{node.input[place]}_zeros", np.zeros_like(scales, np.int8)))
    made = helper.make_node(
        "DynamicQuantizeLSTM", [*given, *described], list(node.output), name=node.name, domain=_OWN_DOMAIN
    )
    # What the standard added later has no place there, and layout 0 is the only one.
    made.attribute.extend(attribute for attribute in node.attribute if attribute.name != "layout")
    return made


def _stored(graph: Any, name: str, weights: NDArray[np.float32], limit: int) -> list[Any]:
    """Add the weights as rows of integers, and return the nodes that make them what they were."""
    from onnx import helper

    integers, scales = _round(weights.reshape(-1, weights.shape[-1]), limit)
    rows = [_constant(graph, f"{name}_quantized", integers), _constant(graph, f"{name}_scales", scales)]
    shape = _constant(graph, f"{name}_shape", np.array(weights.shape, np.int64))
    return [
        helper.make_node("DequantizeLinear", rows, [f"{name}_rows"], name=f"{name}_dequantize", axis=0),
        helper.make_node("Reshape", [f"{name}_rows", shape], [f"{name}_dequantized"], name=f"{name}_reshape"),
    ]


def _constant(graph: Any, name: str, values: NDArray[Any]) -> str:
    from onnx import numpy_helper

    if all(tensor.name != name for tensor in graph.initializer):
        graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
    return name
