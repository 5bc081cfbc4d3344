"""The constants of an ONNX file: which are weights, in how many bits, and whether they are numbers."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from hedgerow.compile.inspection.facts import any_broken
from hedgerow.compile.inspection.onnx.file import CODES, attribute_of, kind_of
from hedgerow.compile.inspection.onnx.operators import PARAMETERS
from hedgerow.errors import DecodeError

__all__ = [
    "BITS",
    "FLOATS",
    "asymmetric_points",
    "check_constants",
    "folded_in",
    "is_broken",
    "learned_attributes",
    "parameters_of",
    "stored_weights",
]

FLOATS = {"float16", "float32", "float64", "bfloat16"}
_INTEGERS = {"int2", "uint2", "int4", "uint4", "int8", "uint8"}
BITS = {
    "int2": 2, "uint2": 2, "int4": 4, "uint4": 4, "float4e2m1": 4, "int8": 8, "uint8": 8, "bool": 8,
    "float8e4m3fn": 8, "float8e4m3fnuz": 8, "float8e5m2": 8, "float8e5m2fnuz": 8, "float16": 16, "bfloat16": 16,
    "int16": 16, "uint16": 16, "float32": 32, "int32": 32, "uint32": 32, "float64": 64, "int64": 64, "uint64": 64,
}  # fmt: skip
# What stands between a stored weight and the operator that it is for.
_THROUGH = {"Cast", "Clip", "DequantizeLinear", "QuantizeLinear", "Reshape", "Transpose"}
# Inputs that describe how other tensors are quantized: no weights. Operator -> their places.
_DESCRIBING: Mapping[str, slice] = {
    "QuantizeLinear": slice(1, None),
    "DequantizeLinear": slice(1, None),
    "DynamicQuantizeLinear": slice(1, None),
    "ConvInteger": slice(2, None),
    "MatMulInteger": slice(2, None),
    "MatMulNBits": slice(2, 4),
    "DynamicQuantizeLSTM": slice(8, None),
    "GatherBlockQuantized": slice(2, None),
}


def check_constants(constants: Mapping[str, Any]) -> None:
    """Refuse constants that are not here, or of no known type or size.

    Raises:
        DecodeError: There is one.
    """
    for name, tensor in constants.items():
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            raise DecodeError("onnx", "one file that holds its weights", "weights in other files")
        if tensor.data_type not in CODES or any(size < 0 for size in tensor.dims):
            found = f"type {tensor.data_type} and sizes {list(tensor.dims)}"
            raise DecodeError("onnx", f"a known type and sizes of the constant {name!r}", found)


def stored_weights(nodes: Sequence[Any], constants: Mapping[str, Any]) -> tuple[Counter[int], int, int]:
    """Return the bytes of all weights by the width of a number, and how many are quantized and how many are floats."""
    describing = {
        name for node in nodes if node.op_type in _DESCRIBING for name in node.input[_DESCRIBING[node.op_type]]
    }
    # Two 4-bit numbers in a byte, under a type of 8 bits.
    packed = {node.input[1]: node for node in nodes if node.op_type == "MatMulNBits"}
    bytes_by_bits: Counter[int] = Counter()
    quantized = floats = 0
    for name, tensor in constants.items():
        kind, size = kind_of(tensor.data_type), math.prod(tensor.dims)
        bits = BITS.get(kind, 0)
        length = math.ceil(size * bits / 8)
        if name in packed:
            bits, size = attribute_of(packed[name], "bits", 4), _packed_size(packed[name])
        if name in describing or (kind not in _INTEGERS | FLOATS and not kind.startswith("float8")):
            continue
        quantized += size if bits <= 8 else 0
        floats += size if kind in FLOATS else 0
        bytes_by_bits[bits] += length
    return bytes_by_bits, quantized, floats


def parameters_of(graph: Any, constants: Mapping[str, Any]) -> int:
    """Return how many numbers weights and biases have, also those behind a dequantize, reshape or transpose node."""
    producers = {name: node for node in graph.node for name in node.output}
    found: dict[str, int] = {}
    for node in graph.node:
        for place in PARAMETERS.get(node.op_type, ()):
            name = node.input[place] if place < len(node.input) else ""
            passed = set[str]()
            # A graph has no circles, but a damaged file may.
            while name in producers and producers[name].op_type in _THROUGH and name not in passed:
                passed.add(name)
                name = producers[name].input[0]
            if name in constants:
                packed = node.op_type == "MatMulNBits"
                found[name] = _packed_size(node) if packed else math.prod(constants[name].dims)
    return sum(found.values()) + sum(map(learned_attributes, graph.node))


def learned_attributes(node: Any) -> int:
    """Return how many floats an operator of ``ai.onnx.ml`` has in its attributes: trees, vectors, coefficients."""
    return sum(len(attribute.floats) for attribute in node.attribute) if node.domain == "ai.onnx.ml" else 0


def _packed_size(node: Any) -> int:
    return attribute_of(node, "N", 0) * attribute_of(node, "K", 0)


def folded_in(graph: Any, constants: Mapping[str, Any]) -> set[str]:
    """Return the constants and everything that is computed from them alone, such as a dequantized weight."""
    found = set(constants)
    for node in graph.node:
        if all(name in found or not name for name in node.input) and not any(a.g.node for a in node.attribute):
            found |= set(node.output)
    return found


def asymmetric_points(nodes: Sequence[Any], constants: Mapping[str, Any]) -> int:
    """Return how many zero points are not all zero."""
    linear = [n for n in nodes if n.op_type in {"QuantizeLinear", "DequantizeLinear"} and len(n.input) > 2]
    points = {node.input[2] for node in linear} & constants.keys()
    return sum(bool(_array(name, constants[name]).astype(np.int64).any()) for name in points)


def is_broken(name: str, tensor: Any) -> bool:
    """Say whether a constant holds NaN or infinity."""
    return kind_of(tensor.data_type) in FLOATS and any_broken(_array(name, tensor).astype(np.float64))


def _array(name: str, tensor: Any) -> NDArray[Any]:
    try:
        return numpy_helper.to_array(tensor)
    # What onnx raises where a constant holds more or less than its shape says.
    except (ValueError, TypeError) as exc:
        raise DecodeError("onnx", f"numbers that fill the constant {name!r}", str(exc)[:200]) from exc
