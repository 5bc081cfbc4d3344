"""The shapes of an ONNX file's tensors, as far as they can be known without running it."""

from collections.abc import Mapping, Sequence
from typing import Any

import onnx

from hedgerow.compile.errors import InputShapeError
from hedgerow.compile.inspection.onnx.file import attribute_of, constants_of, parse_onnx
from hedgerow.errors import DecodeError

__all__ = ["fixed_onnx", "has_subgraphs", "inferred_values", "is_dynamic", "known_shape", "open_sizes"]

# So many places are named where sizes get lost.
_NAMED = 4


def inferred_values(model: Any, constants: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """Return the type and shape of every tensor of the main graph; a size that nobody knows has no value.

    Args:
        model: The file.
        constants: Its constants by name.
        shapes: Input -> its shape for one prediction, where the file leaves a size open.

    Raises:
        DecodeError: Operators' shapes do not fit each other.
        InputShapeError: *shapes* does not fit the inputs.
    """
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    del fixed.graph.value_info[:]
    borders = {value.name: value for value in fixed.graph.input if value.name not in constants}
    if unknown := sorted(shapes.keys() - borders.keys()):
        raise InputShapeError(unknown[0], f"an input among {', '.join(sorted(borders)) or 'none'}", "no such input")
    for name, value in borders.items():
        _fix(name, value.type.tensor_type.shape.dim, shapes.get(name))
    for value in fixed.graph.output:
        if not _is_no_tensor(value):
            value.type.tensor_type.ClearField("shape")
    for node in fixed.graph.node:
        if node.op_type == "MatMulNBits":
            _as_matmul(fixed.graph, node)
        if node.op_type == "DynamicQuantizeLSTM":
            _as_lstm(node)
    try:
        graph = onnx.shape_inference.infer_shapes(fixed, data_prop=True).graph
    # The library's own error, and what it raises where the model cannot be handed over.
    except (onnx.shape_inference.InferenceError, RuntimeError, ValueError) as exc:
        raise DecodeError("onnx", "operators whose shapes fit", str(exc)[:300]) from exc
    added = {value.name for value in fixed.graph.input} - {value.name for value in model.graph.input}
    infos = [onnx.helper.make_tensor_value_info(name, t.data_type, t.dims) for name, t in constants_of(graph)]
    values = (*graph.input, *graph.value_info, *graph.output, *infos)
    return {value.name: value for value in values if value.name not in added}


def _fix(name: str, sizes: Any, shape: tuple[int, ...] | None) -> None:
    """Write *shape* into an input; open whatever is no size."""
    for axis in sizes:
        if axis.HasField("dim_value") and axis.dim_value <= 0:
            axis.ClearField("dim_value")
    if shape is None:
        return
    found = tuple(axis.dim_value if axis.HasField("dim_value") else None for axis in sizes)
    if len(found) != len(shape) or any(size not in {None, given} for size, given in zip(found, shape, strict=True)):
        listed = ", ".join("open" if size is None else str(size) for size in found)
        raise InputShapeError(name, f"the sizes {listed}", ", ".join(map(str, shape)))
    for axis, size in zip(sizes, shape, strict=True):
        axis.dim_value = size


def _as_matmul(graph: Any, node: Any) -> None:
    """Make of a product with packed weights, which onnx does not know, a plain one of the same shapes."""
    weight = f"{node.output[0]}:weight"
    sizes = (attribute_of(node, "K", 0), attribute_of(node, "N", 0))
    graph.input.append(onnx.helper.make_tensor_value_info(weight, onnx.TensorProto.FLOAT, sizes))
    node.op_type, node.domain = "MatMul", ""
    taken = (node.input[0], weight)
    del node.input[:], node.attribute[:]
    node.input.extend(taken)


def _as_lstm(node: Any) -> None:
    """Make of an LSTM with integer weights, which onnx does not know, one whose results have the same shapes."""
    node.op_type, node.domain = "LSTM", ""
    taken = list(node.input[:1])
    del node.input[:]
    node.input.extend(taken)


def known_shape(value: Any) -> tuple[int, ...] | None:
    """Return a shape with every size known, or None."""
    if value is None or not value.type.tensor_type.HasField("shape"):
        return None
    sizes = value.type.tensor_type.shape.dim
    return tuple(int(axis.dim_value) for axis in sizes) if all(axis.HasField("dim_value") for axis in sizes) else None


def is_dynamic(graph: Any, constants: Mapping[str, Any]) -> bool:
    """Say whether a size of the border is open, but the batch."""
    border = [value for value in (*graph.input, *graph.output) if value.name not in constants]
    return any(not axis.HasField("dim_value") for v in border for axis in v.type.tensor_type.shape.dim[1:])


def open_sizes(
    graph: Any,
    inputs: Sequence[str],
    folded: set[str],
    inferred: Mapping[str, Any],
    shapes: Mapping[str, tuple[int, ...]],
) -> tuple[str, ...]:
    """Return what keeps sizes from being known: open inputs, else the operators at which they get lost."""
    found: list[str] = []
    for value in graph.input:
        if value.name not in inputs or value.name in shapes:
            continue
        if not value.type.tensor_type.HasField("shape"):
            found.append(f"the shape of the input {value.name!r}")
        for place, axis in enumerate(value.type.tensor_type.shape.dim):
            if not axis.HasField("dim_value") or axis.dim_value <= 0:
                named = repr(axis.dim_param) if axis.dim_param else str(place)
                found.append(f"the dimension {named} of the input {value.name!r}")
    if found:
        return tuple(found)
    known = {name for name, value in inferred.items() if known_shape(value) is not None or _is_no_tensor(value)}
    known |= folded | {""}
    for node in graph.node:
        if _runs_inside(node):
            found.append(f"what the operator {node.op_type} runs inside")
        elif set(node.input) <= known and not set(node.output) <= known:
            found.append(f"the output {next(filter(None, node.output))!r} of the operator {node.op_type}")
    lost = [name for name in (value.name for value in graph.output) if name not in known]
    return tuple(found[:_NAMED]) or tuple(f"the shape of the output {name!r}" for name in lost[:_NAMED])


def _is_no_tensor(value: Any) -> bool:
    return value.type.WhichOneof("value") not in {None, "tensor_type"}


def has_subgraphs(graph: Any) -> bool:
    """Say whether an operator runs a graph of its own, such as ``If`` and ``Loop``."""
    return any(map(_runs_inside, graph.node))


def _runs_inside(node: Any) -> bool:
    return any(attribute.g.node or attribute.graphs for attribute in node.attribute)


def fixed_onnx(content: bytes, shapes: Mapping[str, tuple[int, ...]]) -> bytes:
    """Return a file whose inputs have these sizes, and whose outputs those that follow, as far as they are known.

    Raises:
        DecodeError: The bytes are no ONNX file, or its operators do not fit these sizes.
        InputShapeError: *shapes* does not fit the inputs.
    """
    model = parse_onnx(content)
    constants = dict(constants_of(model.graph))
    inferred = inferred_values(model, constants, shapes)
    if all(known_shape(value) == shapes.get(value.name, known_shape(value)) for value in model.graph.input):
        return content
    for value in (*model.graph.input, *model.graph.output):
        if value.name in shapes or value in model.graph.output:
            shape = known_shape(inferred.get(value.name)) if value.name not in shapes else shapes[value.name]
            if shape is None or value.type.WhichOneof("value") != "tensor_type":
                continue
            del value.type.tensor_type.shape.dim[:]
            for size in shape:
                value.type.tensor_type.shape.dim.add().dim_value = size
    # Notes on inner tensors may name the sizes that are no longer open.
    del model.graph.value_info[:]
    fixed: bytes = model.SerializeToString(deterministic=True)
    return fixed
