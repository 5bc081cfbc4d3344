"""Read a package back through coremltools' own loader and run its main function."""

import tempfile
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from coremltools.converters.mil.frontend.milproto.load import load
from coremltools.converters.mil.mil import types
from coremltools.proto import Model_pb2
from numpy.typing import NDArray

from hedgerow.blame import is_raised_by_hedgerow
from hedgerow.compile.coreml_evaluation.arithmetic import ARITHMETIC
from hedgerow.compile.coreml_evaluation.layers import LAYERS
from hedgerow.compile.coreml_evaluation.operation import NotEvaluatedError, Operation, Operator
from hedgerow.compile.coreml_evaluation.recurrent import RECURRENT
from hedgerow.compile.coreml_evaluation.resizing import RESIZING
from hedgerow.compile.coreml_evaluation.shapes import SHAPES
from hedgerow.compile.mlpackage import specification, unpack
from hedgerow.compile.pass_models import CompiledModel
from hedgerow.errors import DecodeError
from hedgerow.tensor_border import to_stored

__all__ = ["UnknownOperator", "predict_coreml", "predict_coreml_steps"]

_OPERATORS: Mapping[str, Operator] = {**ARITHMETIC, **LAYERS, **RECURRENT, **RESIZING, **SHAPES}
_CHUNK = 64


@dataclass(frozen=True, slots=True)
class UnknownOperator:
    """What keeps a program from being evaluated.

    Attributes:
        names: Operators that are not known, sorted; empty when something else is in the way.
        reason: One clause for people.
    """

    names: tuple[str, ...]
    reason: str


def predict_coreml(
    content: bytes, inputs: Mapping[str, NDArray[Any]]
) -> dict[str, NDArray[np.float32]] | UnknownOperator:
    """Evaluate a package for a batch.

    Args:
        content: The package, as :func:`hedgerow.compile.mlpackage.pack` makes it; its program takes one sample.
        inputs: Name in the package -> ``(n, *shape)``.

    Returns:
        Name in the package -> ``float32[n, ...]``, of each output; or what is not known: then nothing was evaluated.

    Raises:
        DecodeError: The bytes are no package of an mlprogram.
        ValueError: The inputs are others than the program's.
    """
    program = _opened(content)
    if isinstance(program, UnknownOperator):
        return program
    function = program.function
    if any(value.shape[:1] != (1,) for value in function.inputs.values()):
        return UnknownOperator((), "the program takes other than one sample")
    names = list(function.inputs)
    if sorted(names) != sorted(inputs):
        raise ValueError(f"expected the inputs {sorted(names)}, found {sorted(inputs)}")
    # The program takes one sample, with its batch dimension of 1; vmap runs it for all at once.
    samples = [_plain(inputs[name]).unsqueeze(1) for name in names]
    try:
        found = program.run(samples)
    except NotEvaluatedError as exc:
        return UnknownOperator((exc.kind,), str(exc))
    return {
        output.name: value.flatten(0, 1).to(torch.float32).numpy()
        for output, value in zip(function.outputs, found, strict=True)
    }


def predict_coreml_steps(
    stage: CompiledModel, inputs: Mapping[str, NDArray[Any]], steps: int
) -> Mapping[str, NDArray[np.float32]] | UnknownOperator:
    """Evaluate a package with state, which is carried through sequences; all sequences go on step by step together.

    Args:
        stage: The package.
        inputs: Schema name -> ``(n, *shape)``; of state the first step of each sequence is taken.
        steps: How many rows after one another are a sequence.

    Returns:
        All outputs by their schema names, ``float32[n, ...]``; or what is not known.

    Raises:
        DecodeError: The bytes are no package of an mlprogram.
    """
    program = _opened(stage.content)
    if isinstance(program, UnknownOperator):
        return program
    schema_names = {tensor.tensor: tensor.name for tensor in stage.inputs}
    names = [schema_names[name] for name in program.function.inputs]
    shapes = {schema_names[name]: tuple(value.shape) for name, value in program.function.inputs.items()}
    given = {tensor.tensor: tensor.name for tensor in stage.outputs}
    outputs = [given[output.name] for output in program.function.outputs]
    values = {t.name: _plain(to_stored(inputs[t.name], t)).reshape(-1, steps, *shapes[t.name]) for t in stage.inputs}
    state = {into: values[into][:, 0] for into in stage.state}
    rows: dict[str, list[torch.Tensor]] = {name: [] for name in outputs}
    try:
        for place in range(steps):
            found = program.run([state[name] if name in state else values[name][:, place] for name in names])
            for name, value in zip(outputs, found, strict=True):
                rows[name].append(value.to(torch.float32))
            state = {into: rows[out][-1] for into, out in stage.state.items()}
    except NotEvaluatedError as exc:
        return UnknownOperator((exc.kind,), str(exc))
    whole = {*stage.state.values()}
    # The batch in front of what is no state is 1.
    joined = {name: torch.stack(parts, dim=1).flatten(0, 1) for name, parts in rows.items()}
    return {name: (value if name in whole else value.flatten(0, 1)).numpy() for name, value in joined.items()}


@dataclass(frozen=True, slots=True)
class _Program:
    """A package that was read.

    Attributes:
        function: Its main function, as coremltools has it.
        constants: Every constant by name.
    """

    function: Any
    constants: Mapping[str, Any]

    def run(self, samples: list[torch.Tensor]) -> list[torch.Tensor]:
        """Return all outputs for ``(n, *input)`` of each input of the program, in its order."""
        return _run(self.function, self.constants, samples)


def _opened(content: bytes) -> _Program | UnknownOperator:
    """Read a package.

    Raises:
        DecodeError: The bytes are no package of an mlprogram.
    """
    with tempfile.TemporaryDirectory() as folder:
        unpack(content, Path(folder))
        path = specification(Path(folder))
        model = Model_pb2.Model.FromString(path.read_bytes())
        if model.WhichOneof("Type") != "mlProgram":
            raise DecodeError("mlpackage", "an mlprogram", str(model.WhichOneof("Type")))
        if unknown := _unknown(model.mlProgram):
            return UnknownOperator(unknown, f"the reference evaluation does not know {', '.join(unknown)}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                program = load(model, model.specificationVersion, str(path.parent / "weights"))
                constants = _constants(program.functions["main"])
            # coremltools' loader raises whatever its types and builders raise for what it cannot hold.
            except Exception as exc:
                if is_raised_by_hedgerow(exc):
                    raise
                return UnknownOperator((), f"coremltools cannot read the program back: {type(exc).__name__}: {exc}")
    function = program.functions["main"]
    if any(types.is_tensor(v.sym_type) and not _is_static(v) for op in function.operations for v in op.outputs):
        return UnknownOperator((), "the program has flexible shapes")
    return _Program(function, constants)


def _unknown(program: Any) -> tuple[str, ...]:
    known = {*_OPERATORS, "const"}
    found: set[str] = set()
    for function in program.functions.values():
        block = function.block_specializations[function.opset]
        found |= {op.type for op in block.operations if op.type not in known and not op.type.startswith("constexpr_")}
    return tuple(sorted(found))


def _is_static(variable: Any) -> bool:
    return all(isinstance(size, int | np.integer) for size in variable.shape)


def _constants(function: Any) -> dict[str, Any]:
    """Return every constant by name; compressed weights are restored by coremltools' own definition of their form."""
    found: dict[str, Any] = {}
    for operation in function.operations:
        if operation.op_type == "const":
            found[operation.outputs[0].name] = _plain(operation.outputs[0].val)
        elif operation.op_type.startswith("constexpr_"):
            found[operation.outputs[0].name] = _plain(operation.materialized_val_inference())
    return found


def _plain(value: Any) -> Any:
    """Return a constant as a torch tensor (floats as float32) or, when it is a text, as it is."""
    if isinstance(value, str):
        return value
    array = np.asarray(value)
    if array.dtype.kind == "f":
        return torch.from_numpy(np.array(array, dtype=np.float32))
    kind = np.bool_ if array.dtype.kind == "b" else np.int64
    return torch.from_numpy(np.array(array, dtype=kind))


def _run(function: Any, constants: Mapping[str, Any], samples: list[torch.Tensor]) -> list[torch.Tensor]:
    names = list(function.inputs)
    calls = [
        Operation(
            kind=operation.op_type,
            arguments={name: _names(variable) for name, variable in operation.inputs.items() if variable is not None},
            outputs=tuple(output.name for output in operation.outputs),
            shape=tuple(int(size) for size in operation.outputs[0].shape),
            constants=constants,
        )
        for operation in function.operations
        if operation.outputs[0].name not in constants
    ]
    rounded = {
        output.name: _rounding(output.dtype) for operation in function.operations for output in operation.outputs
    }
    outputs = [output.name for output in function.outputs]

    def evaluate(*sample: torch.Tensor) -> tuple[torch.Tensor, ...]:
        values: dict[str, Any] = {**constants, **dict(zip(names, sample, strict=True))}
        for call in calls:
            results = _OPERATORS[call.kind](call, values)
            for name, value in zip(call.outputs, results if isinstance(results, tuple) else (results,), strict=True):
                values[name] = rounded[name](value)
        return tuple(values[name] for name in outputs)

    with torch.no_grad():
        return list(torch.func.vmap(evaluate, chunk_size=_CHUNK)(*samples))


def _names(variable: Any) -> str | tuple[str, ...]:
    return tuple(item.name for item in variable) if isinstance(variable, list | tuple) else str(variable.name)


def _rounding(kind: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return what makes a result of a type: all numbers are kept in 32 bits (integers: 64), whatever their type."""
    if kind == types.fp16:
        return lambda value: value.to(torch.float16).to(torch.float32)
    if kind == types.bool:
        return lambda value: value.to(torch.bool)
    if types.is_int(kind):
        return lambda value: value.to(torch.int64)
    return lambda value: value.to(torch.float32)
