"""One-operator ONNX files: the test cases of the package ``onnx``, in other number types and operator sets, too."""

import functools
import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper
from tools.operator_tables import onnx_more

__all__ = ["Case", "cases", "kinds_of", "model_of", "version_steps"]

_TYPES: Mapping[str, int] = {
    "tensor(float)": TensorProto.FLOAT, "tensor(double)": TensorProto.DOUBLE, "tensor(float16)": TensorProto.FLOAT16,
    "tensor(bfloat16)": TensorProto.BFLOAT16, "tensor(int8)": TensorProto.INT8, "tensor(uint8)": TensorProto.UINT8,
    "tensor(int16)": TensorProto.INT16, "tensor(uint16)": TensorProto.UINT16, "tensor(int32)": TensorProto.INT32,
    "tensor(uint32)": TensorProto.UINT32, "tensor(int64)": TensorProto.INT64, "tensor(uint64)": TensorProto.UINT64,
    "tensor(bool)": TensorProto.BOOL, "tensor(int4)": TensorProto.INT4, "tensor(uint4)": TensorProto.UINT4,
}  # fmt: skip
_TEXT = TensorProto.STRING


@dataclass(frozen=True, slots=True)
class Case:
    """One operator with what it takes.

    Attributes:
        node: The operator.
        inputs: Tensor by the name of the input, as ONNX stores it.
        others: What is no tensor, by the name of the input, with its value.
    """

    node: Any
    inputs: Mapping[str, Any]
    others: Mapping[str, tuple[Any, Any]]

    @property
    def key(self) -> tuple[str, str]:
        """Domain and name of the operator."""
        return self.node.domain, self.node.op_type


@functools.cache
def cases() -> Mapping[tuple[str, str], Sequence[Case]]:
    """Return some cases of each operator, those that differ in their types first."""
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        collected = collect_testcases(None)
    found: dict[tuple[str, str], dict[Any, list[Case]]] = defaultdict(lambda: defaultdict(list))
    for test in collected:
        if len(test.model.graph.node) != 1:
            continue
        case = _case(test.model.graph, test.data_sets[0][0])
        kinds = tuple(tensor.data_type for tensor in case.inputs.values())
        found[case.key][kinds].append(case)
    for case in onnx_more.cases():
        made = _case(*case)
        found[made.key][len(found[made.key]), "more"].append(made)
    return {
        key: [each[0] for each in by_kinds.values()] + [case for each in by_kinds.values() for case in each[1:]]
        for key, by_kinds in found.items()
    }


def _case(graph: Any, values: Sequence[Any]) -> Case:
    inputs, others = {}, {}
    for value, given in zip(graph.input, values, strict=False):
        if isinstance(given, onnx.TensorProto):
            inputs[value.name] = given
        elif isinstance(given, np.ndarray | np.generic) and value.type.HasField("tensor_type"):
            inputs[value.name] = _tensor(value.name, given, value.type.tensor_type.elem_type)
        else:
            others[value.name] = (value, given)
    return Case(graph.node[0], inputs, others)


def _tensor(name: str, values: NDArray[Any], kind: int) -> Any:
    if kind == _TEXT:
        return helper.make_tensor(name, kind, values.shape, [str(each).encode() for each in values.ravel()])
    wanted = helper.tensor_dtype_to_np_dtype(kind)
    with np.errstate(all="ignore"):
        return onnx.numpy_helper.from_array(np.asarray(values).astype(wanted), name)


def model_of(
    case: Case, domains: Mapping[str, int], kind: int | None = None, *, by_schema: bool = True
) -> bytes | None:
    """Return the file of a case.

    Args:
        case: It; what is no tensor is left to whoever runs it.
        domains: Domain -> version of the operator set.
        kind: Element type that its data gets, with the inputs that go with it; None: as they are.
        by_schema: Whether these are the inputs that must have the same type by the operator's schema, or those that
            have the same type here. Kernels of quantized numbers want the latter, and schemas leave it open.

    Returns:
        The file, whose tensors are constants: so there are no types that numpy does not have; None: no such file.
    """
    inputs = dict(case.inputs)
    if kind is not None:
        tied = _tied(case, domains[case.node.domain]) if by_schema else _alike(case)
        for name in tied:
            if name in inputs:
                if _TEXT in {inputs[name].data_type, kind}:
                    return None
                inputs[name] = _tensor(name, onnx.numpy_helper.to_array(inputs[name]), kind)
    node = onnx.NodeProto()
    node.CopyFrom(case.node)
    graph = onnx.GraphProto(name="one")
    graph.node.append(node)
    graph.initializer.extend(inputs.values())
    graph.input.extend(value for value, _given in case.others.values())
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in node.output if name)
    sets = [helper.make_opsetid(domain, number) for domain, number in domains.items()]
    model = helper.make_model(graph, opset_imports=sets, ir_version=10)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def _tied(case: Case, number: int) -> Iterator[str]:
    """Yield the inputs that have the type of the first one, by the operator's schema."""
    formal = _formal(case, number)
    places = [(place, name) for place, name in enumerate(case.node.input) if name]
    if not formal or not places:
        return
    first = formal[min(_data_place(case), len(formal) - 1)]
    for place, name in places:
        if formal[min(place, len(formal) - 1)] == first:
            yield name


def _alike(case: Case) -> Iterator[str]:
    """Yield the inputs that have the type of the first one here."""
    place = _data_place(case)
    first = case.inputs.get(case.node.input[place]) if place < len(case.node.input) else None
    if first is not None:
        yield from (name for name, tensor in case.inputs.items() if tensor.data_type == first.data_type)


def _data_place(case: Case) -> int:
    return 1 if case.node.op_type == "Where" else 0


def _formal(case: Case, number: int) -> list[str]:
    """Return the names of the types of an operator's inputs."""
    schema = _schema_of(case.key, number)
    return [] if schema is None else schema[0]


_Schema = tuple[list[str], Mapping[str, Sequence[str]]]


def _schema_of(key: tuple[str, str], number: int) -> _Schema | None:
    """Return the names of the types of an operator's inputs, and what each stands for; None: not known."""
    domain, name = key
    try:
        found = onnx.defs.get_schema(name, number, domain)
    # The package onnx knows its own domains alone; ONNX Runtime knows the others.
    except onnx.defs.SchemaError:
        return _of_runtime(key, number)
    constraints = {each.type_param_str: list(each.allowed_type_strs) for each in found.type_constraints}
    return [parameter.type_str for parameter in found.inputs], constraints


@functools.cache
def _schemas() -> Mapping[tuple[str, str], Sequence[Any]]:
    from onnxruntime.capi.onnxruntime_pybind11_state import get_all_operator_schema

    found = defaultdict(list)
    for schema in get_all_operator_schema():
        found[(schema.domain, schema.name)].append(schema)
    return found


def _of_runtime(key: tuple[str, str], number: int) -> _Schema | None:
    fitting = [schema for schema in _schemas().get(key, ()) if schema.since_version <= number]
    if not fitting:
        return None
    schema = max(fitting, key=lambda each: each.since_version)
    constraints = {each.type_param_str: list(each.allowed_type_strs) for each in schema.type_constraints}
    return [parameter.typeStr for parameter in schema.inputs], constraints


def kinds_of(case: Case, number: int) -> list[int]:
    """Return the element types that the operator's schema allows for its data."""
    schema = _schema_of(case.key, number)
    if schema is None or not schema[0]:
        return []
    formal = schema[0][min(_data_place(case), len(schema[0]) - 1)]
    return [_TYPES[kind] for kind in schema[1].get(formal, [formal]) if kind in _TYPES]


def version_steps(key: tuple[str, str], highest: int) -> list[int]:
    """Return the versions of the operator set in which an operator may have another meaning, the highest first."""
    since = {s.since_version for s in onnx.defs.get_all_schemas_with_history() if (s.domain, s.name) == key}
    since |= {schema.since_version for schema in _schemas().get(key, ())}
    steps = {highest, *(number - 1 for number in since if 1 < number <= highest)}
    return sorted((step for step in steps if any(number <= step for number in since)), reverse=True)
