"""Export the served model to float ONNX, with named tensors and a dynamic batch."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from hedgerow.compile.errors import PassError
from hedgerow.compile.passes.examples import example_inputs
from hedgerow.compile.stage import Settings, Source, Stage
from hedgerow.manifest.content import Tensor
from hedgerow.schema import ModelSchema
from hedgerow.task_module import ServingModule

__all__ = ["export_onnx", "onnx_bytes", "onnx_tensors"]


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
        PassError: The exporter cannot translate the model.
    """
    with warnings.catch_warnings():
        # torch 2.13 deprecates its own pytree calls, and tells of a training mode that a traced graph does not have.
        warnings.simplefilter("ignore")
        try:
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
        # The exporter lets errors of every library under it through; the message must name the step all the same.
        except Exception as exc:
            raise PassError("export-onnx", _first_line(exc)) from exc
    if program is None:
        raise PassError("export-onnx", "the exporter returned nothing")
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


def _first_line(exc: BaseException) -> str:
    root = exc
    while root.__cause__ is not None:
        root = root.__cause__
    return f"{type(root).__name__}: {(str(root).strip().splitlines() or [''])[0][:300]}"


def onnx_tensors(schema: ModelSchema) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Return the inputs and outputs of a served model whose tensors have the schema's names."""
    inputs = tuple(Tensor(spec.name, spec.name, (-1, *spec.shape), spec.dtype) for spec in schema.inputs)
    outputs = tuple(Tensor(spec.name, spec.name, (-1, *spec.shape), spec.dtype) for spec in schema.outputs)
    return inputs, outputs


def export_onnx(source: Source, _stage: Stage | None, _settings: Settings) -> Stage:
    """Export the served model: pre-processing, model, softmax.

    Raises:
        PassError: The exporter cannot translate the model.
    """
    schema = source.task.schema
    inputs, outputs = onnx_tensors(schema)
    batch = torch.export.Dim("batch")
    content = onnx_bytes(
        ServingModule(source.task, source.model).eval(),
        example_inputs(schema, 2),
        input_names=[tensor.tensor for tensor in inputs],
        output_names=[tensor.tensor for tensor in outputs],
        # The module takes *inputs, so its one parameter is a tuple.
        dynamic_shapes=(tuple({0: batch} for _ in inputs),),
    )
    return Stage(format="onnx", content=content, inputs=inputs, outputs=outputs)
