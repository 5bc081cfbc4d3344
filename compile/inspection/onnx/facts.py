"""Read an ONNX file back.

What the file says is checked before it is used, so that whatever is raised afterwards is a bug of ours.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError as ProtobufError  # type: ignore[import-untyped]
from numpy.typing import NDArray
from onnx import numpy_helper

from hedgerow.compile.inspection.facts import NO_SHAPES, FileFacts, OperatorFacts, any_broken
from hedgerow.compile.inspection.onnx.shapes import (
    attribute_of,
    constants_of,
    inferred_values,
    is_dynamic,
    known_shape,
    open_sizes,
)
from hedgerow.compile.inspection.uses import onnx_use
from hedgerow.errors import DecodeError
from hedgerow.hardware.fit import OperatorUse

__all__ = ["border_values", "fixed_onnx", "read_onnx"]

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
    "DynamicQuantizeLSTM": (1, 2, 3),
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
    "DynamicQuantizeLSTM": slice(8, None),
    "GatherBlockQuantized": slice(2, None),
}
# The inputs whose shapes say how much an operator computes; weights stand last. What stands here must be there.
_NEEDED: Mapping[str, tuple[int, ...]] = {
    "Conv": (0, 1),
    "ConvInteger": (0, 1),
    "ConvTranspose": (0, 1),
    "QLinearConv": (0, 3),
    "Gemm": (0, 1),
    "MatMul": (0, 1),
    "MatMulInteger": (0, 1),
    "QLinearMatMul": (0, 3),
    "MatMulNBits": (0, 1),
    "LSTM": (0, 1, 2),
    "DynamicQuantizeLSTM": (0, 1, 2),
    "GRU": (0, 1, 2),
    "RNN": (0, 1, 2),
    **dict.fromkeys(("Cast", "Clip", "DequantizeLinear", "QuantizeLinear", "Reshape", "Transpose"), (0,)),
}
_RANKED = {"LSTM", "DynamicQuantizeLSTM", "GRU", "RNN", "Conv", "ConvInteger", "ConvTranspose", "QLinearConv", "Gemm"}
_OWN = {"ai.onnx": ""}
"""Another name of a domain -> the one that is used here."""
_CODES = frozenset(onnx.TensorProto.DataType.values())


def read_onnx(content: bytes, shapes: Mapping[str, tuple[int, ...]] = NO_SHAPES) -> FileFacts:
    """Return the facts of an ONNX file: operators, weights and types with those of sub-graphs, the main graph.

    Args:
        content: The file.
        shapes: Input -> its shape for one prediction, where the file leaves a size open.

    Raises:
        DecodeError: The bytes are no ONNX file, it contradicts itself, or its weights are in other files.
        InputShapeError: *shapes* does not fit the inputs.
    """
    model = _parse(content)
    graphs = list(_graphs(model.graph))
    constants = {name: tensor for graph in graphs for name, tensor in constants_of(graph)}
    nodes = [node for graph in graphs for node in graph.node]
    _check(nodes, constants)
    inferred = inferred_values(model, constants, shapes)
    folded = _folded(model.graph, constants)
    bits, quantized, floats = _stored(nodes, constants)
    kinds = {name: _kind(value.type.tensor_type.elem_type) for name, value in inferred.items()}
    kinds |= {name: _kind(tensor.data_type) for name, tensor in constants.items()}
    domains = {_OWN.get(entry.domain, entry.domain): int(entry.version) for entry in model.opset_import}
    inputs = tuple(value.name for value in model.graph.input if value.name not in constants)
    outputs = tuple(value.name for value in model.graph.output)
    return FileFacts(
        operators=frozenset(_called(node) for node in nodes if node.op_type != "Constant"),
        number_types=frozenset(kinds.values()) - {"undefined"},
        quantized_weights=quantized,
        float_weights=floats,
        operator_versions={_called(n): _version(n, domains) for n in nodes if n.op_type != "Constant"},
        uses=frozenset(_used(node, kinds) for node in nodes if node.op_type != "Constant"),
        weights_bytes=sum(bits.values()),
        weights_bytes_by_bits=dict(bits),
        parameters=_parameters(model.graph, constants),
        has_nan=any(_has_nan(name, tensor) for name, tensor in constants.items()),
        dynamic_shapes=is_dynamic(model.graph, constants),
        float_tensors=sum(kind in _FLOATS for kind in kinds.values()),
        graph=tuple(
            _operator(node, folded, inferred, domains) for node in model.graph.node if _given(node) not in folded
        ),
        tensor_bytes={
            name: math.ceil(math.prod(shape) * _BITS.get(kinds[name], 0) / 8)
            for name, value in inferred.items()
            if name not in folded and (shape := known_shape(value)) is not None
        },
        inputs=inputs,
        outputs=outputs,
        border_types=frozenset(kinds[name] for name in (*inputs, *outputs) if name in kinds),
        asymmetric_tensors=_asymmetric(nodes, constants),
        open_sizes=open_sizes(model.graph, inputs, folded, inferred, shapes),
    )


def _called(node: Any) -> str:
    """Return an operator's name, behind the name of its domain where that is not ONNX's own."""
    domain = _OWN.get(node.domain, node.domain)
    return f"{domain}.{node.op_type}" if domain else node.op_type


def _given(node: Any) -> str:
    """Return the name of the first output that is not left out."""
    name: str = next(name for name in node.output if name)
    return name


def _version(node: Any, domains: Mapping[str, int]) -> int:
    return domains.get(_OWN.get(node.domain, node.domain), 1)


def _used(node: Any, kinds: Mapping[str, str]) -> OperatorUse:
    def seen(name: str) -> tuple[str, int]:
        kind = kinds.get(name, "")
        return ("" if kind in {"undefined", "unknown"} else kind), 0

    inputs = [seen(name) if name else None for name in node.input]
    return onnx_use(_called(node), inputs, [seen(name) for name in node.output])


def _stored(nodes: Sequence[Any], constants: Mapping[str, Any]) -> tuple[Counter[int], int, int]:
    """Return the bytes of all weights by the width of a number, and how many are quantized and how many are floats."""
    describing = {
        name for node in nodes if node.op_type in _DESCRIBING for name in node.input[_DESCRIBING[node.op_type]]
    }
    # Two 4-bit numbers in a byte, under a type of 8 bits.
    packed = {node.input[1]: node for node in nodes if node.op_type == "MatMulNBits"}
    bytes_by_bits: Counter[int] = Counter()
    quantized = floats = 0
    for name, tensor in constants.items():
        kind, size = _kind(tensor.data_type), math.prod(tensor.dims)
        bits = _BITS.get(kind, 0)
        length = math.ceil(size * bits / 8)
        if name in packed:
            bits, size = attribute_of(packed[name], "bits", 4), _nbits_size(packed[name])
        if name in describing or (kind not in _INTEGERS | _FLOATS and not kind.startswith("float8")):
            continue
        quantized += size if bits <= 8 else 0
        floats += size if kind in _FLOATS else 0
        bytes_by_bits[bits] += length
    return bytes_by_bits, quantized, floats


def border_values(content: bytes) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]], tuple[str, ...]]:
    """Return the border of the main graph.

    Returns:
        The inputs and the outputs, each as (name, name, shape with -1 for what is open, type), and what is wrong with
        outputs that are no tensors of numbers, which are left out.

    Raises:
        DecodeError: The bytes are no ONNX file, or an input is no tensor of numbers, or no output is.
    """
    model = _parse(content)
    constants = {name for name, _tensor in constants_of(model.graph)}
    inputs = [value for value in model.graph.input if value.name not in constants]
    for value in inputs:
        if (wrong := _no_tensor(value)) is not None:
            raise DecodeError("onnx", f"a tensor of numbers as the input {value.name!r}", wrong)
        if not value.type.tensor_type.HasField("shape"):
            raise DecodeError("onnx", f"a number of dimensions of the input {value.name!r}", "none")
    left_out = {value.name: wrong for value in model.graph.output if (wrong := _no_tensor(value)) is not None}
    kept = [value for value in model.graph.output if value.name not in left_out]
    sentences = tuple(f"the output {name!r} is {wrong}" for name, wrong in left_out.items())
    if not kept and sentences:
        raise DecodeError("onnx", "an output that is a tensor of numbers", "; ".join(sentences))
    return [_border_value(value) for value in inputs], _outputs(model, kept), sentences


def _no_tensor(value: Any) -> str | None:
    """Say what a value is that no schema holds; None: a tensor of numbers."""
    kind = value.type.WhichOneof("value") or "something without a type"
    if kind == "sequence_type":
        inner = value.type.sequence_type.elem_type.WhichOneof("value") or ""
        if inner == "map_type":
            return "a list of dictionaries (convert the model without ZipMap, in skl2onnx by zipmap=False)"
        return "a list"
    if kind != "tensor_type":
        return kind.replace("_type", "")
    element = _kind(value.type.tensor_type.elem_type)
    if element == "string":
        return "text (give the model numbers as labels to have it)"
    return "of a type that nobody knows" if element in {"unknown", "undefined"} else None


def _outputs(model: Any, values: Sequence[Any]) -> list[tuple[Any, ...]]:
    """Return outputs; what the file does not say of a shape is worked out where that is possible without running it."""
    if all(value.type.tensor_type.HasField("shape") for value in values):
        return [_border_value(value) for value in values]
    try:
        inferred = inferred_values(model, dict(constants_of(model.graph)), {})
    except DecodeError:
        inferred = {}
    found = []
    for value in values:
        known = value if value.type.tensor_type.HasField("shape") else inferred.get(value.name)
        if known is None or not known.type.tensor_type.HasField("shape"):
            raise DecodeError("onnx", f"a number of dimensions of the output {value.name!r}", "none")
        name, tensor, shape, _kind_of_it = _border_value(known)
        found.append((name, tensor, shape, _kind(value.type.tensor_type.elem_type)))
    return found


def _border_value(value: Any) -> tuple[Any, ...]:
    kind = value.type.tensor_type
    sizes = [axis.dim_value if axis.HasField("dim_value") and axis.dim_value > 0 else -1 for axis in kind.shape.dim]
    return value.name, value.name, tuple(sizes), _kind(kind.elem_type)


def fixed_onnx(content: bytes, shapes: Mapping[str, tuple[int, ...]]) -> bytes:
    """Return a file whose inputs have these sizes, and whose outputs those that follow, as far as they are known.

    Raises:
        DecodeError: The bytes are no ONNX file, or its operators do not fit these sizes.
        InputShapeError: *shapes* does not fit the inputs.
    """
    model = _parse(content)
    constants = dict(constants_of(model.graph))
    inferred = inferred_values(model, constants, shapes)
    if all(known_shape(value) == shapes.get(value.name, known_shape(value)) for value in model.graph.input):
        return content
    for value in (*model.graph.input, *model.graph.output):
        if value.name in shapes or value in model.graph.output:
            shape = known_shape(inferred.get(value.name)) if value.name not in shapes else shapes[value.name]
            if shape is None or value.type.WhichOneof("value") != "tensor_type":
                continue
            del value.type.tensor_type.shape.dim[:]
            for size in shape:
                value.type.tensor_type.shape.dim.add().dim_value = size
    # Notes on inner tensors may name the sizes that are no longer open.
    del model.graph.value_info[:]
    fixed: bytes = model.SerializeToString(deterministic=True)
    return fixed


def _parse(content: bytes) -> Any:
    try:
        model = onnx.load_model_from_string(content)
    except ProtobufError as exc:
        raise DecodeError("onnx", "a protobuf of an ONNX model", str(exc)) from exc
    if not model.graph.node:
        raise DecodeError("onnx", "a model with operators", "none")
    # Protobuf does not check the text of this format: what is none comes as bytes.
    if wrong := [name for name in _names(model) if not isinstance(name, str)]:
        raise DecodeError("onnx", "names in UTF-8", repr(wrong[0])[:80])
    return model


def _names(model: Any) -> Iterator[str | bytes]:
    yield from (entry.domain for entry in model.opset_import)
    for graph in _graphs(model.graph):
        for node in graph.node:
            yield from (node.op_type, node.domain, *node.input, *node.output, *(a.name for a in node.attribute))
        for value in (*graph.input, *graph.output):
            yield from (value.name, *(axis.dim_param for axis in value.type.tensor_type.shape.dim))
        yield from (tensor.name for tensor in graph.initializer)


def _check(nodes: Sequence[Any], constants: Mapping[str, Any]) -> None:
    """Refuse what contradicts itself, as far as it is read here.

    Raises:
        DecodeError: It does, or constants are in other files.
    """
    for node in nodes:
        needed = max((place + 1 for place in _NEEDED.get(node.op_type, ())), default=0)
        if not any(node.output) or len(node.input) < needed:
            found = f"{len(node.input)} inputs and {len(node.output)} outputs"
            raise DecodeError("onnx", f"{node.op_type} with at least {needed} inputs and an output", found)
        if node.op_type == "MatMulNBits" and min(attribute_of(node, "N", 0), attribute_of(node, "K", 0)) < 1:
            raise DecodeError("onnx", "MatMulNBits with the sizes N and K", "none")
    for name, tensor in constants.items():
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            raise DecodeError("onnx", "one file that holds its weights", "weights in other files")
        if tensor.data_type not in _CODES or any(size < 0 for size in tensor.dims):
            found = f"type {tensor.data_type} and sizes {list(tensor.dims)}"
            raise DecodeError("onnx", f"a known type and sizes of the constant {name!r}", found)


def _asymmetric(nodes: Sequence[Any], constants: Mapping[str, Any]) -> int:
    linear = [n for n in nodes if n.op_type in {"QuantizeLinear", "DequantizeLinear"} and len(n.input) > 2]
    points = {node.input[2] for node in linear} & constants.keys()
    return sum(bool(_array(name, constants[name]).astype(np.int64).any()) for name in points)


def _array(name: str, tensor: Any) -> NDArray[Any]:
    try:
        return numpy_helper.to_array(tensor)
    # What onnx raises where a constant holds more or less than its shape says.
    except (ValueError, TypeError) as exc:
        raise DecodeError("onnx", f"numbers that fill the constant {name!r}", str(exc)[:200]) from exc


def _graphs(graph: Any) -> Iterator[Any]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                if inner.node:
                    yield from _graphs(inner)


def _kind(code: int) -> str:
    name: str = onnx.TensorProto.DataType.Name(code).lower() if code in _CODES else "unknown"
    return _NAMES.get(name, name)


def _folded(graph: Any, constants: Mapping[str, Any]) -> set[str]:
    """Return the constants and everything that is computed from them alone, such as a dequantized weight."""
    found = set(constants)
    for node in graph.node:
        if all(name in found or not name for name in node.input) and not any(a.g.node for a in node.attribute):
            found |= set(node.output)
    return found


def _has_nan(name: str, tensor: Any) -> bool:
    return _kind(tensor.data_type) in _FLOATS and any_broken(_array(name, tensor).astype(np.float64))


def _operator(node: Any, folded: set[str], inferred: Mapping[str, Any], domains: Mapping[str, int]) -> OperatorFacts:
    shapes = [known_shape(inferred.get(name)) for name in node.input]
    return OperatorFacts(
        name=_called(node),
        version=_version(node, domains),
        inputs=tuple(name for name in node.input if name and name not in folded),
        outputs=tuple(name for name in node.output if name),
        macs=_macs(node, shapes, known_shape(inferred.get(_given(node)))),
    )


def _macs(node: Any, inputs: Sequence[tuple[int, ...] | None], output: tuple[int, ...] | None) -> int | None:
    """Return the multiply-accumulates of one call, or None where a size that they depend on is open.

    Raises:
        DecodeError: A shape has too few dimensions for the operator.
    """
    kind = node.op_type
    if kind not in _PARAMETERS:
        return 0
    if kind == "MatMulNBits":
        return None if output is None else math.prod(output) * attribute_of(node, "K", 0)
    needed = [inputs[place] for place in _NEEDED[kind]]
    known = [shape for shape in needed if shape is not None]
    if output is None or len(known) < len(needed):
        return None
    first, weights = known[0], known[-1]
    if min(map(len, known)) < (2 if kind in _RANKED else 1):
        raise DecodeError("onnx", f"the operator {kind} on tensors with dimensions", str(known))
    if kind in {"Conv", "ConvInteger", "QLinearConv"}:
        return math.prod(output) * math.prod(weights[1:])
    if kind == "ConvTranspose":
        return math.prod(first) * math.prod(weights[1:])
    if kind == "Gemm":
        return math.prod(output) * first[0 if attribute_of(node, "transA", 0) else -1]
    if kind in {"MatMul", "MatMulInteger", "QLinearMatMul"}:
        return math.prod(output) * first[-1]
    # A recurrent cell uses both weight matrices (of every direction) once a step and sample.
    return math.prod(first[:2]) * (math.prod(known[1]) + math.prod(known[2]))


def _nbits_size(node: Any) -> int:
    return attribute_of(node, "N", 0) * attribute_of(node, "K", 0)


def _parameters(graph: Any, constants: Mapping[str, Any]) -> int:
    """Return how many numbers weights and biases have, also those behind a dequantize, reshape or transpose node."""
    producers = {name: node for node in graph.node for name in node.output}
    found: dict[str, int] = {}
    for node in graph.node:
        for place in _PARAMETERS.get(node.op_type, ()):
            name = node.input[place] if place < len(node.input) else ""
            passed = set[str]()
            # A graph has no circles, but a damaged file may.
            while name in producers and producers[name].op_type in _THROUGH and name not in passed:
                passed.add(name)
                name = producers[name].input[0]
            if name in constants:
                packed = node.op_type == "MatMulNBits"
                found[name] = _nbits_size(node) if packed else math.prod(constants[name].dims)
    return sum(found.values())
