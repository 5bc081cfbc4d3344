"""Static int8 quantization with torchao's PT2E flow, converted to TFLite."""

from dataclasses import dataclass
from typing import ClassVar

from hedgerow.compile.pass_models import CompiledModel, FloatModel
from hedgerow.compile.passes.kinds import ExportPass
from hedgerow.compile.passes.settings import yes_or_no

__all__ = ["QuantizePt2eStatic"]


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizePt2eStatic(ExportPass):
    """Quantizes the served model with litert-torch's PT2E quantizer and converts it.

    Attributes:
        per_channel: Whether weights have one scale for each output channel, or one for each tensor.
    """

    name: ClassVar[str] = "quantize-pt2e-static"
    gives: ClassVar[str] = "tflite"
    per_channel: bool = yes_or_no()

    @property
    def weight_bits(self) -> int:
        """Integers of one byte."""
        return 8

    def apply(self, source: FloatModel) -> CompiledModel:
        """Return the model as TFLite in int8."""
        import torch
        from litert_torch.quantize.pt2e_quantizer import PT2EQuantizer, get_symmetric_quantization_config
        from litert_torch.quantize.quant_config import QuantConfig
        from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

        from hedgerow.compile.passes.examples import example_inputs, one_row
        from hedgerow.compile.passes.tflite.exporter import tflite_bytes
        from hedgerow.compile.passes.traced.moved import TFLITE_WORDS
        from hedgerow.compile.passes.traced.served import served_module
        from hedgerow.compile.runners.tflite import signature_tensors

        schema = source.task.schema
        arguments = example_inputs(schema, 1)
        quantizer = PT2EQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=self.per_channel))
        program = torch.export.export(served_module(source, arguments, words=TFLITE_WORDS), arguments).module()
        # The quantizer wants of a GRU's nodes what only one whole operator has; here the layer is unrolled.
        for node in program.graph.nodes:
            stack = node.meta.get("nn_module_stack", {})
            node.meta["nn_module_stack"] = {key: at for key, at in stack.items() if not str(at[1]).endswith("GRU")}
        prepared = prepare_pt2e(program, quantizer)
        with torch.no_grad():
            for index in range(len(source.calibration)):
                data = source.calibration.inputs
                prepared(*one_row(schema, data, index))
        quantized = convert_pt2e(prepared, fold_quantize=False)
        content = tflite_bytes(quantized, arguments, QuantConfig(pt2e_quantizer=quantizer))
        inputs, outputs = signature_tensors(content, schema)
        return CompiledModel(format="tflite", content=content, inputs=inputs, outputs=outputs)
