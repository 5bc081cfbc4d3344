"""Read a Core ML package back from its protobuf and weight files: its operators and how its weights are stored.

What the package says is checked before it is used, so that whatever is raised afterwards is a bug of ours.
"""

import math
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from coremltools.libmilstoragepython import _BlobStorageReader
from coremltools.proto import MIL_pb2, Model_pb2
from google.protobuf.message import DecodeError as ProtobufError  # type: ignore[import-untyped]

from hedgerow.compile.inspection.facts import NO_SHAPES, FileFacts, OperatorFacts, any_broken
from hedgerow.compile.mlpackage import specification, unpack
from hedgerow.errors import DecodeError

__all__ = ["float32_weights", "read_coreml", "specification_version"]

_FLOATS = {"float16", "float32", "float64", "bfloat16"}
_BITS = {
    "uint1": 1, "uint2": 2, "uint3": 3, "uint4": 4, "int4": 4, "uint6": 6, "int8": 8, "uint8": 8, "bool": 8,
    "float16": 16, "bfloat16": 16, "int16": 16, "uint16": 16, "float32": 32, "int32": 32, "uint32": 32,
    "float64": 64, "int64": 64, "uint64": 64,
}  # fmt: skip
_INTEGERS = {kind for kind, bits in _BITS.items() if bits <= 8 and kind != "bool"}
# Operator -> the arguments that hold weights and biases.
_PARAMETERS: Mapping[str, tuple[str, ...]] = {
    "conv": ("weight", "bias"),
    "conv_transpose": ("weight", "bias"),
    "linear": ("weight", "bias"),
    "matmul": ("x", "y"),
    "lstm": ("weight_ih", "weight_hh", "bias", "weight_ih_back", "weight_hh_back", "bias_back"),
    "gru": ("weight_ih", "weight_hh", "bias", "input_bias"),
    "rnn": ("weight_ih", "weight_hh", "bias"),
}
# Operator -> the arguments that say how much it computes; what stands here must be there.
_RANKED: Mapping[str, tuple[str, ...]] = {
    "conv": ("weight",),
    "linear": ("weight",),
    "conv_transpose": ("x", "weight"),
    "matmul": ("x",),
    "lstm": ("x",),
    "gru": ("x",),
    "rnn": ("x",),
}
_NAMED = 4
# Core ML counts its operator sets from iOS 11 on: CoreML5 is iOS 15.
_OPSET_TO_IOS = 10


def specification_version(content: bytes) -> int:
    """Return the version of the Core ML specification that the package needs (8: iOS 17)."""
    with tempfile.TemporaryDirectory() as folder:
        unpack(content, Path(folder))
        return int(_specification(Path(folder)).specificationVersion)


def _specification(folder: Path) -> Any:
    try:
        return Model_pb2.Model.FromString(specification(folder).read_bytes())
    except ProtobufError as exc:
        raise DecodeError("mlpackage", "a protobuf of a Core ML model", str(exc)) from exc


def read_coreml(content: bytes, shapes: Mapping[str, tuple[int, ...]] = NO_SHAPES) -> FileFacts:
    """Return the facts of a Core ML package, of all its functions; the graph of ``main``.

    Args:
        content: The package as a zip.
        shapes: Input -> its shape for one prediction; not used, because nothing here derives other sizes from them.

    Raises:
        DecodeError: The bytes are no package of an mlprogram, or it contradicts itself.
    """
    del shapes
    with tempfile.TemporaryDirectory() as folder:
        unpack(content, Path(folder))
        functions, blocks = _program(Path(folder))
        return _facts(functions, blocks, specification(Path(folder)).parent / "weights")


def float32_weights(content: bytes) -> int:
    """Return how many of the numbers that :func:`read_coreml` counts as float weights are in float32.

    Raises:
        DecodeError: As :func:`read_coreml`.
    """
    with tempfile.TemporaryDirectory() as folder:
        unpack(content, Path(folder))
        _functions, blocks = _program(Path(folder))
        weights = _weights([operation for block in blocks.values() for operation in _operations(block)])
        return sum(math.prod(weight.shape) for weight in weights if _is_float32(weight))


def _program(folder: Path) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Return the functions of an unpacked package's program, and their blocks.

    Raises:
        DecodeError: There are none, or an operation cannot be what it says.
    """
    model = _specification(folder)
    if model.WhichOneof("Type") != "mlProgram" or not model.mlProgram.functions:
        raise DecodeError("mlpackage", "an mlprogram", str(model.WhichOneof("Type")))
    functions = model.mlProgram.functions
    blocks = {name: function.block_specializations[function.opset] for name, function in functions.items()}
    _check(blocks)
    return functions, blocks


def _check(blocks: Mapping[str, Any]) -> None:
    """Refuse operations that cannot be what they say.

    Raises:
        DecodeError: There is one.
    """
    for operation in (operation for block in blocks.values() for operation in _operations(block)):
        if _is_constant(operation) and not operation.outputs:
            raise DecodeError("mlpackage", f"{operation.type} with an output", "none")
        for argument in _RANKED.get(operation.type, ()):
            if argument not in operation.inputs or not operation.outputs:
                raise DecodeError("mlpackage", f"{operation.type} with the argument {argument} and an output", "none")


@dataclass(frozen=True, slots=True)
class _Constant:
    """A constant tensor: its type as the graph sees it, and what is stored of it as (type, numbers, value)."""

    kind: str
    shape: tuple[int, ...]
    stored: tuple[tuple[str, int, Any], ...]

    def bits(self) -> int:
        """Return the width in which one number of the dense tensor is stored."""
        kind, size, _value = max(self.stored, key=lambda entry: entry[1], default=(self.kind, 0, None))
        # A palette or a mask packs several numbers into one byte.
        return max(1, round(size * _BITS.get(kind, 0) / max(1, math.prod(self.shape))))

    def is_quantized(self) -> bool:
        """Say whether the weight itself is stored in integers."""
        kind, _size, _value = max(self.stored, key=lambda entry: entry[1], default=("", 0, None))
        return kind in _INTEGERS


def _weights(operations: Sequence[Any]) -> list[_Constant]:
    """Return the constants that are weights."""
    constants = _constants(operations)
    # Constants that only other constants are made of are described by those.
    inner = {name for op in operations if op.type.startswith("constexpr") for name in _arguments(op)}
    return [
        constant
        for name, constant in constants.items()
        if math.prod(constant.shape) > 1 and name not in inner and constant.kind in _FLOATS | _INTEGERS
    ]


def _is_float32(weight: _Constant) -> bool:
    return weight.kind == "float32" and not weight.is_quantized()


def _facts(functions: Mapping[str, Any], blocks: Mapping[str, Any], weights: Path) -> FileFacts:
    operations = [operation for block in blocks.values() for operation in _operations(block)]
    constants = _constants(operations)
    kinds: Counter[str] = Counter()
    for operation in operations:
        kinds.update(_tensor(value.type)[0] for value in operation.outputs)
    for function in functions.values():
        kinds.update(_tensor(value.type)[0] for value in function.inputs)
    stored = {kind for constant in constants.values() for kind, _size, _value in constant.stored}
    bytes_by_bits: Counter[int] = Counter()
    quantized = floats = 0
    for constant in _weights(operations):
        size = math.prod(constant.shape)
        quantized += size if constant.is_quantized() else 0
        floats += 0 if constant.is_quantized() else size
        for kind, count, _value in constant.stored:
            bytes_by_bits[constant.bits() if kind in _INTEGERS else _BITS[kind]] += math.ceil(count * _BITS[kind] / 8)
    main = functions["main"] if "main" in functions else next(iter(functions.values()))
    graph = list(_main_block(blocks).operations)
    version = max(int("".join(filter(str.isdigit, f.opset)) or 0) for f in functions.values()) + _OPSET_TO_IOS
    activations = {
        value.name: _tensor(value.type)
        for value in (*main.inputs, *(v for op in graph for v in op.outputs if v.name not in constants))
    }
    values = [value for constant in constants.values() for _kind, _size, value in constant.stored]
    return FileFacts(
        operators=frozenset(operation.type for operation in operations),
        number_types=frozenset((set(kinds) | stored) - {"string", "unused_type", ""}),
        quantized_weights=quantized,
        float_weights=floats,
        operator_versions={operation.type: version for operation in operations},
        weights_bytes=sum(bytes_by_bits.values()),
        weights_bytes_by_bits=dict(bytes_by_bits),
        parameters=_parameters(operations, constants),
        has_nan=_any_nan(values, weights),
        dynamic_shapes=any(_is_dynamic(value.type) for function in functions.values() for value in function.inputs),
        border_types=frozenset(
            activations[name][0]
            for name in (*(value.name for value in main.inputs), *_main_block(blocks).outputs)
            if name in activations
        ),
        float_tensors=sum(count for kind, count in kinds.items() if kind in _FLOATS),
        graph=tuple(_operator(op, version, activations, constants) for op in graph if not _is_constant(op)),
        tensor_bytes={
            name: math.ceil(math.prod(shape) * _BITS.get(kind, 0) / 8)
            for name, (kind, shape) in activations.items()
            if _is_known(shape)
        },
        inputs=tuple(value.name for value in main.inputs),
        outputs=tuple(_main_block(blocks).outputs),
        open_sizes=_open_sizes(main, graph, activations),
    )


def _is_known(shape: tuple[int, ...]) -> bool:
    return min(shape, default=1) > 0


def _open_sizes(main: Any, graph: Iterable[Any], activations: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what keeps sizes from being known: open inputs, else operators at which they get lost."""
    found = [
        f"the dimension {place} of the input {value.name!r}"
        for value in main.inputs
        for place, size in enumerate(_tensor(value.type)[1])
        if size < 1
    ]
    if found:
        return tuple(found)
    lost = set[str]()
    for operation in graph:
        unknown = {v.name for v in operation.outputs if v.name in activations and not _is_known(activations[v.name][1])}
        if operation.blocks:
            found.append(f"what the operator {operation.type} runs inside")
        elif unknown and not lost & set(_arguments(operation)):
            found.append(f"the output {min(unknown)!r} of the operator {operation.type}")
        lost |= unknown
    return tuple(found[:_NAMED])


def _main_block(blocks: Mapping[str, Any]) -> Any:
    return blocks["main"] if "main" in blocks else next(iter(blocks.values()))


def _operations(block: Any) -> Iterator[Any]:
    for operation in block.operations:
        yield operation
        for inner in operation.blocks:
            yield from _operations(inner)


def _is_constant(operation: Any) -> bool:
    return bool(operation.type == "const" or operation.type.startswith("constexpr"))


def _constants(operations: Iterable[Any]) -> dict[str, _Constant]:
    found: dict[str, _Constant] = {}
    for operation in operations:
        if not _is_constant(operation):
            continue
        kind, shape = _tensor(operation.outputs[0].type)
        # The shape of a palette's or a mask's tensor is a constant, but none that is computed with.
        stored = [*(value for key, value in operation.attributes.items() if key != "shape"), *_values(operation)]
        own = [(*_sized(value), value) for value in stored if value.type.HasField("tensorType")]
        own = [entry for entry in own if entry[0] in _BITS]
        made_of = [found[name].stored for name in _arguments(operation) if name in found]
        found[operation.outputs[0].name] = _Constant(kind, shape, (*own, *(e for part in made_of for e in part)))
    return found


def _sized(value: Any) -> tuple[str, int]:
    kind, shape = _tensor(value.type)
    return kind, math.prod(shape)


def _arguments(operation: Any) -> list[str]:
    """Return the names of the tensors that an operator reads, in the order of its arguments' names."""
    return [
        binding.name
        for _name, argument in sorted(operation.inputs.items())
        for binding in argument.arguments
        if binding.HasField("name")
    ]


def _values(operation: Any) -> list[Any]:
    return [
        binding.value
        for argument in operation.inputs.values()
        for binding in argument.arguments
        if binding.HasField("value")
    ]


def _tensor(kind: Any) -> tuple[str, tuple[int, ...]]:
    if not kind.HasField("tensorType"):
        return "", ()
    code = kind.tensorType.dataType
    name = MIL_pb2.DataType.Name(code).lower() if code in MIL_pb2.DataType.values() else "unknown"
    # A size that is unknown stands as 0.
    shape = tuple(int(axis.constant.size) for axis in kind.tensorType.dimensions)
    return {"float": "float32"}.get(name, name), shape


def _is_dynamic(kind: Any) -> bool:
    return any(axis.HasField("unknown") for axis in list(kind.tensorType.dimensions)[1:])


def _operator(
    operation: Any, version: int, activations: Mapping[str, Any], constants: Mapping[str, _Constant]
) -> OperatorFacts:
    def shape(argument: str) -> tuple[int, ...]:
        bindings = operation.inputs[argument].arguments if argument in operation.inputs else ()
        names = [binding.name for binding in bindings]
        known = [constants[name].shape if name in constants else activations.get(name, ("", (0,)))[1] for name in names]
        return tuple(known[0]) if known else ()

    return OperatorFacts(
        name=operation.type,
        version=version,
        inputs=tuple(name for name in _arguments(operation) if name in activations),
        outputs=tuple(value.name for value in operation.outputs),
        macs=_macs(operation, shape, _tensor(operation.outputs[0].type)[1]) if operation.outputs else 0,
    )


def _macs(operation: Any, shape: Callable[[str], tuple[int, ...]], output: tuple[int, ...]) -> int | None:
    """Return the multiply-accumulates of one call, or None where a size that they depend on is open."""
    kind = operation.type
    if kind not in _RANKED:
        return 0
    named = [shape(argument) for argument in _RANKED[kind]]
    if not all(map(_is_known, (*named, output))):
        return None
    if kind in {"conv", "linear"}:
        return math.prod(output) * math.prod(named[0][1:])
    if kind == "conv_transpose":
        return math.prod(named[0]) * math.prod(named[1][1:])
    if kind == "matmul":
        # The inner size is what the output lacks: x holds (batch..., rows, inner), in either order.
        rows = output[-2] if len(output) > 1 else 1
        return math.prod(output) * (math.prod(named[0][-2:]) // rows)
    matrices = ("weight_ih", "weight_hh", "weight_ih_back", "weight_hh_back")
    return math.prod(named[0][:2]) * sum(math.prod(shape(name)) for name in matrices if name in operation.inputs)


def _parameters(operations: Iterable[Any], constants: Mapping[str, _Constant]) -> int:
    found = {
        binding.name
        for operation in operations
        for argument in _PARAMETERS.get(operation.type, ())
        if argument in operation.inputs
        for binding in operation.inputs[argument].arguments
    }
    return sum(math.prod(constants[name].shape) for name in found if name in constants)


def _any_nan(values: Iterable[Any], weights: Path) -> bool:
    readers: dict[str, Any] = {}
    for value in values:
        kind, _shape = _tensor(value.type)
        if kind not in {"float16", "float32"}:
            continue
        try:
            numbers = _numbers(value, kind, weights, readers)
        # What Core ML's reader raises for a place that the weight file does not have, and numpy for half a number.
        except (RuntimeError, ValueError) as exc:
            raise DecodeError("mlpackage", "weights in the package's weight file", str(exc)[:200]) from exc
        if any_broken(np.asarray(numbers, dtype=np.float32)):
            return True
    return False


def _numbers(value: Any, kind: str, weights: Path, readers: dict[str, Any]) -> Any:
    if not value.HasField("blobFileValue"):
        tensor = value.immediateValue.tensor
        return np.frombuffer(tensor.bytes.values, np.float16) if kind == "float16" else tensor.floats.values
    name = value.blobFileValue.fileName.rsplit("/", 1)[-1]
    if name not in readers:
        readers[name] = _BlobStorageReader(str(weights / name))
    read = readers[name].read_fp16_data if kind == "float16" else readers[name].read_float_data
    numbers = np.asarray(read(value.blobFileValue.offset))
    return numbers.view(np.float16) if kind == "float16" else numbers
