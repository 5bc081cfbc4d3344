"""What passes of Intel neural-compressor share: export to its form, calibrate, convert, and write ONNX."""

import logging
import warnings
from collections.abc import Callable
from typing import Any

import torch

from hedgerow.compile.errors import PassError
from hedgerow.compile.passes.examples import example_inputs
from hedgerow.compile.passes.model.training import input_tensors
from hedgerow.compile.passes.onnx.export import onnx_bytes, onnx_tensors
from hedgerow.compile.stage import Source, Stage
from hedgerow.task_module import ServingModule

__all__ = ["inc_stage"]

Calibrate = Callable[[Any], None]


def inc_stage(step: str, source: Source, quantize: Callable[[Any, Calibrate], Any]) -> Stage:
    """Return the served model, quantized, as ONNX.

    Args:
        step: Name of the pass, for messages.
        source: The float model.
        quantize: ``(exported program, function that runs a program on the calibration data) -> quantized program``.

    Raises:
        PassError: neural-compressor or the exporter fails.
    """
    schema = source.task.schema
    arguments = example_inputs(schema, 2)
    batch = torch.export.Dim("batch")
    shapes = tuple({0: batch} for _ in schema.inputs)
    inputs = input_tensors(source, source.calibration)

    def calibrate(program: Any) -> None:
        with torch.no_grad():
            program(*inputs)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from neural_compressor.torch.export import export

        logging.getLogger("neural_compressor").setLevel(logging.ERROR)
        try:
            program = export(ServingModule(source.task, source.model).eval(), arguments, dynamic_shapes=(shapes,))
            quantized = quantize(program, calibrate)
        # neural-compressor lets errors of every library under it through; the message must name the step.
        except Exception as exc:
            said = (str(exc).strip().splitlines() or [""])[0][:300]
            raise PassError(step, f"{type(exc).__name__}: {said}") from exc
    found_inputs, outputs = onnx_tensors(schema)
    content = onnx_bytes(
        quantized,
        arguments,
        input_names=[tensor.tensor for tensor in found_inputs],
        output_names=[tensor.tensor for tensor in outputs],
        dynamic_shapes=shapes,
    )
    return Stage(format="onnx", content=content, inputs=found_inputs, outputs=outputs)
