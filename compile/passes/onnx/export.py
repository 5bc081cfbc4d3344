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
        import torch

        from hedgerow.compile.passes.examples import example_inputs
        from hedgerow.compile.passes.onnx.exporter import onnx_bytes, onnx_tensors
        from hedgerow.task_module import ServingModule

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
        return CompiledModel(format="onnx", content=content, inputs=inputs, outputs=outputs)
