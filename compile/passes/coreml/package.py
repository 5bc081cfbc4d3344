"""Core ML packages as passes take and give them: bytes, and coremltools' model."""

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import coremltools as ct
from coremltools.proto import MIL_pb2, Model_pb2

from hedgerow.compile.mlpackage import pack, unpack
from hedgerow.compile.pass_models import CompiledModel

__all__ = ["compressed", "packed"]


def compressed(stage: CompiledModel, method: Callable[[Any, Any], Any], rules: Any) -> CompiledModel:
    """Return *stage* with its weights compressed by one of coremltools' methods, under *rules*.

    Constants in float32 are no weights of the model, which is in float16: they prepare samples, and stay as they are.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.mlpackage"
        unpack(stage.content, path)
        model = ct.models.MLModel(str(path), skip_model_load=True)
        for name in _float32_constants(model.get_spec().mlProgram):
            rules.set_op_name(name, None)
        return replace(stage, content=packed(method(model, rules)))


def _float32_constants(program: Any) -> Iterator[str]:
    """Yield the names of a program's constants in float32.

    coremltools' own list of weights cannot be made where an operator takes several tensors as one input (``concat``).
    """
    blocks = [block for function in program.functions.values() for block in function.block_specializations.values()]
    while blocks:
        for operation in blocks.pop().operations:
            blocks.extend(operation.blocks)
            for output in operation.outputs if operation.type == "const" else ():
                if output.type.tensorType.dataType == MIL_pb2.FLOAT32:
                    yield output.name


def packed(model: Any) -> bytes:
    """Return a coremltools model as a zip that depends on its content alone.

    The day of the conversion and the order of protobuf's maps, which is random in every process, are taken out.
    """
    model.user_defined_metadata.pop("com.github.apple.coremltools.conversion_date", None)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.mlpackage"
        model.save(str(path))
        for file in path.rglob("*.mlmodel"):
            specification = Model_pb2.Model.FromString(file.read_bytes())
            file.write_bytes(specification.SerializeToString(deterministic=True))
        return pack(path)
