"""Read an ONNX file back."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError as ProtobufError  # type: ignore[import-untyped]
from onnx import numpy_helper

from hedgerow.compile.inspection.facts import FileFacts, OperatorFacts, any_broken
from hedgerow.errors import DecodeError

__all__ = ["read_onnx"]

_NAMES = {"float": "float32", "double": "float64"}
_FLOATS = {"float16", "float32", "float64", "bfloat16"}
_INTEGERS = {"int2", "uint2", "int4", "uint4", "int8", "uint8"}
_BITS = {
    "int2": 2, "uint2": 2, "int4": 4, "uint4": 4, "float4e2m1": 4, "int8": 8, "uint8": 8, "bool": 8,
    "float8e4m3fn": 8, "float8e4m3fnuz": 8, "float8e5m2": 8, "float8e5m2fnuz": 8, "float16": 16, "bfloat16": 16,
    "int16": 16, "uint16": 16, "float32": 32, "int32": 32, "uint32": 32, "float64": 64, "int64": 64, "uint64": 64,
}  # fmt: skip
# Where an operator keeps weights and biases among its inputs.
_PARAMETERS: Mapping[str, tuple[int, ...]] = {
    "Conv": (1, 2),
    "ConvInteger": (1,),
    "ConvTranspose": (1, 2),
    "QLinearConv": (3, 8),
    "Gemm": (1, 2),
    "MatMul": (0, 1),
    "MatMulInteger": (0, 1),
    "QLinearMatMul": (0, 3),
    "MatMulNBits": (1,),
    "LSTM": (1, 2, 3),
    "GRU": (1, 2, 3),
    "RNN": (1, 2, 3),
}
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
    "GatherBlockQuantized": slice(2, None),
}


def read_onnx(content: bytes) -> FileFacts:
    """Return the facts of an ONNX file: operators, weights and types with those of sub-graphs, the main graph.

    Raises:
        DecodeError: The bytes are no ONNX file, or its weights are in other files.
    """
    try:
        model = onnx.load_model_from_string(content)
    except ProtobufError as exc:
        raise DecodeError("onnx", "a protobuf of an ONNX model", str(exc)) from exc
    if not model.graph.node:
        raise DecodeError("onnx", "a model with operators", "none")
    graphs = list(_graphs(model.graph))
    constants = {name: tensor for graph in graphs for name, tensor in _constants(graph)}
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in constants.values()):
        raise DecodeError("onnx", "one file that holds its weights", "weights in other files")
    nodes = [node for graph in graphs for node in graph.node]
    inferred = _inferred(model)
    describing = {
        name for node in nodes if node.op_type in _DESCRIBING for name in node.input[_DESCRIBING[node.op_type]]
    }
    # Two 4-bit numbers in a byte, under a type of 8 bits.
    packed = {node.input[1]: node for node in nodes if node.op_type == "MatMulNBits"}
    folded = _folded(model.graph, constants)
    bytes_by_bits: Counter[int] = Counter()
    quantized = floats = 0
    for name, tensor in constants.items():
        kind, size = _kind(tensor.data_type), math.prod(tensor.dims)
        bits = _BITS.get(kind, 0)
        length = math.ceil(size * bits / 8)
        if name in packed:
            bits, size = _attribute(packed[name], "bits", 4), _nbits_size(packed[name])
        if name in describing or (kind not in _INTEGERS | _FLOATS and not kind.startswith("float8")):
            continue
        quantized += size if bits <= 8 else 0
        floats += size if kind in _FLOATS else 0
        bytes_by_bits[bits] += length
    kinds = {name: _kind(value.type.tensor_type.elem_type) for name, value in inferred.items()}
    kinds |= {name: _kind(tensor.data_type) for name, tensor in constants.items()}
    domains = {entry.domain: int(entry.version) for entry in model.opset_import}
    inputs = tuple(value.name for value in model.graph.input if value.name not in constants)
    outputs = tuple(value.name for value in model.graph.output)
    return FileFacts(
        operators=frozenset(node.op_type for node in nodes if node.op_type != "Constant"),
        number_types=frozenset(kinds.values()) - {"undefined"},
        quantized_weights=quantized,
        float_weights=floats,
        operator_versions={n.op_type: domains.get(n.domain, 1) for n in nodes if n.op_type != "Constant"},
        weights_bytes=sum(bytes_by_bits.values()),
        weights_bytes_by_bits=dict(bytes_by_bits),
        parameters=_parameters(model.graph, constants),
        has_nan=any(_has_nan(tensor) for tensor in constants.values()),
        dynamic_shapes=_is_dynamic(model.graph, constants),
        float_tensors=sum(kind in _FLOATS for kind in kinds.values()),
        graph=tuple(
            _operator(node, folded, inferred, domains) for node in model.graph.node if node.output[0] not in folded
        ),
        tensor_bytes={
            name: math.ceil(math.prod(shape) * _BITS.get(kinds[name], 0) / 8)
            for name, value in inferred.items()
            if name not in folded and (shape := _shape(value)) is not None
        },
        inputs=inputs,
        outputs=outputs,
        border_types=frozenset(kinds[name] for name in (*inputs, *outputs) if name in kinds),
        asymmetric_tensors=_asymmetric(nodes, constants),
    )


def _asymmetric(nodes: list[Any], constants: Mapping[str, Any]) -> int:
    linear = [n for n in nodes if n.op_type in {"QuantizeLinear", "DequantizeLinear"} and len(n.input) > 2]
    points = {node.input[2] for node in linear} & constants.keys()
    return sum(bool(numpy_helper.to_array(constants[name]).astype(np.int64).any()) for name in points)


def _graphs(graph: Any) -> Iterator[Any]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                if inner.node:
                    yield from _graphs(inner)


def _constants(graph: Any) -> Iterator[tuple[str, Any]]:
    for tensor in graph.initializer:
        yield tensor.name, tensor
    for node in graph.node:
        if node.op_type == "Constant":
            for attribute in node.attribute:
                if attribute.name == "value":
                    yield node.output[0], attribute.t


def _kind(code: int) -> str:
    name: str = onnx.TensorProto.DataType.Name(code).lower()
    return _NAMES.get(name, name)


def _inferred(model: Any) -> dict[str, Any]:
    """Return the type and shape of every tensor of the main graph for one sample: dynamic sizes are 1."""
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    del fixed.graph.value_info[:]
    for value in fixed.graph.input:
        for axis in value.type.tensor_type.shape.dim:
            if not axis.HasField("dim_value"):
                axis.dim_value = 1
    for value in fixed.graph.output:
        value.type.tensor_type.ClearField("shape")
    try:
        graph = onnx.shape_inference.infer_shapes(fixed, data_prop=True).graph
    except onnx.shape_inference.InferenceError as exc:
        raise DecodeError("onnx", "operators whose shapes fit", str(exc)[:300]) from exc
    constants = [onnx.helper.make_tensor_value_info(name, t.data_type, t.dims) for name, t in _constants(graph)]
    return {value.name: value for value in (*graph.input, *graph.value_info, *graph.output, *constants)}


def _shape(value: Any) -> tuple[int, ...] | None:
    """Return a shape with every size known, or None."""
    if value is None or not value.type.tensor_type.HasField("shape"):
        return None
    sizes = value.type.tensor_type.shape.dim
    return tuple(int(axis.dim_value) for axis in sizes) if all(axis.HasField("dim_value") for axis in sizes) else None


def _folded(graph: Any, constants: Mapping[str, Any]) -> set[str]:
    """Return the constants and everything that is computed from them alone, such as a dequantized weight."""
    found = set(constants)
    for node in graph.node:
        if all(name in found or not name for name in node.input) and not any(a.g.node for a in node.attribute):
            found |= set(node.output)
    return found


def _is_dynamic(graph: Any, constants: Mapping[str, Any]) -> bool:
    border = [value for value in (*graph.input, *graph.output) if value.name not in constants]
    return any(not axis.HasField("dim_value") for v in border for axis in v.type.tensor_type.shape.dim[1:])


def _has_nan(tensor: Any) -> bool:
    if _kind(tensor.data_type) not in _FLOATS:
        return False
    return any_broken(numpy_helper.to_array(tensor).astype(np.float64))


def _operator(node: Any, folded: set[str], inferred: Mapping[str, Any], domains: Mapping[str, int]) -> OperatorFacts:
    return OperatorFacts(
        name=node.op_type,
        version=domains.get(node.domain, 1),
        inputs=tuple(name for name in node.input if name and name not in folded),
        outputs=tuple(name for name in node.output if name),
        macs=_macs(
            node, [_shape(inferred.get(name)) or () for name in node.input], _shape(inferred.get(node.output[0]))
        ),
    )


def _macs(node: Any, inputs: list[tuple[int, ...]], output: tuple[int, ...] | None) -> int:
    kind = node.op_type
    if kind not in _PARAMETERS or not output:
        return 0
    out = math.prod(output)
    if kind in {"Conv", "ConvInteger", "QLinearConv"}:
        return out * math.prod(inputs[_PARAMETERS[kind][0]][1:])
    if kind == "ConvTranspose":
        return math.prod(inputs[0]) * math.prod(inputs[1][1:])
    if kind == "Gemm":
        return out * inputs[0][0 if _attribute(node, "transA", 0) else -1]
    if kind in {"MatMul", "MatMulInteger", "QLinearMatMul"}:
        return out * inputs[0][-1]
    if kind == "MatMulNBits":
        return out * _attribute(node, "K", 0)
    # A recurrent cell uses both weight matrices (of every direction) once a step and sample.
    return math.prod(inputs[0][:2]) * (math.prod(inputs[1]) + math.prod(inputs[2]))


def _attribute(node: Any, name: str, default: int) -> int:
    return next((int(attribute.i) for attribute in node.attribute if attribute.name == name), default)


def _nbits_size(node: Any) -> int:
    return _attribute(node, "N", 0) * _attribute(node, "K", 0)


def _parameters(graph: Any, constants: Mapping[str, Any]) -> int:
    """Return how many numbers weights and biases have, also those behind a dequantize, reshape or transpose node."""
    producers = {name: node for node in graph.node for name in node.output}
    found: dict[str, int] = {}
    for node in graph.node:
        for place in _PARAMETERS.get(node.op_type, ()):
            name = node.input[place] if place < len(node.input) else ""
            while name in producers and producers[name].op_type in _THROUGH:
                name = producers[name].input[0]
            if name in constants:
                packed = node.op_type == "MatMulNBits"
                found[name] = _nbits_size(node) if packed else math.prod(constants[name].dims)
    return sum(found.values())
