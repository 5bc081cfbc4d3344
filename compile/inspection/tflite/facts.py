"""Read a TFLite file back, from its flatbuffer."""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hedgerow.compile.inspection.facts import NO_SHAPES, FileFacts, OperatorFacts, any_broken
from hedgerow.compile.inspection.tflite.file import BITS, FLOATS, TfliteFile, listed, plain_name, type_name
from hedgerow.compile.inspection.tflite.operators import macs_of, parameters_of
from hedgerow.compile.inspection.tflite.parsing import parse_tflite
from hedgerow.compile.inspection.tflite.shapes import compare, open_inputs, open_sizes, size_of
from hedgerow.compile.inspection.uses import Seen, tflite_use
from hedgerow.hardware.fit import OperatorUse

__all__ = ["read_tflite"]

_HANDLES = {"resource", "variant"}  # of what is kept elsewhere: they hold no numbers
_INTEGERS = {"int8", "uint8", "int4", "int2", "uint4"}


def read_tflite(content: bytes, shapes: Mapping[str, tuple[int, ...]] = NO_SHAPES) -> FileFacts:
    """Return the facts of a TFLite file: weights and types over all its subgraphs, the graph of the first.

    Args:
        content: The file.
        shapes: Input -> its shape for one prediction, where the file leaves a size open. The sizes that follow from
            them are LiteRT's, so the file is loaded and run once.

    Raises:
        DecodeError: The bytes are no TFLite file, or it contradicts itself.
        InputShapeError: *shapes* does not fit the inputs.
    """
    file = parse_tflite(content)
    if shapes:
        compare(file.graphs[0], shapes)
        if open_inputs(file.graphs[0]):
            from hedgerow.compile.runners.tflite import resolved_shapes

            file.resolve(resolved_shapes(content, shapes))
    return _facts(file)


@dataclass(slots=True)
class _Counted:
    """What is counted over all graphs of a file."""

    bytes_by_bits: Counter[int] = field(default_factory=Counter)
    kinds: set[str] = field(default_factory=set)
    versions: dict[str, int] = field(default_factory=dict)
    uses: set[OperatorUse] = field(default_factory=set)
    quantized: int = 0
    floats: int = 0
    float_tensors: int = 0
    has_nan: bool = False
    dynamic: bool = False

    def count_operator(self, file: TfliteFile, graph: Any, op: Any) -> None:
        name, version = file.operators[op.opcodeIndex], file.versions[op.opcodeIndex]
        self.versions[name] = max(version, self.versions.get(name, 0))
        given = [each or ("", 0) for each in _seen(graph, op.outputs)]
        self.uses.add(tflite_use(name, _seen(graph, op.inputs), given))

    def count_tensor(self, tensor: Any, content: bytes) -> None:
        kind = type_name(tensor.type)
        self.kinds |= {kind} - _HANDLES
        self.float_tensors += kind in FLOATS
        self.dynamic |= any(size < 0 for size in listed(tensor.shapeSignature)[1:])
        if not content:
            return
        size = size_of(tensor) or 0
        self.quantized += size if kind in _INTEGERS else 0
        self.floats += size if kind in FLOATS else 0
        if kind in _INTEGERS | FLOATS:
            self.bytes_by_bits[BITS[kind]] += len(content)
        self.has_nan |= kind in FLOATS and any_broken(_floats(content, kind))


def _counted(file: TfliteFile) -> _Counted:
    found = _Counted()
    for graph in file.graphs:
        used = {int(i) for op in graph.operators for i in (*listed(op.inputs), *listed(op.outputs)) if i >= 0}
        used |= {int(i) for i in (*listed(graph.inputs), *listed(graph.outputs))}
        for op in graph.operators:
            found.count_operator(file, graph, op)
        # Converters leave tensors behind that no operator touches.
        for index in sorted(used):
            found.count_tensor(graph.tensors[index], file.stored(graph.tensors[index]))
    return found


def _facts(file: TfliteFile) -> FileFacts:
    counted = _counted(file)
    main = file.graphs[0]
    return FileFacts(
        operators=frozenset(counted.versions),
        number_types=frozenset(counted.kinds),
        quantized_weights=counted.quantized,
        float_weights=counted.floats,
        operator_versions=counted.versions,
        uses=frozenset(counted.uses),
        weights_bytes=sum(counted.bytes_by_bits.values()),
        weights_bytes_by_bits=dict(counted.bytes_by_bits),
        parameters=parameters_of(file, main),
        has_nan=counted.has_nan,
        dynamic_shapes=counted.dynamic,
        float_tensors=counted.float_tensors,
        graph=tuple(_operator(file, main, op) for op in main.operators),
        tensor_bytes={
            _name(main, index): math.ceil(count * BITS.get(type_name(tensor.type), 0) / 8)
            for index, tensor in enumerate(main.tensors)
            if not file.stored(tensor) and (count := size_of(tensor)) is not None
        },
        inputs=tuple(_name(main, index) for index in listed(main.inputs)),
        outputs=tuple(_name(main, index) for index in listed(main.outputs)),
        border_types=frozenset(
            type_name(main.tensors[index].type) for index in (*listed(main.inputs), *listed(main.outputs))
        ),
        asymmetric_tensors=sum(
            tensor.quantization is not None and any(listed(tensor.quantization.zeroPoint)) for tensor in main.tensors
        ),
        outside_constants=file.outside_constants,
        open_sizes=open_sizes(file, main),
    )


def _seen(graph: Any, places: Any) -> list[Seen | None]:
    tensors = [graph.tensors[place] if place >= 0 else None for place in listed(places)]
    return [None if each is None else (type_name(each.type), len(listed(each.shape))) for each in tensors]


def _name(graph: Any, index: int) -> str:
    # Names need not differ; the position does.
    tensor = graph.tensors[index]
    return f"{index}:{plain_name(tensor)}"


def _floats(content: bytes, kind: str) -> NDArray[Any]:
    if kind == "bfloat16":
        return (np.frombuffer(content, np.uint16).astype(np.uint32) << 16).view(np.float32)
    return np.frombuffer(content, np.dtype(kind))


def _operator(file: TfliteFile, graph: Any, op: Any) -> OperatorFacts:
    name = file.operators[op.opcodeIndex]
    return OperatorFacts(
        name=name,
        version=file.versions[op.opcodeIndex],
        inputs=tuple(_name(graph, i) for i in listed(op.inputs) if i >= 0 and not file.stored(graph.tensors[i])),
        outputs=tuple(_name(graph, i) for i in listed(op.outputs) if i >= 0),
        macs=macs_of(name, [graph.tensors[i] if i >= 0 else None for i in listed(op.inputs)], graph, op),
    )
