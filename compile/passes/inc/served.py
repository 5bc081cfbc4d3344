"""What passes of Intel neural-compressor share: export to its form, calibrate, convert, and write ONNX."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import onnx
import torch

from hedgerow.compile.pass_models import CompiledModel, FloatModel
from hedgerow.compile.passes.examples import example_inputs, one_row
from hedgerow.compile.passes.model.training import input_tensors
from hedgerow.compile.passes.onnx.exporter import onnx_bytes, onnx_tensors, open_batch
from hedgerow.compile.passes.onnx.recurrent import recurrent_translations
from hedgerow.compile.passes.onnx.recurrent_weights import quantize_recurrent
from hedgerow.compile.passes.traced.layers import rewrite_recurrent
from hedgerow.compile.passes.traced.masks import rewrite_masks
from hedgerow.compile.passes.traced.served import looked_at, note
from hedgerow.task_module import ServingModule

__all__ = ["Calibrate", "served_stage"]

_BATCH = 32

Calibrate = Callable[[Any], None]
"""Runs a program on the calibration data."""


@contextlib.contextmanager
def _slow_attention() -> Iterator[None]:
    """Keep torch from calling a whole encoder layer as one operator, which no exporter and no quantizer knows."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def served_stage(source: FloatModel, quantize: Callable[[Any, Calibrate], Any]) -> CompiledModel:
    """Return the served model, quantized, as ONNX.

    Args:
        source: The float model.
        quantize: ``(exported program, what calibrates a program) -> quantized program``.
    """
    from neural_compressor.torch.export import export

    schema = source.task.schema
    arguments = example_inputs(schema, 2)
    shapes = open_batch(schema)
    data = source.calibration
    # State has its batch where the model wants it: such rows go in one by one.
    one_by_one = [one_row(schema, data.inputs, row) for row in range(len(data))] if schema.state else []
    batches = one_by_one or [input_tensors(source, data)]

    def calibrate(program: Any) -> None:
        with torch.no_grad():
            for batch in batches:
                program(*batch)

    # Its quantizer finds layers by notes of this export, which one of a traced model would not have.
    with _slow_attention():
        program = export(
            ServingModule(source.task, source.model).eval(),
            arguments,
            dynamic_shapes=(shapes,) if shapes is not None else None,
        )
    noted = note(source, arguments)
    if noted.attends:
        rewrite_masks(program, looked_at(source, arguments, _BATCH))
    quantized = quantize(program, calibrate)
    if noted.recurrent:
        rewrite_recurrent(quantized)
    found_inputs, outputs = onnx_tensors(schema)
    content = onnx_bytes(
        quantized,
        arguments,
        input_names=[tensor.tensor for tensor in found_inputs],
        output_names=[tensor.tensor for tensor in outputs],
        dynamic_shapes=shapes,
        translations=recurrent_translations(),
    )
    if noted.recurrent:
        model = onnx.load_model_from_string(content)
        quantize_recurrent(model)
        content = model.SerializeToString(deterministic=True)
    return CompiledModel(format="onnx", content=content, inputs=found_inputs, outputs=outputs)
