"""Read an ONNX file back.

What the file says is checked before it is used, so that whatever is raised afterwards is a bug of ours.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from onnx import TensorProto
from onnx.helper import make_tensor_value_info, np_dtype_to_tensor_dtype

from hedgerow.compile.inspection.facts import NO_SHAPES, FileFacts, OperatorFacts
from hedgerow.compile.inspection.onnx.file import OWN_DOMAINS, constants_of, graphs_of, kind_of, parse_onnx
from hedgerow.compile.inspection.onnx.operators import called, check_operators, first_output, macs_of, version_of
from hedgerow.compile.inspection.onnx.shapes import (
    fixed_onnx,
    has_subgraphs,
    inferred_values,
    is_dynamic,
    known_shape,
    open_sizes,
)
from hedgerow.compile.inspection.onnx.weights import (
    BITS,
    FLOATS,
    asymmetric_points,
    check_constants,
    folded_in,
    is_broken,
    learned_attributes,
    parameters_of,
    stored_weights,
)
from hedgerow.compile.inspection.uses import onnx_use
from hedgerow.hardware.fit import OperatorUse

__all__ = ["read_onnx"]


def read_onnx(content: bytes, shapes: Mapping[str, tuple[int, ...]] = NO_SHAPES) -> FileFacts:
    """Return the facts of an ONNX file: operators, weights and types with those of sub-graphs, the main graph.

    Args:
        content: The file.
        shapes: Input -> its shape for one prediction, where the file leaves a size open.

    Raises:
        DecodeError: The bytes are no ONNX file, it contradicts itself, or its weights are in other files.
        InputShapeError: *shapes* does not fit the inputs.
    """
    model = parse_onnx(content)
    graphs = list(graphs_of(model.graph))
    constants = {name: tensor for graph in graphs for name, tensor in constants_of(graph)}
    nodes = [node for graph in graphs for node in graph.node]
    check_operators(nodes)
    check_constants(constants)
    inferred = inferred_values(model, constants, shapes)
    folded = folded_in(model.graph, constants)
    inputs = tuple(value.name for value in model.graph.input if value.name not in constants)
    if open_sizes(model.graph, inputs, folded, inferred, shapes):
        inferred |= _resolved(model, inputs, inferred, shapes)
    bits, quantized, floats = stored_weights(nodes, constants)
    bits[32] += 4 * sum(map(learned_attributes, nodes))
    kinds = {name: kind_of(value.type.tensor_type.elem_type) for name, value in inferred.items()}
    kinds |= {name: kind_of(tensor.data_type) for name, tensor in constants.items()}
    domains = {OWN_DOMAINS.get(entry.domain, entry.domain): int(entry.version) for entry in model.opset_import}
    outputs = tuple(value.name for value in model.graph.output)
    return FileFacts(
        operators=frozenset(called(node) for node in nodes if node.op_type != "Constant"),
        # Text is no number; which operators take it is for the table to say.
        number_types=frozenset(kinds.values()) - {"undefined", "string"},
        quantized_weights=quantized,
        float_weights=floats,
        operator_versions={called(n): version_of(n, domains) for n in nodes if n.op_type != "Constant"},
        uses=frozenset(_used(node, kinds) for node in nodes if node.op_type != "Constant"),
        weights_bytes=sum(bits.values()),
        weights_bytes_by_bits=dict(+bits),
        parameters=parameters_of(model.graph, constants),
        has_nan=any(is_broken(name, tensor) for name, tensor in constants.items()),
        dynamic_shapes=is_dynamic(model.graph, constants),
        float_tensors=sum(kind in FLOATS for kind in kinds.values()),
        graph=tuple(
            _operator(node, folded, inferred, domains) for node in model.graph.node if first_output(node) not in folded
        ),
        tensor_bytes={
            name: math.ceil(math.prod(shape) * BITS.get(kinds[name], 0) / 8)
            for name, value in inferred.items()
            if name not in folded and (shape := known_shape(value)) is not None
        },
        inputs=inputs,
        outputs=outputs,
        border_types=frozenset(kinds[name] for name in (*inputs, *outputs) if name in kinds),
        asymmetric_tensors=asymmetric_points(nodes, constants),
        open_sizes=open_sizes(model.graph, inputs, folded, inferred, shapes),
    )


def _resolved(
    model: Any,
    inputs: Sequence[str],
    inferred: Mapping[str, Any],
    shapes: Mapping[str, tuple[int, ...]],
) -> dict[str, Any]:
    """Return tensors of the main graph whose sizes are known after a run alone; nothing where that would not help."""
    if any(known_shape(inferred.get(name)) is None for name in inputs) or has_subgraphs(model.graph):
        return {}
    from hedgerow.compile.runners.onnx import resolved_values

    lost = [
        name for node in model.graph.node for name in node.output if name and known_shape(inferred.get(name)) is None
    ]
    found = resolved_values(fixed_onnx(model.SerializeToString(), shapes), lost)
    # Text comes as objects.
    kinds = {
        name: TensorProto.STRING if values.dtype.kind == "O" else np_dtype_to_tensor_dtype(values.dtype)
        for name, values in found.items()
    }
    return {name: make_tensor_value_info(name, kind, found[name].shape) for name, kind in kinds.items()}


def _used(node: Any, kinds: Mapping[str, str]) -> OperatorUse:
    def seen(name: str) -> tuple[str, int]:
        kind = kinds.get(name, "")
        return ("" if kind in {"undefined", "unknown"} else kind), 0

    inputs = [seen(name) if name else None for name in node.input]
    return onnx_use(called(node), inputs, [seen(name) for name in node.output])


def _operator(node: Any, folded: set[str], inferred: Mapping[str, Any], domains: Mapping[str, int]) -> OperatorFacts:
    shapes = [known_shape(inferred.get(name)) for name in node.input]
    return OperatorFacts(
        name=called(node),
        version=version_of(node, domains),
        inputs=tuple(name for name in node.input if name and name not in folded),
        outputs=tuple(name for name in node.output if name),
        macs=macs_of(node, shapes, known_shape(inferred.get(first_output(node)))),
    )
