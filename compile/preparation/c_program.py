"""The first half of a task as C statements, from the same trace as the file's."""

import operator
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import fx
from torch._decomp import get_decompositions

from hedgerow.compile.errors import UnsuitableError
from hedgerow.compile.passes.examples import example_inputs
from hedgerow.compile.preparation.c_call import Call, Emitter, UntranslatableCallError
from hedgerow.compile.preparation.c_interface import PREPARE
from hedgerow.compile.preparation.c_pointwise import POINTWISE
from hedgerow.compile.preparation.c_shapes import SHAPES
from hedgerow.compile.preparation.c_sums import SUMS
from hedgerow.compile.preparation.c_values import C_TYPES, Array, View, row_major
from hedgerow.compile.preparation.c_writer import CProgram, CWriter
from hedgerow.compile.preparation.halves import Halves

__all__ = ["EMITTERS", "translate"]

EMITTERS: Mapping[str, Emitter] = {**POINTWISE, **SHAPES, **SUMS}
"""Operator of torch's core set -> what writes it in C."""
_ADVICE = (
    "write preprocess with other operators, put them into the model, or prepare the samples yourself and let the "
    "task's inputs be what was prepared"
)
# What only asserts something of a trace.
_SILENT = {"_assert_async", "_assert_scalar", "_assert_tensor_metadata", "sym_constrain_range_for_size"}
# What takes no more than the form of its first operand.
_FILLED = {"full_like", "new_full", "new_ones", "new_zeros", "ones_like", "zeros_like"}
_aten = torch.ops.aten
_MORE = (_aten.linalg_vector_norm, _aten.native_layer_norm, _aten.native_group_norm, _aten.addcmul, _aten.lerp)


def translate(halves: Halves) -> CProgram:
    """Return the first half as C statements, for one sample.

    Raises:
        UnsuitableError: An operator has no C here; it is named.
    """
    program = torch.export.export(halves.module, example_inputs(halves.schema, 1))
    table = torch.export.default_decompositions()
    table.update(get_decompositions(_MORE))  # type: ignore[no-untyped-call]
    program = program.run_decompositions(table)
    return _Translator(program, halves).program()


class _Translator:
    """Walks a trace; what depends on no input is computed by torch and becomes a constant."""

    def __init__(self, program: Any, halves: Halves) -> None:
        self._trace, self._halves, self._writer = program, halves, CWriter()
        self._values: dict[fx.Node, Any] = {}
        self._missing: set[str] = set()

    def program(self) -> CProgram:
        held = {**dict(self._trace.named_parameters()), **dict(self._trace.named_buffers()), **self._trace.constants}
        lifted = {**self._trace.graph_signature.inputs_to_parameters, **self._trace.graph_signature.inputs_to_buffers}
        lifted |= self._trace.graph_signature.inputs_to_lifted_tensor_constants
        names = iter(self._halves.schema.inputs)
        inputs: list[View] = []
        outputs: Sequence[Any] = ()
        for node in self._trace.graph.nodes:
            if node.op == "placeholder" and node.name in lifted:
                self._values[node] = held[lifted[node.name]].detach()
            elif node.op == "placeholder":
                spec = next(names)
                array = Array(spec.name, spec.dtype, int(np.prod(spec.shape, dtype=np.int64)))
                self._values[node] = View(array, (1, *spec.shape), row_major((1, *spec.shape)))
                inputs.append(self._values[node])
            elif node.op == "call_function":
                self._values[node] = self._called(node)
            elif node.op == "output":
                outputs = node.args[0]
        if self._missing:
            listed = ", ".join(sorted(self._missing))
            raise UnsuitableError(PREPARE, "operators in preprocess that can be written in C", listed, _ADVICE)
        given = tuple(self._view(self._values[node]) for node in outputs)
        return CProgram(tuple(self._writer.statements), tuple(self._writer.constants), tuple(inputs), given)

    def _view(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return self._writer.constant(np.ascontiguousarray(value.numpy()).reshape(tuple(value.shape)))
        return value

    def _called(self, node: fx.Node) -> Any:
        """Return what a node gives: a tensor where it depends on no input, else a view; None after what is missing."""
        called: Any = node.target
        arguments: Any = fx.node.map_arg((node.args, dict(node.kwargs)), lambda other: self._values[other])
        args, kwargs = arguments
        name = getattr(called, "__name__", str(called)).split(".")[0]
        if name in _SILENT:
            return None
        if any(value is None for value in (self._values[other] for other in node.all_input_nodes)):
            return None
        if called is operator.getitem:
            return self._picked(node, args[0], args[1])
        if not any(_has_view(self._values[other]) for other in node.all_input_nodes):
            return called(*args, **kwargs)
        if name in _FILLED and isinstance(args[0], View):
            like = torch.zeros(args[0].shape, dtype=getattr(torch, args[0].array.dtype))
            return called(like, *args[1:], **kwargs)
        shape, dtype = _described(node.meta["val"])
        is_known = name in EMITTERS and getattr(called, "namespace", "") == "aten"
        if not is_known or dtype not in C_TYPES:
            self._missing.add(f"{called} of {dtype}" if is_known else str(called))
            return None
        schema = called._schema  # noqa: SLF001 - torch has no public name for it
        by_name: Any = {
            argument.name: args[place] if place < len(args) else kwargs.get(argument.name, argument.default_value)
            for place, argument in enumerate(schema.arguments)
        }
        by_name = fx.node.map_aggregate(by_name, self._view)
        call = Call(self._writer, name, tuple(by_name.values()), by_name, shape, dtype, self._compared(node))
        try:
            return EMITTERS[name](call)
        except UntranslatableCallError as exc:
            self._missing.add(str(exc))
            return None

    def _picked(self, node: fx.Node, values: Sequence[Any], place: int) -> Any:
        if place >= len(values):
            self._missing.add(f"{node.all_input_nodes[0].target}, its output {place}")
            return None
        return values[place]

    def _compared(self, node: fx.Node) -> str:
        """Return the element type to which torch brings a node's operands before it compares them."""
        operands = [entry.meta["val"] if isinstance(entry, fx.Node) else entry for entry in node.args]
        plain: list[Any] = [entry for entry in operands if isinstance(entry, torch.Tensor | bool | int | float)]
        if not any(isinstance(entry, torch.Tensor) for entry in plain):
            return "float32"
        kind = plain[0].dtype if len(plain) == 1 else torch.result_type(plain[0], plain[1])
        return str(kind).removeprefix("torch.")


def _has_view(value: Any) -> bool:
    return isinstance(value, View) or (isinstance(value, list) and any(isinstance(entry, View) for entry in value))


def _described(value: Any) -> tuple[tuple[int, ...], str]:
    first = value[0] if isinstance(value, tuple | list) else value
    return tuple(int(size) for size in first.shape), str(first.dtype).removeprefix("torch.")
