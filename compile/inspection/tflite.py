"""Read a TFLite file back, from its flatbuffer."""

import math
import struct
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from hedgerow.compile.inspection.facts import FileFacts, OperatorFacts, any_broken
from hedgerow.errors import DecodeError

__all__ = ["read_tflite"]

_OPERATORS = {code: name for name, code in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
_TYPES = {code: name.lower() for name, code in vars(schema.TensorType).items() if not name.startswith("_")}
_BITS = {
    "int2": 2, "uint4": 4, "int4": 4, "int8": 8, "uint8": 8, "bool": 8, "float16": 16, "bfloat16": 16, "int16": 16,
    "uint16": 16, "float32": 32, "int32": 32, "uint32": 32, "float64": 64, "int64": 64, "uint64": 64,
}  # fmt: skip
_FLOATS = {"float16", "float32", "float64", "bfloat16"}
_INTEGERS = {"int8", "uint8", "int4", "int2", "uint4"}
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


def read_tflite(content: bytes) -> FileFacts:
    """Return the facts of a TFLite file: weights and types over all its subgraphs, the graph of the first.

    Raises:
        DecodeError: The bytes are no TFLite file.
    """
    if content[4:8] != b"TFL3":
        raise DecodeError("tflite", "a TFLite flatbuffer, version 3", f"{len(content)} other bytes")
    try:
        model = schema.ModelT.InitFromPackedBuf(content, 0)
    # What reading past the end of a damaged flatbuffer raises.
    except (struct.error, IndexError, TypeError, ValueError, OverflowError) as exc:
        raise DecodeError("tflite", "a whole TFLite flatbuffer", f"{type(exc).__name__}: {exc}") from exc
    if not model.subgraphs or not model.buffers:
        raise DecodeError("tflite", "a file with a graph", "none")
    return _facts(_File(model, content))


class _File:
    """A parsed file with its operators' names and its constants at hand."""

    def __init__(self, model: Any, content: bytes) -> None:
        self.graphs = model.subgraphs
        self._content, self._buffers = content, model.buffers
        self.operators = [
            # Old files keep the code in the narrow field, new ones in the wide one; the larger is the right one.
            code.customCode.decode("utf-8", "replace")
            if code.customCode
            else _OPERATORS.get(max(code.builtinCode, code.deprecatedBuiltinCode), "UNKNOWN")
            for code in model.operatorCodes
        ]
        self.versions = [max(1, int(code.version)) for code in model.operatorCodes]

    def stored(self, tensor: Any) -> bytes:
        """Return the bytes of a constant; empty for any other tensor."""
        buffer = self._buffers[tensor.buffer]
        if buffer.data is not None and len(buffer.data):
            return bytes(memoryview(buffer.data))
        if _stands_outside(buffer):
            return self._content[buffer.offset : buffer.offset + buffer.size]
        return b""

    @property
    def outside_constants(self) -> int:
        """How many constants stand behind the flatbuffer."""
        return sum(_stands_outside(buffer) for buffer in self._buffers)


def _stands_outside(buffer: Any) -> bool:
    """Whether a buffer is behind the flatbuffer: ai-edge-quantizer writes so from 256 KiB on, others from 2 GB on."""
    # 1 stands for a place that is not known yet.
    return bool(buffer.offset > 1 and buffer.size > 0)


def _facts(file: _File) -> FileFacts:
    bytes_by_bits: Counter[int] = Counter()
    kinds: set[str] = set()
    quantized = floats = float_tensors = 0
    has_nan = dynamic = False
    versions: dict[str, int] = {}
    for graph in file.graphs:
        used = {int(i) for op in graph.operators for i in (*_list(op.inputs), *_list(op.outputs)) if i >= 0}
        used |= {int(i) for i in (*_list(graph.inputs), *_list(graph.outputs))}
        for op in graph.operators:
            name, version = file.operators[op.opcodeIndex], file.versions[op.opcodeIndex]
            versions[name] = max(version, versions.get(name, 0))
        # Converters leave tensors behind that no operator touches.
        for index in sorted(used):
            tensor = graph.tensors[index]
            kind = _TYPES.get(tensor.type, "unknown")
            kinds.add(kind)
            float_tensors += kind in _FLOATS
            dynamic |= any(size < 0 for size in _list(tensor.shapeSignature)[1:])
            content = file.stored(tensor)
            if not content:
                continue
            size = _size(tensor)
            quantized += size if kind in _INTEGERS else 0
            floats += size if kind in _FLOATS else 0
            if kind in _INTEGERS | _FLOATS:
                bytes_by_bits[_BITS[kind]] += len(content)
            has_nan |= kind in _FLOATS and any_broken(_floats(content, kind))
    main = file.graphs[0]
    return FileFacts(
        operators=frozenset(versions),
        number_types=frozenset(kinds),
        quantized_weights=quantized,
        float_weights=floats,
        operator_versions=versions,
        weights_bytes=sum(bytes_by_bits.values()),
        weights_bytes_by_bits=dict(bytes_by_bits),
        parameters=_parameters(file, main),
        has_nan=has_nan,
        dynamic_shapes=dynamic,
        float_tensors=float_tensors,
        graph=tuple(_operator(file, main, op) for op in main.operators),
        tensor_bytes={
            _name(main, index): math.ceil(_size(tensor) * _BITS.get(_TYPES.get(tensor.type, ""), 0) / 8)
            for index, tensor in enumerate(main.tensors)
            if not file.stored(tensor)
        },
        inputs=tuple(_name(main, index) for index in _list(main.inputs)),
        outputs=tuple(_name(main, index) for index in _list(main.outputs)),
        border_types=frozenset(
            _TYPES.get(main.tensors[index].type, "unknown") for index in (*_list(main.inputs), *_list(main.outputs))
        ),
        asymmetric_tensors=sum(
            tensor.quantization is not None and any(_list(tensor.quantization.zeroPoint)) for tensor in main.tensors
        ),
        outside_constants=file.outside_constants,
    )


def _list(values: Any) -> list[int]:
    return [] if values is None else [int(value) for value in values]


def _shape(tensor: Any) -> tuple[int, ...]:
    return tuple(max(1, size) for size in _list(tensor.shape))


def _size(tensor: Any) -> int:
    return math.prod(_shape(tensor))


def _name(graph: Any, index: int) -> str:
    # Names need not differ; the position does.
    tensor = graph.tensors[index]
    return f"{index}:{tensor.name.decode('utf-8', 'replace') if tensor.name else ''}"


def _floats(content: bytes, kind: str) -> NDArray[Any]:
    if kind == "bfloat16":
        return (np.frombuffer(content, np.uint16).astype(np.uint32) << 16).view(np.float32)
    return np.frombuffer(content, np.dtype(kind))


def _operator(file: _File, graph: Any, op: Any) -> OperatorFacts:
    name = file.operators[op.opcodeIndex]
    return OperatorFacts(
        name=name,
        version=file.versions[op.opcodeIndex],
        inputs=tuple(_name(graph, i) for i in _list(op.inputs) if i >= 0 and not file.stored(graph.tensors[i])),
        outputs=tuple(_name(graph, i) for i in _list(op.outputs) if i >= 0),
        macs=_macs(name, [graph.tensors[i] if i >= 0 else None for i in _list(op.inputs)], graph, op),
    )


def _macs(name: str, inputs: list[Any], graph: Any, op: Any) -> int:
    if name not in _PARAMETERS:
        return 0
    outputs = _list(op.outputs)
    out = _size(graph.tensors[outputs[0]]) if outputs else 0
    if name == "TRANSPOSE_CONV":
        # (output channels, height, width, input channels), and every input value meets all of it but the last.
        return _size(inputs[2]) * math.prod(_shape(inputs[1])[:-1])
    if name == "BATCH_MATMUL":
        inner = _shape(inputs[0])[-2 if op.builtinOptions is not None and op.builtinOptions.adjX else -1]
        return out * inner
    weights = _shape(inputs[1])
    if name == "DEPTHWISE_CONV_2D":
        return out * weights[1] * weights[2]
    if name == "CONV_3D":
        return out * math.prod(weights[:-1])
    if name in {"CONV_2D", "FULLY_CONNECTED"}:
        return out * math.prod(weights[1:])
    if name == "SVDF":
        return math.prod(weights) + _size(inputs[2])
    # Recurrent cells use every weight matrix once a step and sample.
    steps = math.prod(_shape(inputs[0])[:-1])
    return steps * sum(_size(tensor) for tensor in inputs[1:18] if tensor is not None and len(_shape(tensor)) == 2)


def _parameters(file: _File, graph: Any) -> int:
    found = {
        op_inputs[place]
        for op in graph.operators
        for op_inputs in [_list(op.inputs)]
        for place in _PARAMETERS.get(file.operators[op.opcodeIndex], ())
        if place < len(op_inputs) and op_inputs[place] >= 0
    }
    return sum(_size(graph.tensors[index]) for index in found if file.stored(graph.tensors[index]))
