"""The border of an ONNX file, as the file itself names it."""

from collections.abc import Sequence
from typing import Any

from hedgerow.compile.inspection.onnx.file import constants_of, kind_of, parse_onnx
from hedgerow.compile.inspection.onnx.shapes import inferred_values
from hedgerow.errors import DecodeError

__all__ = ["border_values"]


def border_values(content: bytes) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]], tuple[str, ...]]:
    """Return the border of the main graph.

    Returns:
        The inputs and the outputs, each as (name, name, shape with -1 for what is open, type), and what is wrong with
        outputs that are no tensors of numbers, which are left out.

    Raises:
        DecodeError: The bytes are no ONNX file, or an input is no tensor of numbers, or no output is.
    """
    model = parse_onnx(content)
    constants = {name for name, _tensor in constants_of(model.graph)}
    inputs = [value for value in model.graph.input if value.name not in constants]
    for value in inputs:
        if (wrong := _no_tensor(value)) is not None:
            raise DecodeError("onnx", f"a tensor of numbers as the input {value.name!r}", wrong)
        if not value.type.tensor_type.HasField("shape"):
            raise DecodeError("onnx", f"a number of dimensions of the input {value.name!r}", "none")
    left_out = {value.name: wrong for value in model.graph.output if (wrong := _no_tensor(value)) is not None}
    kept = [value for value in model.graph.output if value.name not in left_out]
    sentences = tuple(f"the output {name!r} is {wrong}" for name, wrong in left_out.items())
    if not kept and sentences:
        raise DecodeError("onnx", "an output that is a tensor of numbers", "; ".join(sentences))
    return [_border_value(value) for value in inputs], _outputs(model, kept), sentences


def _no_tensor(value: Any) -> str | None:
    """Say what a value is that no schema holds; None: a tensor of numbers."""
    kind = value.type.WhichOneof("value") or "something without a type"
    if kind == "sequence_type":
        inner = value.type.sequence_type.elem_type.WhichOneof("value") or ""
        if inner == "map_type":
            return "a list of dictionaries (convert the model without ZipMap, in skl2onnx by zipmap=False)"
        return "a list"
    if kind != "tensor_type":
        return kind.replace("_type", "")
    element = kind_of(value.type.tensor_type.elem_type)
    if element == "string":
        return "text (give the model numbers as labels to have it)"
    return "of a type that nobody knows" if element in {"unknown", "undefined"} else None


def _outputs(model: Any, values: Sequence[Any]) -> list[tuple[Any, ...]]:
    """Return outputs; what the file does not say of a shape is worked out where that is possible without running it."""
    if all(value.type.tensor_type.HasField("shape") for value in values):
        return [_border_value(value) for value in values]
    try:
        inferred = inferred_values(model, dict(constants_of(model.graph)), {})
    except DecodeError:
        inferred = {}
    found = []
    for value in values:
        known = value if value.type.tensor_type.HasField("shape") else inferred.get(value.name)
        if known is None or not known.type.tensor_type.HasField("shape"):
            raise DecodeError("onnx", f"a number of dimensions of the output {value.name!r}", "none")
        name, tensor, shape, _kind_of_it = _border_value(known)
        found.append((name, tensor, shape, kind_of(value.type.tensor_type.elem_type)))
    return found


def _border_value(value: Any) -> tuple[Any, ...]:
    kind = value.type.tensor_type
    sizes = [axis.dim_value if axis.HasField("dim_value") and axis.dim_value > 0 else -1 for axis in kind.shape.dim]
    return value.name, value.name, tuple(sizes), kind_of(kind.elem_type)
