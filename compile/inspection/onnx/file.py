"""An ONNX file's protobuf, parsed."""

from collections.abc import Iterator
from typing import Any

import onnx
from google.protobuf.message import DecodeError as ProtobufError  # type: ignore[import-untyped]

from hedgerow.errors import DecodeError

__all__ = ["CODES", "OWN_DOMAINS", "attribute_of", "constants_of", "graphs_of", "kind_of", "parse_onnx"]

_NAMES = {"float": "float32", "double": "float64"}
OWN_DOMAINS = {"ai.onnx": ""}
"""Another name of a domain -> the one that is used here."""
CODES = frozenset(onnx.TensorProto.DataType.values())
"""Numbers of the element types that the format has."""


def parse_onnx(content: bytes) -> Any:
    """Return a model whose names are text.

    Raises:
        DecodeError: The bytes are no ONNX file, or it has no operators.
    """
    try:
        model = onnx.load_model_from_string(content)
    except ProtobufError as exc:
        raise DecodeError("onnx", "a protobuf of an ONNX model", str(exc)) from exc
    if not model.graph.node:
        raise DecodeError("onnx", "a model with operators", "none")
    # Protobuf does not check the text of this format: what is none comes as bytes.
    if wrong := [name for name in _names(model) if not isinstance(name, str)]:
        raise DecodeError("onnx", "names in UTF-8", repr(wrong[0])[:80])
    return model


def _names(model: Any) -> Iterator[str | bytes]:
    yield from (entry.domain for entry in model.opset_import)
    for graph in graphs_of(model.graph):
        for node in graph.node:
            yield from (node.op_type, node.domain, *node.input, *node.output, *(a.name for a in node.attribute))
        for value in (*graph.input, *graph.output):
            yield from (value.name, *(axis.dim_param for axis in value.type.tensor_type.shape.dim))
        yield from (tensor.name for tensor in graph.initializer)


def graphs_of(graph: Any) -> Iterator[Any]:
    """Yield a graph and all that are inside its operators."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                if inner.node:
                    yield from graphs_of(inner)


def constants_of(graph: Any) -> Iterator[tuple[str, Any]]:
    """Yield name and tensor of every constant of a graph."""
    for tensor in graph.initializer:
        yield tensor.name, tensor
    for node in graph.node:
        if node.op_type == "Constant" and node.output:
            for attribute in node.attribute:
                if attribute.name == "value":
                    yield node.output[0], attribute.t


def attribute_of(node: Any, name: str, default: int) -> int:
    """Return an integer attribute of a node."""
    return next((int(attribute.i) for attribute in node.attribute if attribute.name == name), default)


def kind_of(code: int) -> str:
    """Return an element type's name, such as ``int8``; ``unknown`` for a code that the format does not have."""
    name: str = onnx.TensorProto.DataType.Name(code).lower() if code in CODES else "unknown"
    return _NAMES.get(name, name)
