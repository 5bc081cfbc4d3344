"""Export the served model to a Core ML mlprogram with coremltools. Float means float16: Core ML's own default.

What prepares a sample stays float32: float16 ends at 65,504, and has three digits for a reading that is far from zero.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from hedgerow.compile.pass_models import CompiledModel, FloatModel
from hedgerow.compile.passes.kinds import ExportPass
from hedgerow.compile.passes.settings import one_of
from hedgerow.manifest.content import Tensor

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["ExportCoreml"]

_BORDER = {
    "float32": "float32", "int32": "int32", "int64": "int32", "uint8": "int32", "int8": "int32", "bool": "float32",
}  # fmt: skip
"""Core ML has three element types at the border."""
_TRACED = {"uint8": "int32", "int8": "int32"}
"""coremltools 9 reads no program with 8-bit inputs. The wider integers hold the same values; where a task's
pre-processing relies on 8 bits that run over, the outputs differ, and the parity check says so."""

_MARK = "prepares a sample"
"""Stands for a node's stack trace, the one note that coremltools carries through its own passes."""


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
        from hedgerow.compile.passes.examples import example_inputs, file_shape

        schema = source.task.schema
        arguments = example_inputs(schema, 1, _TRACED)
        inputs = tuple(
            Tensor(spec.name, spec.name, file_shape(schema, spec, 1), _BORDER[spec.dtype]) for spec in schema.inputs
        )
        outputs = tuple(
            Tensor(spec.name, spec.name, file_shape(schema, spec, 1), spec.dtype) for spec in schema.outputs
        )
        module, is_cut = _served(source, arguments)
        program = torch.export.export(module, arguments)
        # A slice of everything becomes an alias, which coremltools does not know.
        aten = torch.ops.aten
        program = program.run_decompositions({aten.nan_to_num.default: _nan_to_num, aten.alias.default: _itself})
        if is_cut:
            _mark_preparation(program.graph)
        model = ct.convert(
            program,
            inputs=[ct.TensorType(name=t.tensor, shape=t.shape, dtype=np.dtype(t.dtype).type) for t in inputs],
            outputs=[ct.TensorType(name=t.tensor, dtype=np.float32) for t in outputs],
            convert_to="mlprogram",
            minimum_deployment_target=getattr(ct.target, self.minimum_version),
            compute_precision=ct.transform.FP16ComputePrecision(op_selector=lambda operator: not _prepares(operator)),
            compute_units=ct.ComputeUnit.CPU_ONLY,
            skip_model_load=True,
        )
        description = model.get_spec().description
        return CompiledModel(
            format="mlpackage",
            content=packed(model),
            inputs=_as_named(inputs, [feature.name for feature in description.input]),
            outputs=_as_named(outputs, [feature.name for feature in description.output]),
        )


def _itself(values: "torch.Tensor") -> "torch.Tensor":
    return values


def _nan_to_num(
    values: "torch.Tensor", nan: float | None = None, posinf: float | None = None, neginf: float | None = None
) -> "torch.Tensor":
    """Return ``torch.nan_to_num`` by comparisons: coremltools writes operators whose sizes depend on the values."""
    import torch

    if not values.is_floating_point():
        return values
    limits = torch.finfo(values.dtype)
    for is_wrong, instead in (
        (values != values, 0.0 if nan is None else nan),  # noqa: PLR0124 - NaN
        (values > limits.max, limits.max if posinf is None else posinf),
        (values < limits.min, limits.min if neginf is None else neginf),
    ):
        values = torch.where(is_wrong, torch.full_like(values, instead), values)
    return values


def _as_named(tensors: tuple[Tensor, ...], names: list[str]) -> tuple[Tensor, ...]:
    """Return tensors by the names that the package has: a word of its language, such as "state", gets an ending."""
    return tuple(
        tensor
        if tensor.tensor in names
        else replace(tensor, tensor=next(name for name in names if name.startswith(f"{tensor.tensor}_workaround")))
        for tensor in tensors
    )


def _served(source: FloatModel, arguments: "tuple[torch.Tensor, ...]") -> "tuple[nn.Module, bool]":
    """Return the served model, and whether it is in two halves, each called as a module of its own."""
    from hedgerow.compile.passes.coreml.recurrent import KEPT
    from hedgerow.compile.passes.traced.moved import COREML_WORDS
    from hedgerow.compile.passes.traced.served import served_module
    from hedgerow.compile.preparation.halves import cut

    halves = cut(source.task)
    if halves is None:
        return served_module(source, arguments, words=COREML_WORDS, keeps=KEPT), False
    given = len(source.task.inputs)
    between = (*halves.module(*arguments[:given]), *arguments[given:])
    second = served_module(halves.second(source), between, words=COREML_WORDS, keeps=KEPT)
    return halves.before(second), True


def _mark_preparation(graph: Any) -> None:
    """Note which nodes come before the task's model, so that :func:`_prepares` knows what became of them."""
    from hedgerow.compile.preparation.halves import SECOND
    from hedgerow.compile.preparation.tracing import nodes_from_model_on

    behind = nodes_from_model_on(graph, SECOND)
    for node in graph.nodes:
        if node.op == "call_function" and node not in behind:
            node.meta["stack_trace"] = _MARK


def _prepares(operator: Any) -> bool:
    """Say whether a Core ML operator is all made of what comes before the task's model."""
    from coremltools.converters.mil.mil.scope import ScopeSource

    notes = operator.scopes.get(ScopeSource.EXIR_STACK_TRACE, [])
    return bool(notes) and all(note == _MARK for note in notes)
