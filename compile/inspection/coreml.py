"""Read a Core ML package back with coremltools: its operators and how its weights are stored."""

import math
import tempfile
import warnings
from pathlib import Path
from typing import Any

import coremltools as ct
from coremltools.proto import MIL_pb2

from hedgerow.compile.inspection.facts import FileFacts
from hedgerow.compile.mlpackage import unpack

__all__ = ["read_coreml", "specification_version"]

_FLOATS = {"float16", "float32", "float64"}
_BYTES = {"int8", "uint8", "int4", "uint4"}


def _load(content: bytes) -> Any:
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder) / "model.mlpackage"
        unpack(content, path)
        return ct.models.MLModel(str(path), skip_model_load=True).get_spec()


def specification_version(content: bytes) -> int:
    """Return the version of the Core ML specification that the package needs (8: iOS 17)."""
    return int(_load(content).specificationVersion)


def read_coreml(content: bytes) -> FileFacts:
    """Return the facts of a Core ML package."""
    operators, kinds, quantized, floats = set(), set(), 0, 0
    for function in _load(content).mlProgram.functions.values():
        for block in function.block_specializations.values():
            for operation in block.operations:
                operators.add(operation.type)
                outputs = [_tensor(value.type) for value in operation.outputs]
                kinds |= {kind for kind, _size in outputs}
                if operation.type == "const":
                    floats += sum(size for kind, size in outputs if kind in _FLOATS and size > 1)
                elif operation.type.startswith("constexpr"):
                    stored = [_stored(value) for value in (*operation.attributes.values(), *_arguments(operation))]
                    kinds |= {kind for kind, _size in stored if kind}
                    # The largest constant of the operator holds the weight; scales and zero points are smaller.
                    kind, size = max(stored, key=lambda entry: entry[1], default=("", 0))
                    quantized += size if kind in _BYTES else 0
    return FileFacts(
        operators=frozenset(operators),
        number_types=frozenset(kinds - {"string", "unused_type"}),
        quantized_weights=quantized,
        float_weights=floats,
    )


def _arguments(operation: Any) -> list[Any]:
    return [
        binding.value
        for argument in operation.inputs.values()
        for binding in argument.arguments
        if binding.HasField("value")
    ]


def _tensor(kind: Any) -> tuple[str, int]:
    tensor = kind.tensorType
    name = MIL_pb2.DataType.Name(tensor.dataType).lower()
    size = math.prod(int(axis.constant.size) for axis in tensor.dimensions)
    return {"float": "float32"}.get(name, name), size


def _stored(value: Any) -> tuple[str, int]:
    return _tensor(value.type) if value.type.HasField("tensorType") else ("", 0)
