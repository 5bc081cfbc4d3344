"""Where a TFLite file's time goes: each operator alone, in the runtime that runs the file.

LiteRT's Python package reports no times of its own. So each operator is cut out into a file of its own, and opened as
the whole file is: XNNPACK takes what it takes there. Operators that are alike (kind, shapes, constants) are measured
once, in the calling thread's own time. What the sum leaves of the whole step is what operators cost each other.
"""

import copy
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from hedgerow.compile.passes.tflite.trimming import rewritten

__all__ = ["OperatorTime", "by_operator", "operator_times", "partitions"]

_NAMES = {value: name for name, value in vars(schema.BuiltinOperator).items() if not name.startswith("_")}


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorTime:
    """Operators of a file that are alike, measured alone.

    Attributes:
        operator: The format's name, ``CONV_2D``.
        shapes: Of the inputs that are computed, and of the first output.
        by: ``XNNPACK`` or ``LiteRT``, whose kernel ran it.
        count: How many the file has.
        each_ms: Median time of one.
    """

    operator: str
    shapes: str
    by: str
    count: int
    each_ms: float

    @property
    def total_ms(self) -> float:
        """Time of all of them in one run of the file."""
        return self.count * self.each_ms


def partitions(content: bytes) -> int:
    """Return how many parts of a file XNNPACK takes."""
    interpreter = Interpreter(model_content=content, num_threads=1)
    interpreter.allocate_tensors()
    return sum(detail["op_name"] == "DELEGATE" for detail in interpreter._get_ops_details())  # noqa: SLF001


def operator_times(content: bytes, budget_s: float = 0.05) -> list[OperatorTime]:
    """Measure every operator of a file's first graph alone, the most costly kind first.

    Args:
        content: The file.
        budget_s: How long each is run over and over.
    """
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    found: dict[tuple[Any, ...], list[Any]] = {}
    for operator in model.subgraphs[0].operators:
        found.setdefault(_likeness(model, operator), []).append(operator)
    times = []
    for (name, *_rest), alike in found.items():
        by, each_ms = _measured(_alone(model, alike[0]), budget_s)
        shapes = _shapes(model, alike[0])
        times.append(OperatorTime(operator=name, shapes=shapes, by=by, count=len(alike), each_ms=each_ms))
    return sorted(times, key=lambda row: -row.total_ms)


def by_operator(times: Sequence[OperatorTime]) -> list[dict[str, object]]:
    """Return ``{operator, by, count, ms}`` for each kind of operator and whose kernel, the most costly first."""
    found: dict[tuple[str, str], tuple[int, float]] = {}
    for row in times:
        count, total_ms = found.get((row.operator, row.by), (0, 0.0))
        found[row.operator, row.by] = (count + row.count, total_ms + row.total_ms)
    return [
        {"operator": operator, "by": by, "count": count, "ms": round(total_ms, 3)}
        for (operator, by), (count, total_ms) in sorted(found.items(), key=lambda item: -item[1][1])
    ]


def _name(model: Any, operator: Any) -> str:
    code = model.operatorCodes[operator.opcodeIndex]
    return _NAMES[max(code.builtinCode, code.deprecatedBuiltinCode)]


def _constant(model: Any, tensor: Any) -> bytes | None:
    data = model.buffers[tensor.buffer].data
    return None if data is None else bytes(bytearray(data))


def _tensors(model: Any, places: Sequence[int]) -> Iterator[Any]:
    yield from (model.subgraphs[0].tensors[place] for place in places if place >= 0)


def _likeness(model: Any, operator: Any) -> tuple[Any, ...]:
    inputs = tuple(
        (tuple(tensor.shape if tensor.shape is not None else ()), _constant(model, tensor))
        for tensor in _tensors(model, operator.inputs)
    )
    options = operator.builtinOptions
    return _name(model, operator), inputs, str(sorted(vars(options).items())) if options is not None else ""


def _shape(tensor: Any) -> str:
    return "x".join(map(str, tensor.shape if tensor.shape is not None else ())) or "1"


def _shapes(model: Any, operator: Any) -> str:
    given = [_shape(tensor) for tensor in _tensors(model, operator.inputs) if _constant(model, tensor) is None]
    return f"{' '.join(given)} -> {_shape(next(_tensors(model, operator.outputs)))}"


def _alone(model: Any, operator: Any) -> bytes:
    """Return a file that holds this operator only; what it computes with is given."""
    graph, kept = schema.SubGraphT(), dict[int, int]()
    graph.tensors, buffers = [], [schema.BufferT()]
    for place in (*operator.inputs, *operator.outputs):
        if place < 0 or place in kept:
            continue
        kept[place] = len(graph.tensors)
        tensor = copy.copy(model.subgraphs[0].tensors[place])
        data = model.buffers[tensor.buffer].data
        tensor.buffer = 0 if data is None else len(buffers)
        if data is not None:
            buffers.append(copy.copy(model.buffers[model.subgraphs[0].tensors[place].buffer]))
        graph.tensors.append(tensor)
    single = copy.copy(operator)
    single.inputs = [kept.get(place, -1) for place in operator.inputs]
    single.outputs = [kept[place] for place in operator.outputs]
    graph.inputs = sorted({place for place in single.inputs if place >= 0 and graph.tensors[place].buffer == 0})
    graph.outputs, graph.operators = single.outputs, [single]
    alone = schema.ModelT()
    alone.version, alone.operatorCodes, alone.subgraphs, alone.buffers = 3, model.operatorCodes, [graph], buffers
    return rewritten(alone)


def _measured(content: bytes, budget_s: float) -> tuple[str, float]:
    interpreter = Interpreter(model_content=content, num_threads=1)
    interpreter.allocate_tensors()
    rng = np.random.default_rng(0)
    for detail in interpreter.get_input_details():
        values = rng.uniform(0.5, 1.5, size=detail["shape"])
        interpreter.set_tensor(detail["index"], values.astype(detail["dtype"]))
    names = {detail["op_name"] for detail in interpreter._get_ops_details()}  # noqa: SLF001
    seconds: list[float] = []
    interpreter.invoke()
    until = time.thread_time() + budget_s
    while len(seconds) < 5 or time.thread_time() < until:
        started = time.thread_time()
        interpreter.invoke()
        seconds.append(time.thread_time() - started)
    return "XNNPACK" if "DELEGATE" in names else "LiteRT", float(np.median(seconds)) * 1000
