"""What passes of Intel neural-compressor share: export to its form, calibrate, convert, and write ONNX."""

from collections.abc import Callable
from typing import Any

import torch

from hedgerow.compile.pass_models import CompiledModel, FloatModel
from hedgerow.compile.passes.examples import example_inputs
from hedgerow.compile.passes.model.training import input_tensors
from hedgerow.compile.passes.onnx.exporter import onnx_bytes, onnx_tensors
from hedgerow.task_module import ServingModule

__all__ = ["Calibrate", "served_stage"]

Calibrate = Callable[[Any], None]
"""Runs a program on the calibration data."""


def served_stage(source: FloatModel, quantize: Callable[[Any, Calibrate], Any]) -> CompiledModel:
    """Return the served model, quantized, as ONNX.

    Args:
        source: The float model.
        quantize: ``(exported program, what calibrates a program) -> quantized program``.
    """
    from neural_compressor.torch.export import export

    schema = source.task.schema
    arguments = example_inputs(schema, 2)
    batch = torch.export.Dim("batch")
    shapes = tuple({0: batch} for _ in schema.inputs)
    inputs = input_tensors(source, source.calibration)

    def calibrate(program: Any) -> None:
        with torch.no_grad():
            program(*inputs)

    program = export(ServingModule(source.task, source.model).eval(), arguments, dynamic_shapes=(shapes,))
    quantized = quantize(program, calibrate)
    found_inputs, outputs = onnx_tensors(schema)
    content = onnx_bytes(
        quantized,
        arguments,
        input_names=[tensor.tensor for tensor in found_inputs],
        output_names=[tensor.tensor for tensor in outputs],
        dynamic_shapes=shapes,
    )
    return CompiledModel(format="onnx", content=content, inputs=found_inputs, outputs=outputs)
