"""A TFLite file's flatbuffer, with its operators' names and its constants at hand."""

from collections.abc import Mapping
from typing import Any

from ai_edge_litert import schema_py_generated as schema

__all__ = ["BITS", "FLOATS", "OPERATORS", "TfliteFile", "listed", "plain_name", "stands_outside", "type_name"]

_OPERATORS = {code: name for name, code in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
OPERATORS = frozenset(_OPERATORS.values())  # TFLite's own
_TYPES = {code: name.lower() for name, code in vars(schema.TensorType).items() if not name.startswith("_")}
BITS = {
    "int2": 2, "uint4": 4, "int4": 4, "int8": 8, "uint8": 8, "bool": 8, "float16": 16, "bfloat16": 16, "int16": 16,
    "uint16": 16, "float32": 32, "int32": 32, "uint32": 32, "float64": 64, "int64": 64, "uint64": 64,
}  # fmt: skip
FLOATS = frozenset({"float16", "float32", "float64", "bfloat16"})


def type_name(code: int) -> str:
    """Return an element type's name, such as ``int8``; ``unknown`` for a code that the schema does not have."""
    name: str = _TYPES.get(code, "unknown")
    return name


def listed(values: Any) -> list[int]:
    """Return the numbers of a vector of the flatbuffer, which may be left out."""
    return [] if values is None else [int(value) for value in values]


def plain_name(tensor: Any) -> str:
    """Return the name of a tensor; empty where it has none."""
    return tensor.name.decode("utf-8", "replace") if tensor.name else ""


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
        if stands_outside(buffer):
            return self._content[buffer.offset : buffer.offset + buffer.size]
        return b""

    @property
    def outside_constants(self) -> int:
        """How many constants stand behind the flatbuffer."""
        return sum(stands_outside(buffer) for buffer in self._buffers)


def stands_outside(buffer: Any) -> bool:
    """Whether a buffer is behind the flatbuffer: ai-edge-quantizer writes so from 256 KiB on, others from 2 GB on."""
    # 1 stands for a place that is not known yet.
    return bool(buffer.offset > 1 and buffer.size > 0)
