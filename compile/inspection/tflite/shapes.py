"""The sizes of a TFLite file's tensors: open, known, or given by LiteRT."""

import math
from collections.abc import Mapping
from typing import Any

from hedgerow.compile.edgetpu import COMPILED_OPERATOR
from hedgerow.compile.errors import InputShapeError
from hedgerow.compile.inspection.tflite.file import TfliteFile, listed, plain_name
from hedgerow.compile.inspection.tflite.parsing import parse_tflite
from hedgerow.errors import DecodeError

__all__ = ["compare", "fixed_tflite", "open_inputs", "open_sizes", "size_of", "sizes_of"]

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
_NAMED = 4


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
    compare(file.graphs[0], shapes)
    if not open_inputs(file.graphs[0], batch=True):
        return content
    if file.outside_constants:
        expected = "constants inside its graph where sizes are to be fixed"
        raise DecodeError("tflite", expected, f"{file.outside_constants} behind it")
    file.resolve(resolved_shapes(content, shapes))
    return rewritten(file.model)


def _by_tensor(file: TfliteFile, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Return *shapes* by the names of tensors, where they are named as in the first signature.

    Raises:
        InputShapeError: There is no such input.
    """
    graph = file.graphs[0]
    names = {plain_name(graph.tensors[index]): plain_name(graph.tensors[index]) for index in listed(graph.inputs)}
    for signature in file.signatures[:1]:
        for entry in signature.inputs or ():
            names[(entry.name or b"").decode("utf-8", "replace")] = plain_name(graph.tensors[entry.tensorIndex])
    for name in shapes:
        if name not in names:
            raise InputShapeError(name, f"an input among {', '.join(sorted(names))}", "no such input")
    return {names[name]: shape for name, shape in shapes.items()}


def compare(graph: Any, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse *shapes* that differ from the sizes that the inputs fix; a batch of 1 fixes nothing.

    Raises:
        InputShapeError: They do.
    """
    for tensor in (graph.tensors[index] for index in listed(graph.inputs)):
        name, sizes = plain_name(tensor), sizes_of(tensor)
        given = shapes.get(name)
        signature = listed(tensor.shapeSignature) if len(listed(tensor.shapeSignature)) == len(sizes) else sizes
        if given is None:
            continue
        pairs = list(zip(signature, given, strict=False))
        if len(given) != len(sizes) or any(size > 0 and size != wanted for size, wanted in pairs):
            words = ", ".join("open" if size < 1 else str(size) for size in signature)
            raise InputShapeError(name, f"the sizes {words}", ", ".join(map(str, given)))


def open_inputs(graph: Any, *, batch: bool = False) -> list[str]:
    """Return the open sizes of the inputs, in words; with *batch* also those of a batch that is 1 unless told."""
    found = []
    for tensor in (graph.tensors[index] for index in listed(graph.inputs)):
        signature = listed(tensor.shapeSignature)
        sizes = signature if batch and len(signature) == len(listed(tensor.shape)) else sizes_of(tensor)
        found += [
            f"the dimension {place} of the input {plain_name(tensor)!r}" for place, s in enumerate(sizes) if s < 1
        ]
    return found


def open_sizes(file: TfliteFile, graph: Any) -> tuple[str, ...]:
    """Return what keeps sizes from being known: open inputs, else operators at which they get lost."""
    found = open_inputs(graph)
    if found:
        return tuple(found)
    lost = set[int]()
    for op in graph.operators:
        name = file.operators[op.opcodeIndex]
        unknown = {i for i in listed(op.outputs) if i >= 0 and size_of(graph.tensors[i]) is None}
        if name in _CALLING:
            found.append(f"what the operator {name} runs inside")
        elif unknown and not lost & set(listed(op.inputs)):
            found.append(f"the output {plain_name(graph.tensors[min(unknown)])!r} of the operator {name}")
        lost |= unknown
    return tuple(found[:_NAMED])


def sizes_of(tensor: Any) -> list[int]:
    """Return a tensor's sizes; one that is open is below 1.

    A batch that may be another one has the size that every runtime allocates unless it is told otherwise. The size that
    stands for another open dimension means nothing.
    """
    shape, signature = listed(tensor.shape), listed(tensor.shapeSignature)
    if len(signature) != len(shape):
        return shape
    return [-1 if signed < 0 and at else size for at, (size, signed) in enumerate(zip(shape, signature, strict=True))]


def size_of(tensor: Any) -> int | None:
    """Return how many numbers a tensor holds, or None where a size is open."""
    sizes = sizes_of(tensor)
    return math.prod(sizes) if min(sizes, default=1) > 0 else None
