"""Parse a TFLite file.

Every place that the file names is checked before it is used, so that whatever is raised afterwards is a bug of ours.
"""

import struct
from collections.abc import Iterable, Mapping
from typing import Any

from ai_edge_litert import schema_py_generated as schema

from hedgerow.compile.inspection.tflite.file import BITS, FLOATS, TfliteFile, listed, stands_outside, type_name
from hedgerow.errors import DecodeError

__all__ = ["parse_tflite"]

# Operator -> inputs that say how much it computes, with the fewest dimensions of each.
_NEEDED: Mapping[str, Mapping[int, int]] = {
    "CONV_2D": {1: 4},
    "DEPTHWISE_CONV_2D": {1: 4},
    "CONV_3D": {1: 5},
    "FULLY_CONNECTED": {1: 2},
    "TRANSPOSE_CONV": {1: 4, 2: 1},
    "BATCH_MATMUL": {0: 2, 1: 2},
    "SVDF": {1: 2, 2: 1},
    "UNIDIRECTIONAL_SEQUENCE_LSTM": {0: 2},
    "UNIDIRECTIONAL_SEQUENCE_RNN": {0: 2},
}


def parse_tflite(content: bytes) -> TfliteFile:
    """Parse a file and check that every place that it names is there.

    Raises:
        DecodeError: The bytes are no TFLite file, or it contradicts itself.
    """
    if content[4:8] != b"TFL3":
        raise DecodeError("tflite", "a TFLite flatbuffer, version 3", f"{len(content)} other bytes")
    try:
        model = schema.ModelT.InitFromPackedBuf(content, 0)
    # What reading past the end of a damaged flatbuffer raises, inside the code that flatc made of its schema.
    except (struct.error, IndexError, TypeError, ValueError, OverflowError, AttributeError, MemoryError) as exc:
        raise DecodeError("tflite", "a whole TFLite flatbuffer", f"{type(exc).__name__}: {exc}"[:300]) from exc
    _check(model, len(content))
    file = TfliteFile(model, content)
    _check_operators(file)
    _check_constants(file)
    return file


def _check(model: Any, length: int) -> None:
    """Refuse a file that names places that it does not have.

    Raises:
        DecodeError: It does.
    """
    if not model.subgraphs or not model.buffers or not model.subgraphs[0].operators:
        raise DecodeError("tflite", "a file with a graph of operators", "none")
    for place, graph in enumerate(model.subgraphs):
        graph.operators, graph.tensors = graph.operators or [], graph.tensors or []
        count = len(graph.tensors)
        named = [index for op in graph.operators for index in (*listed(op.inputs), *listed(op.outputs))]
        # -1 stands for an input that is left out.
        _within(f"tensors of subgraph {place}", named, count, lowest=-1)
        _within(f"tensors of subgraph {place}", (*listed(graph.inputs), *listed(graph.outputs)), count)
        codes = [op.opcodeIndex for op in graph.operators]
        _within("operator codes", codes, len(model.operatorCodes or ()))
        _within("buffers", [tensor.buffer for tensor in graph.tensors], len(model.buffers))
        for tensor in graph.tensors:
            if any(size < -1 for size in (*listed(tensor.shape), *listed(tensor.shapeSignature))):
                raise DecodeError("tflite", "sizes of tensors", str(listed(tensor.shape)))
    for buffer in model.buffers:
        if stands_outside(buffer) and buffer.offset + buffer.size > length:
            raise DecodeError("tflite", f"constants within its {length} bytes", f"some at {buffer.offset}")


def _within(what: str, named: Iterable[int], count: int, *, lowest: int = 0) -> None:
    if wrong := [index for index in named if not lowest <= index < count]:
        raise DecodeError("tflite", f"{count} {what}", f"number {wrong[0]} of them in use")


def _check_operators(file: TfliteFile) -> None:
    """Refuse an operator whose inputs are too few, or have too few dimensions.

    Raises:
        DecodeError: There is one.
    """
    for graph in file.graphs:
        for op in graph.operators:
            name, inputs = file.operators[op.opcodeIndex], listed(op.inputs)
            for place, rank in _NEEDED.get(name, {}).items():
                if place >= len(inputs) or inputs[place] < 0 or len(listed(graph.tensors[inputs[place]].shape)) < rank:
                    raise DecodeError("tflite", f"{name} with {rank} dimensions in its input {place}", "others")


def _check_constants(file: TfliteFile) -> None:
    """Refuse a constant that ends within a number.

    Raises:
        DecodeError: There is one.
    """
    for graph in file.graphs:
        for tensor in graph.tensors:
            kind, stored = type_name(tensor.type), file.stored(tensor)
            if kind in FLOATS and len(stored) % (BITS[kind] // 8):
                raise DecodeError("tflite", f"constants of whole {kind} numbers", f"{len(stored)} bytes")
