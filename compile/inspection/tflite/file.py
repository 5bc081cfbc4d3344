"""Read a TFLite file back, from its flatbuffer.

Every place that the file names is checked before it is used, so that whatever is raised afterwards is a bug of ours.
"""

import math
import struct
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from hedgerow.compile.edgetpu import COMPILED_OPERATOR
from hedgerow.compile.errors import InputShapeError
from hedgerow.compile.inspection.facts import NO_SHAPES, FileFacts, OperatorFacts, any_broken
from hedgerow.compile.inspection.uses import Seen, tflite_use
from hedgerow.errors import DecodeError

__all__ = ["OPERATORS", "TfliteFile", "fixed_tflite", "parse_tflite", "read_tflite", "type_name"]

_OPERATORS = {code: name for name, code in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
OPERATORS = frozenset(_OPERATORS.values())  # TFLite's own
_TYPES = {code: name.lower() for name, code in vars(schema.TensorType).items() if not name.startswith("_")}
_BITS = {
    "int2": 2, "uint4": 4, "int4": 4, "int8": 8, "uint8": 8, "bool": 8, "float16": 16, "bfloat16": 16, "int16": 16,
    "uint16": 16, "float32": 32, "int32": 32, "uint32": 32, "float64": 64, "int64": 64, "uint64": 64,
}  # fmt: skip
_HANDLES = {"resource", "variant"}  # of what is kept elsewhere: they hold no numbers
_FLOATS, _INTEGERS = {"float16", "float32", "float64", "bfloat16"}, {"int8", "uint8", "int4", "int2", "uint4"}
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
# Operators whose subgraphs run a number of times that nobody knows before.
_CALLING = {
    "CALL",
    "CALL_ONCE",
    "IF",
    "WHILE",
    "STABLEHLO_WHILE",
    "STABLEHLO_COMPOSITE",
    "STABLEHLO_REDUCE_WINDOW",
    COMPILED_OPERATOR,
}
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
_NAMED = 4


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
        if _open_inputs(file.graphs[0]):
            from hedgerow.compile.runners.tflite import resolved_shapes

            _compare(file.graphs[0], shapes)
            file.resolve(resolved_shapes(content, shapes))
        else:
            _compare(file.graphs[0], shapes)
    return _facts(file)


def fixed_tflite(content: bytes, shapes: Mapping[str, tuple[int, ...]]) -> bytes:
    """Return a file whose inputs have these sizes, and whose other tensors those that LiteRT gives them.

    Raises:
        DecodeError: The bytes are no TFLite file, LiteRT does not run it with these sizes, or it keeps constants behind
            its graph, so that it cannot be written anew.
        InputShapeError: *shapes* does not fit the inputs.
    """
    from hedgerow.compile.passes.tflite.trimming import rewritten
    from hedgerow.compile.runners.tflite import resolved_shapes

    file = parse_tflite(content)
    shapes = _by_tensor(file, shapes)
    _compare(file.graphs[0], shapes)
    if not _open_inputs(file.graphs[0], batch=True):
        return content
    if file.outside_constants:
        expected = "constants inside its graph where sizes are to be fixed"
        raise DecodeError("tflite", expected, f"{file.outside_constants} behind it")
    file.resolve(resolved_shapes(content, shapes))
    return rewritten(file.model)


def _by_tensor(file: "TfliteFile", shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Return *shapes* by the names of tensors, where they are named as in the first signature.

    Raises:
        InputShapeError: There is no such input.
    """
    graph = file.graphs[0]
    names = {_plain(graph.tensors[index]): _plain(graph.tensors[index]) for index in _list(graph.inputs)}
    for signature in file.signatures[:1]:
        for entry in signature.inputs or ():
            names[(entry.name or b"").decode("utf-8", "replace")] = _plain(graph.tensors[entry.tensorIndex])
    for name in shapes:
        if name not in names:
            raise InputShapeError(name, f"an input among {', '.join(sorted(names))}", "no such input")
    return {names[name]: shape for name, shape in shapes.items()}


def parse_tflite(content: bytes) -> "TfliteFile":
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
    return file


def type_name(code: int) -> str:
    """Return an element type's name, such as ``int8``; ``unknown`` for a code that the schema does not have."""
    name: str = _TYPES.get(code, "unknown")
    return name


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
        named = [index for op in graph.operators for index in (*_list(op.inputs), *_list(op.outputs))]
        # -1 stands for an input that is left out.
        _within(f"tensors of subgraph {place}", named, count, lowest=-1)
        _within(f"tensors of subgraph {place}", (*_list(graph.inputs), *_list(graph.outputs)), count)
        codes = [op.opcodeIndex for op in graph.operators]
        _within("operator codes", codes, len(model.operatorCodes or ()))
        _within("buffers", [tensor.buffer for tensor in graph.tensors], len(model.buffers))
        for tensor in graph.tensors:
            if any(size < -1 for size in (*_list(tensor.shape), *_list(tensor.shapeSignature))):
                raise DecodeError("tflite", "sizes of tensors", str(_list(tensor.shape)))
    for buffer in model.buffers:
        if _stands_outside(buffer) and buffer.offset + buffer.size > length:
            raise DecodeError("tflite", f"constants within its {length} bytes", f"some at {buffer.offset}")


def _within(what: str, named: Iterable[int], count: int, *, lowest: int = 0) -> None:
    if wrong := [index for index in named if not lowest <= index < count]:
        raise DecodeError("tflite", f"{count} {what}", f"number {wrong[0]} of them in use")


def _check_operators(file: "TfliteFile") -> None:
    """Refuse an operator whose inputs are too few, or have too few dimensions.

    Raises:
        DecodeError: There is one.
    """
    for graph in file.graphs:
        for op in graph.operators:
            name, inputs = file.operators[op.opcodeIndex], _list(op.inputs)
            for place, rank in _NEEDED.get(name, {}).items():
                if place >= len(inputs) or inputs[place] < 0 or len(_list(graph.tensors[inputs[place]].shape)) < rank:
                    raise DecodeError("tflite", f"{name} with {rank} dimensions in its input {place}", "others")
        for tensor in graph.tensors:
            kind, stored = _TYPES.get(tensor.type, ""), file.stored(tensor)
            if kind in _FLOATS and len(stored) % (_BITS[kind] // 8):
                raise DecodeError("tflite", f"constants of whole {kind} numbers", f"{len(stored)} bytes")


def _compare(graph: Any, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse *shapes* that differ from the sizes that the inputs fix; a batch of 1 fixes nothing.

    Raises:
        InputShapeError: They do.
    """
    for tensor in (graph.tensors[index] for index in _list(graph.inputs)):
        name, sizes = _plain(tensor), _sizes(tensor)
        given = shapes.get(name)
        signature = _list(tensor.shapeSignature) if len(_list(tensor.shapeSignature)) == len(sizes) else sizes
        if given is None:
            continue
        pairs = list(zip(signature, given, strict=False))
        if len(given) != len(sizes) or any(size > 0 and size != wanted for size, wanted in pairs):
            listed = ", ".join("open" if size < 1 else str(size) for size in signature)
            raise InputShapeError(name, f"the sizes {listed}", ", ".join(map(str, given)))


def _plain(tensor: Any) -> str:
    return tensor.name.decode("utf-8", "replace") if tensor.name else ""


def _open_inputs(graph: Any, *, batch: bool = False) -> list[str]:
    """Return the open sizes of the inputs, in words; with *batch* also those of a batch that is 1 unless told."""
    found = []
    for tensor in (graph.tensors[index] for index in _list(graph.inputs)):
        signature = _list(tensor.shapeSignature)
        sizes = signature if batch and len(signature) == len(_list(tensor.shape)) else _sizes(tensor)
        found += [f"the dimension {place} of the input {_plain(tensor)!r}" for place, s in enumerate(sizes) if s < 1]
    return found


class TfliteFile:
    """A parsed file with its operators' names and its constants at hand.

    Attributes:
        model: The whole of it, as flatc's object.
        graphs: Its subgraphs, as flatc's objects.
        signatures: Its signatures, as flatc's objects.
        operators: Name of each operator code.
        versions: Version of each operator code.
    """

    def __init__(self, model: Any, content: bytes) -> None:
        self.model = model
        self.graphs, self.signatures = model.subgraphs, model.signatureDefs or []
        self._content, self._buffers = content, model.buffers
        self.operators = [
            # Old files keep the code in the narrow field, new ones in the wide one; the larger is the right one.
            code.customCode.decode("utf-8", "replace")
            if code.customCode
            else _OPERATORS.get(max(code.builtinCode, code.deprecatedBuiltinCode), "UNKNOWN")
            for code in model.operatorCodes or ()
        ]
        self.versions = [max(1, int(code.version)) for code in model.operatorCodes or ()]

    def resolve(self, shapes: Mapping[int, tuple[int, ...]]) -> None:
        """Give tensors of the main graph the shapes that they have in a prediction."""
        for index, shape in shapes.items():
            tensor = self.graphs[0].tensors[index]
            tensor.shape, tensor.shapeSignature = list(shape), None

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


def _facts(file: TfliteFile) -> FileFacts:
    bytes_by_bits: Counter[int] = Counter()
    kinds: set[str] = set()
    quantized = floats = float_tensors = 0
    has_nan = dynamic = False
    versions: dict[str, int] = {}
    uses = set()
    for graph in file.graphs:
        used = {int(i) for op in graph.operators for i in (*_list(op.inputs), *_list(op.outputs)) if i >= 0}
        used |= {int(i) for i in (*_list(graph.inputs), *_list(graph.outputs))}
        for op in graph.operators:
            name, version = file.operators[op.opcodeIndex], file.versions[op.opcodeIndex]
            versions[name] = max(version, versions.get(name, 0))
            uses.add(tflite_use(name, _seen(graph, op.inputs), [each or ("", 0) for each in _seen(graph, op.outputs)]))
        # Converters leave tensors behind that no operator touches.
        for index in sorted(used):
            tensor = graph.tensors[index]
            kind = type_name(tensor.type)
            kinds |= {kind} - _HANDLES
            float_tensors += kind in _FLOATS
            dynamic |= any(size < 0 for size in _list(tensor.shapeSignature)[1:])
            content = file.stored(tensor)
            if not content:
                continue
            size = _size(tensor) or 0
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
        uses=frozenset(uses),
        weights_bytes=sum(bytes_by_bits.values()),
        weights_bytes_by_bits=dict(bytes_by_bits),
        parameters=_parameters(file, main),
        has_nan=has_nan,
        dynamic_shapes=dynamic,
        float_tensors=float_tensors,
        graph=tuple(_operator(file, main, op) for op in main.operators),
        tensor_bytes={
            _name(main, index): math.ceil(count * _BITS.get(_TYPES.get(tensor.type, ""), 0) / 8)
            for index, tensor in enumerate(main.tensors)
            if not file.stored(tensor) and (count := _size(tensor)) is not None
        },
        inputs=tuple(_name(main, index) for index in _list(main.inputs)),
        outputs=tuple(_name(main, index) for index in _list(main.outputs)),
        border_types=frozenset(
            type_name(main.tensors[index].type) for index in (*_list(main.inputs), *_list(main.outputs))
        ),
        asymmetric_tensors=sum(
            tensor.quantization is not None and any(_list(tensor.quantization.zeroPoint)) for tensor in main.tensors
        ),
        outside_constants=file.outside_constants,
        open_sizes=_open_sizes(file, main),
    )


def _seen(graph: Any, places: Any) -> list[Seen | None]:
    tensors = [graph.tensors[place] if place >= 0 else None for place in _list(places)]
    return [None if each is None else (type_name(each.type), len(_list(each.shape))) for each in tensors]


def _open_sizes(file: TfliteFile, graph: Any) -> tuple[str, ...]:
    """Return what keeps sizes from being known: open inputs, else operators at which they get lost."""
    found = _open_inputs(graph)
    if found:
        return tuple(found)
    lost = set[int]()
    for op in graph.operators:
        name = file.operators[op.opcodeIndex]
        unknown = {i for i in _list(op.outputs) if i >= 0 and _size(graph.tensors[i]) is None}
        if name in _CALLING:
            found.append(f"what the operator {name} runs inside")
        elif unknown and not lost & set(_list(op.inputs)):
            found.append(f"the output {_plain(graph.tensors[min(unknown)])!r} of the operator {name}")
        lost |= unknown
    return tuple(found[:_NAMED])


def _list(values: Any) -> list[int]:
    return [] if values is None else [int(value) for value in values]


def _sizes(tensor: Any) -> list[int]:
    """Return a tensor's sizes; one that is open is below 1.

    A batch that may be another one has the size that every runtime allocates unless it is told otherwise. The size that
    stands for another open dimension means nothing.
    """
    shape, signature = _list(tensor.shape), _list(tensor.shapeSignature)
    if len(signature) != len(shape):
        return shape
    return [-1 if signed < 0 and at else size for at, (size, signed) in enumerate(zip(shape, signature, strict=True))]


def _size(tensor: Any) -> int | None:
    """Return how many numbers a tensor holds, or None where a size is open."""
    sizes = _sizes(tensor)
    return math.prod(sizes) if min(sizes, default=1) > 0 else None


def _name(graph: Any, index: int) -> str:
    # Names need not differ; the position does.
    tensor = graph.tensors[index]
    return f"{index}:{_plain(tensor)}"


def _floats(content: bytes, kind: str) -> NDArray[Any]:
    if kind == "bfloat16":
        return (np.frombuffer(content, np.uint16).astype(np.uint32) << 16).view(np.float32)
    return np.frombuffer(content, np.dtype(kind))


def _operator(file: TfliteFile, graph: Any, op: Any) -> OperatorFacts:
    name = file.operators[op.opcodeIndex]
    return OperatorFacts(
        name=name,
        version=file.versions[op.opcodeIndex],
        inputs=tuple(_name(graph, i) for i in _list(op.inputs) if i >= 0 and not file.stored(graph.tensors[i])),
        outputs=tuple(_name(graph, i) for i in _list(op.outputs) if i >= 0),
        macs=_macs(name, [graph.tensors[i] if i >= 0 else None for i in _list(op.inputs)], graph, op),
    )


def _macs(name: str, inputs: Sequence[Any], graph: Any, op: Any) -> int | None:
    """Return the multiply-accumulates of one call, or None where a size that they depend on is open."""
    if name not in _PARAMETERS:
        return 0
    outputs = _list(op.outputs)
    out = _size(graph.tensors[outputs[0]]) if outputs and outputs[0] >= 0 else 0
    if out is None or any(tensor is not None and _size(tensor) is None for tensor in inputs):
        return None
    if name == "TRANSPOSE_CONV":
        # (output channels, height, width, input channels), and every input value meets all of it but the last.
        return math.prod(_sizes(inputs[2])) * math.prod(_sizes(inputs[1])[:-1])
    if name == "BATCH_MATMUL":
        inner = _sizes(inputs[0])[-2 if getattr(op.builtinOptions, "adjX", False) else -1]
        return out * inner
    if name in {"UNIDIRECTIONAL_SEQUENCE_LSTM", "UNIDIRECTIONAL_SEQUENCE_RNN"}:
        # Recurrent cells use every weight matrix once a step and sample.
        steps = math.prod(_sizes(inputs[0])[:-1])
        matrices = [_sizes(tensor) for tensor in inputs[1:18] if tensor is not None]
        return steps * sum(math.prod(sizes) for sizes in matrices if len(sizes) == 2)
    weights = _sizes(inputs[1])
    if name == "DEPTHWISE_CONV_2D":
        return out * weights[1] * weights[2]
    if name == "CONV_3D":
        return out * math.prod(weights[:-1])
    if name == "SVDF":
        return math.prod(weights) + math.prod(_sizes(inputs[2]))
    return out * math.prod(weights[1:])


def _parameters(file: TfliteFile, graph: Any) -> int:
    found = {
        op_inputs[place]
        for op in graph.operators
        for op_inputs in [_list(op.inputs)]
        for place in _PARAMETERS.get(file.operators[op.opcodeIndex], ())
        if place < len(op_inputs) and op_inputs[place] >= 0
    }
    return sum(_size(graph.tensors[index]) or 0 for index in found if file.stored(graph.tensors[index]))
