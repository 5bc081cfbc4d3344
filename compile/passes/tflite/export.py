"""Export the served model to float TFLite with litert-torch; batch 1, as a device predicts."""

from dataclasses import dataclass
from typing import ClassVar

from hedgerow.compile.pass_models import CompiledModel, FloatModel
from hedgerow.compile.passes.kinds import ExportPass

__all__ = ["ExportTflite"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportTflite(ExportPass):
    """Exports the served model: pre-processing, model, softmax."""

    name: ClassVar[str] = "export-tflite"
    gives: ClassVar[str] = "tflite"

    @property
    def weight_bits(self) -> int:
        """Floats."""
        return 32

    def apply(self, source: FloatModel) -> CompiledModel:
        """Return the model as TFLite."""
        from hedgerow.compile.passes.examples import example_inputs
        from hedgerow.compile.passes.tflite.exporter import tflite_bytes
        from hedgerow.compile.passes.traced.moved import TFLITE_WORDS
        from hedgerow.compile.passes.traced.served import served_module
        from hedgerow.compile.runners.tflite import signature_tensors

        schema = source.task.schema
        arguments = example_inputs(schema, 1)
        content = tflite_bytes(served_module(source, arguments, words=TFLITE_WORDS), arguments)
        inputs, outputs = signature_tensors(content, schema)
        return CompiledModel(format="tflite", content=content, inputs=inputs, outputs=outputs)
