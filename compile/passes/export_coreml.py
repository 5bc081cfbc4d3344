"""Export the served model to a Core ML mlprogram with coremltools. Float means float16: Core ML's own default."""

import tempfile
import warnings
from pathlib import Path
from typing import Any

import coremltools as ct
import numpy as np
import torch
from coremltools.proto import Model_pb2

from hedgerow.compile.errors import PassError
from hedgerow.compile.mlpackage import pack
from hedgerow.compile.passes.examples import example_inputs
from hedgerow.compile.stage import Settings, Source, Stage
from hedgerow.manifest.content import Tensor
from hedgerow.task_module import ServingModule

__all__ = ["export_coreml", "packed"]


_BORDER = {
    "float32": "float32", "int32": "int32", "int64": "int32", "uint8": "int32", "int8": "int32", "bool": "float32",
}  # fmt: skip
"""Core ML has three element types at the border."""
_TRACED = {"uint8": "int32", "int8": "int32"}
"""coremltools 9 reads no program with 8-bit inputs. The wider integers hold the same values; where a task's
pre-processing relies on 8 bits that run over, the outputs differ, and the parity check says so."""


def export_coreml(source: Source, _stage: Stage | None, settings: Settings) -> Stage:
    """Export the served model, batch 1, with float32 tensors at its border.

    Settings:
        minimum_version: Oldest system that must run it, such as ``iOS17``.

    Raises:
        PassError: coremltools cannot convert the model.
    """
    schema = source.task.schema
    module = ServingModule(source.task, source.model).eval()
    inputs = tuple(Tensor(spec.name, spec.name, (1, *spec.shape), _BORDER[spec.dtype]) for spec in schema.inputs)
    outputs = tuple(Tensor(spec.name, spec.name, (1, *spec.shape), spec.dtype) for spec in schema.outputs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            program = torch.export.export(module, example_inputs(schema, 1, _TRACED)).run_decompositions({})
            model = ct.convert(
                program,
                inputs=[ct.TensorType(name=t.tensor, shape=t.shape, dtype=np.dtype(t.dtype).type) for t in inputs],
                outputs=[ct.TensorType(name=t.tensor, dtype=np.float32) for t in outputs],
                convert_to="mlprogram",
                minimum_deployment_target=getattr(ct.target, str(settings["minimum_version"])),
                compute_units=ct.ComputeUnit.CPU_ONLY,
                skip_model_load=True,
            )
        # coremltools raises whatever its front end raises; the message must name the step.
        except Exception as exc:
            said = (str(exc).strip().splitlines() or [""])[0][:300]
            raise PassError("export-coreml", f"{type(exc).__name__}: {said}") from exc
        return Stage(format="mlpackage", content=packed(model), inputs=inputs, outputs=outputs)


def packed(model: Any) -> bytes:
    """Return a coremltools model as a zip that depends on its content alone.

    The day of the conversion and the order of protobuf's maps, which is random in every process, are taken out.
    """
    model.user_defined_metadata.pop("com.github.apple.coremltools.conversion_date", None)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.mlpackage"
        model.save(str(path))
        for file in path.rglob("*.mlmodel"):
            specification = Model_pb2.Model.FromString(file.read_bytes())
            file.write_bytes(specification.SerializeToString(deterministic=True))
        return pack(path)
