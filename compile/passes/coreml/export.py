"""Export the served model to a Core ML mlprogram with coremltools. Float means float16: Core ML's own default."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from hedgerow.compile.pass_models import CompiledModel, FloatModel
from hedgerow.compile.passes.kinds import ExportPass
from hedgerow.compile.passes.settings import one_of
from hedgerow.manifest.content import Tensor

__all__ = ["ExportCoreml"]

_BORDER = {
    "float32": "float32", "int32": "int32", "int64": "int32", "uint8": "int32", "int8": "int32", "bool": "float32",
}  # fmt: skip
"""Core ML has three element types at the border."""
_TRACED = {"uint8": "int32", "int8": "int32"}
"""coremltools 9 reads no program with 8-bit inputs. The wider integers hold the same values; where a task's
pre-processing relies on 8 bits that run over, the outputs differ, and the parity check says so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportCoreml(ExportPass):
    """Exports the served model, batch 1, with float32 tensors at its border.

    Attributes:
        minimum_version: Oldest system that must run it; mlprograms came with iOS 15.
    """

    name: ClassVar[str] = "export-coreml"
    gives: ClassVar[str] = "mlpackage"
    minimum_version: str = one_of("iOS15", "iOS16", "iOS17", "iOS18", "iOS26")

    @property
    def weight_bits(self) -> int:
        """Float16."""
        return 16

    def apply(self, source: FloatModel) -> CompiledModel:
        """Return the model as a Core ML package."""
        import coremltools as ct
        import torch

        from hedgerow.compile.passes.coreml.package import packed
        from hedgerow.compile.passes.coreml.recurrent import KEPT
        from hedgerow.compile.passes.examples import example_inputs
        from hedgerow.compile.passes.traced.served import served_module

        schema = source.task.schema
        arguments = example_inputs(schema, 1, _TRACED)
        inputs = tuple(Tensor(spec.name, spec.name, (1, *spec.shape), _BORDER[spec.dtype]) for spec in schema.inputs)
        outputs = tuple(Tensor(spec.name, spec.name, (1, *spec.shape), spec.dtype) for spec in schema.outputs)
        program = torch.export.export(served_module(source, arguments, keeps=KEPT), arguments).run_decompositions({})
        model = ct.convert(
            program,
            inputs=[ct.TensorType(name=t.tensor, shape=t.shape, dtype=np.dtype(t.dtype).type) for t in inputs],
            outputs=[ct.TensorType(name=t.tensor, dtype=np.float32) for t in outputs],
            convert_to="mlprogram",
            minimum_deployment_target=getattr(ct.target, self.minimum_version),
            compute_units=ct.ComputeUnit.CPU_ONLY,
            skip_model_load=True,
        )
        return CompiledModel(format="mlpackage", content=packed(model), inputs=inputs, outputs=outputs)
