"""Static int8 quantization with torchao's PT2E flow, converted to TFLite."""

import warnings

import torch

from hedgerow.compile.errors import PassError
from hedgerow.compile.passes.examples import example_inputs
from hedgerow.compile.passes.tflite.export import tflite_bytes
from hedgerow.compile.runners.tflite import signature_tensors
from hedgerow.compile.stage import Settings, Source, Stage
from hedgerow.task_module import ServingModule

__all__ = ["quantize_pt2e_static"]


def quantize_pt2e_static(source: Source, _stage: Stage | None, settings: Settings) -> Stage:
    """Quantize the served model with litert-torch's PT2E quantizer and convert it.

    Settings:
        per_channel: Whether weights have one scale for each output channel, or one for each tensor.

    Raises:
        PassError: The quantizer or the converter fails.
    """
    schema = source.task.schema
    arguments = example_inputs(schema, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from litert_torch.quantize.pt2e_quantizer import PT2EQuantizer, get_symmetric_quantization_config
        from litert_torch.quantize.quant_config import QuantConfig
        from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

        rules = get_symmetric_quantization_config(is_per_channel=bool(settings["per_channel"]))
        quantizer = PT2EQuantizer().set_global(rules)
        try:
            program = torch.export.export(ServingModule(source.task, source.model).eval(), arguments).module()
            prepared = prepare_pt2e(program, quantizer)
            with torch.no_grad():
                for index in range(len(source.calibration)):
                    data = source.calibration.inputs
                    prepared(*(torch.from_numpy(data[spec.name][index : index + 1]) for spec in schema.inputs))
            quantized = convert_pt2e(prepared, fold_quantize=False)
        # torchao lets errors of every library under it through; the message must name the step.
        except Exception as exc:
            raise PassError("quantize-pt2e-static", f"{type(exc).__name__}: {exc}") from exc
    content = tflite_bytes(quantized, arguments, QuantConfig(pt2e_quantizer=quantizer))
    inputs, outputs = signature_tensors(content, schema)
    return Stage(format="tflite", content=content, inputs=inputs, outputs=outputs)
