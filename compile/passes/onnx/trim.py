"""Take out of an ONNX file what no runtime reads: for a small model that can be half of it.

Exporters and quantizers give every node and tensor a long name, note the shapes that a runtime infers anyway, and
write the same constant once for each use.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any, ClassVar

import numpy as np

from hedgerow.compile.pass_models import CompiledModel, FloatModel
from hedgerow.compile.passes.kinds import FilePass

__all__ = ["TrimOnnx", "trimmed_onnx"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrimOnnx(FilePass):
    """Shortens the names of inner tensors, keeps each constant once, and drops notes; every result stays the same.

    A file with subgraphs or functions keeps its names, which those may use.
    """

    name: ClassVar[str] = "trim-onnx"
    takes: ClassVar[str] = "onnx"
    gives: ClassVar[str] = "onnx"

    @property
    def weight_bits(self) -> None:
        """Weights stay what they are."""
        return

    def apply(self, stage: CompiledModel, source: FloatModel) -> CompiledModel:
        """Return the file without what no runtime reads."""
        del source
        return replace(stage, content=trimmed_onnx(stage.content))


def trimmed_onnx(content: bytes) -> bytes:
    """Return a file with short names, each constant once, and no notes."""
    import onnx

    model = onnx.load_model_from_string(content)
    graph = model.graph
    del graph.value_info[:]
    for node in graph.node:
        node.ClearField("name")
        node.ClearField("doc_string")
    if not model.functions and not any(_holds_graph(node) for node in graph.node):
        _shorten(graph)
    trimmed: bytes = model.SerializeToString(deterministic=True)
    return trimmed


def _holds_graph(node: Any) -> bool:
    import onnx

    graphs = (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS)
    return any(attribute.type in graphs for attribute in node.attribute)


def _shorten(graph: Any) -> None:
    import onnx

    # An empty name stands for an argument that is left out, and the border's names are the callers'.
    border = {"", *(value.name for value in (*graph.input, *graph.output))}
    short: dict[str, str] = {name: name for name in border}

    unused = (text for text in (np.base_repr(number, 36).lower() for number in count()) if text not in border)

    def rename(name: str) -> str:
        if name not in short:
            short[name] = next(unused)
        return short[name]

    kept: list[Any] = []
    names: dict[bytes, str] = {}
    for tensor in graph.initializer:
        name = tensor.name
        tensor.ClearField("name")
        tensor.ClearField("doc_string")
        content = tensor.SerializeToString(deterministic=True)
        if content in names and name not in border:
            short[name] = names[content]
            continue
        tensor.name = names[content] = rename(name)
        kept.append(onnx.TensorProto.FromString(tensor.SerializeToString()))
    _replace(graph.initializer, kept)
    for node in graph.node:
        _replace(node.input, [rename(name) for name in node.input])
        _replace(node.output, [rename(name) for name in node.output])


def _replace(repeated: Any, values: Sequence[Any]) -> None:
    del repeated[:]
    repeated.extend(values)
