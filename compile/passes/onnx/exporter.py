"""A torch module as the bytes of an ONNX file."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from hedgerow.compile.passes.examples import file_shape
from hedgerow.manifest.content import Tensor
from hedgerow.model_schema import ModelSchema

__all__ = ["onnx_bytes", "onnx_tensors", "open_batch"]


def onnx_bytes(
    module: torch.nn.Module,
    arguments: Sequence[torch.Tensor],
    *,
    input_names: Sequence[str],
    output_names: Sequence[str],
    dynamic_shapes: Any = None,
    translations: Mapping[Callable[..., Any], Callable[..., Any]] | None = None,
) -> bytes:
    """Return *module* as the bytes of an ONNX file; the same module gives the same bytes.

    *translations* say how operators that torch does not know are written.

    Raises:
        RuntimeError: The exporter returned nothing. It lets errors of every library under it through.
    """
    program = torch.onnx.export(
        module,
        tuple(arguments),
        dynamo=True,
        input_names=list(input_names),
        output_names=list(output_names),
        dynamic_shapes=dynamic_shapes,
        custom_translation_table=dict(translations or {}),
        verbose=False,
    )
    if program is None:
        raise RuntimeError("the exporter returned nothing")
    model = program.model_proto
    _strip_traces(model)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def _strip_traces(model: Any) -> None:
    """Remove what the exporter notes about its work: stack traces with this machine's paths, as large as the model."""
    for holder in (model, model.graph, *model.graph.node, *model.graph.value_info, *model.graph.initializer):
        del holder.metadata_props[:]
    for holder in (*model.graph.input, *model.graph.output):
        del holder.metadata_props[:]
    for node in model.graph.node:
        node.ClearField("doc_string")


def onnx_tensors(schema: ModelSchema) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Return the inputs and outputs of a served model whose tensors have the schema's names."""
    inputs, outputs = (
        tuple(Tensor(spec.name, spec.name, file_shape(schema, spec, -1), spec.dtype) for spec in specs)
        for specs in (schema.inputs, schema.outputs)
    )
    return inputs, outputs


def open_batch(schema: ModelSchema) -> tuple[Any, ...] | None:
    """Return the dynamic shapes of a module that takes the inputs of *schema*: the batch, but for one with state."""
    if schema.state:
        return None
    batch = torch.export.Dim("batch")
    return tuple({0: batch} for _ in schema.inputs)
