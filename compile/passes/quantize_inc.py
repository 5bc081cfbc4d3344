"""Static int8 quantization with Intel neural-compressor (PT2E), exported to ONNX.

neural-compressor 3.x quantizes torch programs only, and its weights stay float behind quantize/dequantize pairs. The
pass :func:`hedgerow.compile.passes.fold_onnx.fold_onnx` after this one is what makes the file small.
"""

import logging
import warnings

import torch

from hedgerow.compile.errors import PassError
from hedgerow.compile.passes.examples import example_inputs
from hedgerow.compile.passes.export_onnx import onnx_bytes, onnx_tensors
from hedgerow.compile.stage import Settings, Source, Stage
from hedgerow.task_module import ServingModule

__all__ = ["quantize_inc_static"]


def quantize_inc_static(source: Source, _stage: Stage | None, _settings: Settings) -> Stage:
    """Quantize the served model with neural-compressor's static PT2E path and export it.

    Raises:
        PassError: neural-compressor or the exporter fails.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from neural_compressor.torch.export import export
        from neural_compressor.torch.quantization import StaticQuantConfig, convert, prepare

        logging.getLogger("neural_compressor").setLevel(logging.ERROR)
        schema = source.task.schema
        arguments = example_inputs(schema, 2)
        batch = torch.export.Dim("batch")
        shapes = tuple({0: batch} for _ in schema.inputs)
        try:
            program = export(ServingModule(source.task, source.model).eval(), arguments, dynamic_shapes=(shapes,))
            prepared = prepare(program, StaticQuantConfig())
            with torch.no_grad():
                prepared(*(torch.from_numpy(source.calibration.inputs[spec.name]) for spec in schema.inputs))
            quantized = convert(prepared)
        # neural-compressor lets errors of every library under it through; the message must name the step.
        except Exception as exc:
            raise PassError("quantize-inc-static", f"{type(exc).__name__}: {str(exc).splitlines()[0][:300]}") from exc
    inputs, outputs = onnx_tensors(schema)
    content = onnx_bytes(
        quantized,
        arguments,
        input_names=[tensor.tensor for tensor in inputs],
        output_names=[tensor.tensor for tensor in outputs],
        dynamic_shapes=shapes,
    )
    return Stage(format="onnx", content=content, inputs=inputs, outputs=outputs)
