"""Where an operator of a TFLite file keeps its weights, and how much it computes."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from hedgerow.compile.inspection.tflite.file import TfliteFile, listed
from hedgerow.compile.inspection.tflite.shapes import size_of, sizes_of

__all__ = ["macs_of", "parameters_of"]

# Where an operator keeps weights and biases among its inputs; whatever of these is a constant is a parameter.
_PARAMETERS: Mapping[str, tuple[int, ...]] = {
    "CONV_2D": (1, 2),
    "DEPTHWISE_CONV_2D": (1, 2),
    "CONV_3D": (1, 2),
    "FULLY_CONNECTED": (1, 2),
    "TRANSPOSE_CONV": (1, 3),
    "BATCH_MATMUL": (0, 1),
    "SVDF": (1, 2, 3),
    "UNIDIRECTIONAL_SEQUENCE_LSTM": tuple(range(1, 18)),
    "UNIDIRECTIONAL_SEQUENCE_RNN": (1, 2, 3),
}
# What stands between a stored weight and the operator that it is for.
_UNPACKING = {"CAST", "DENSIFY", "DEQUANTIZE", "RESHAPE", "TRANSPOSE"}


def macs_of(name: str, inputs: Sequence[Any], graph: Any, op: Any) -> int | None:
    """Return the multiply-accumulates of one call, or None where a size that they depend on is open."""
    if name not in _PARAMETERS:
        return 0
    outputs = listed(op.outputs)
    out = size_of(graph.tensors[outputs[0]]) if outputs and outputs[0] >= 0 else 0
    if out is None or any(tensor is not None and size_of(tensor) is None for tensor in inputs):
        return None
    if name == "TRANSPOSE_CONV":
        # (output channels, height, width, input channels), and every input value meets all of it but the last.
        return math.prod(sizes_of(inputs[2])) * math.prod(sizes_of(inputs[1])[:-1])
    if name == "BATCH_MATMUL":
        inner = sizes_of(inputs[0])[-2 if getattr(op.builtinOptions, "adjX", False) else -1]
        return out * inner
    if name in {"UNIDIRECTIONAL_SEQUENCE_LSTM", "UNIDIRECTIONAL_SEQUENCE_RNN"}:
        # Recurrent cells use every weight matrix once a step and sample.
        steps = math.prod(sizes_of(inputs[0])[:-1])
        matrices = [sizes_of(tensor) for tensor in inputs[1:18] if tensor is not None]
        return steps * sum(math.prod(sizes) for sizes in matrices if len(sizes) == 2)
    weights = sizes_of(inputs[1])
    if name == "DEPTHWISE_CONV_2D":
        return out * weights[1] * weights[2]
    if name == "CONV_3D":
        return out * math.prod(weights[:-1])
    if name == "SVDF":
        return math.prod(weights) + math.prod(sizes_of(inputs[2]))
    return out * math.prod(weights[1:])


def parameters_of(file: TfliteFile, graph: Any) -> int:
    """Return how many numbers the weights and biases of a graph have, also those behind what unpacks them."""
    unpacked = {
        output: inputs[0]
        for op in graph.operators
        if file.operators[op.opcodeIndex] in _UNPACKING and (inputs := listed(op.inputs))
        for output in listed(op.outputs)
    }
    found = set[int]()
    for op in graph.operators:
        inputs = listed(op.inputs)
        for place in _PARAMETERS.get(file.operators[op.opcodeIndex], ()):
            index, passed = inputs[place] if place < len(inputs) else -1, set[int]()
            # A graph has no circles, but a damaged file may.
            while index in unpacked and index not in passed:
                passed.add(index)
                index = unpacked[index]
            if index >= 0:
                found.add(index)
    return sum(size_of(graph.tensors[index]) or 0 for index in found if file.stored(graph.tensors[index]))
