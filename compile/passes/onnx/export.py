"""Export the served model to float ONNX, with named tensors and a dynamic batch."""

from dataclasses import dataclass
from typing import ClassVar

from hedgerow.compile.pass_models import CompiledModel, FloatModel
from hedgerow.compile.passes.kinds import ExportPass

__all__ = ["ExportOnnx"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOnnx(ExportPass):
    """Exports the served model: pre-processing, model, softmax."""

    name: ClassVar[str] = "export-onnx"
    gives: ClassVar[str] = "onnx"

    @property
    def weight_bits(self) -> int:
        """Floats."""
        return 32

    def apply(self, source: FloatModel) -> CompiledModel:
        """Return the model as ONNX."""
        from hedgerow.compile.passes.examples import example_inputs
        from hedgerow.compile.passes.onnx.exporter import onnx_bytes, onnx_tensors, open_batch
        from hedgerow.compile.passes.onnx.recurrent import KEPT, recurrent_translations
        from hedgerow.compile.passes.traced.served import served_module

        schema = source.task.schema
        inputs, outputs = onnx_tensors(schema)
        batch = open_batch(schema)
        # The module takes *inputs, so its one parameter is a tuple.
        shapes = (batch,) if batch is not None else None
        arguments = example_inputs(schema, 2)
        content = onnx_bytes(
            served_module(source, arguments, shapes, keeps=KEPT),
            arguments,
            input_names=[tensor.tensor for tensor in inputs],
            output_names=[tensor.tensor for tensor in outputs],
            dynamic_shapes=shapes,
            translations=recurrent_translations(),
        )
        return CompiledModel(format="onnx", content=content, inputs=inputs, outputs=outputs)
