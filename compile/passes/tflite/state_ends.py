"""State of a TFLite file with one type and one scale at both ends, so that whoever runs it copies bytes."""

from dataclasses import replace
from typing import Any

import flatbuffers
from ai_edge_litert import schema_py_generated as flatbuffer

from hedgerow.compile.pass_models import CompiledModel
from hedgerow.compile.preparation.joint_tflite import quantize_operator
from hedgerow.compile.runners.tflite import found_again
from hedgerow.manifest.content import Tensor

__all__ = ["with_equal_ends"]

_IDENTIFIER = b"TFL3"


def with_equal_ends(stage: CompiledModel) -> CompiledModel:
    """Return a file whose new state is stored as the state that it takes.

    A quantizer gives each tensor a scale of its own. Where the two ends of a state differ, the new state is brought to
    the scale of the one that is taken, which covers it: it was measured on the same numbers, a prediction later.

    Args:
        stage: A TFLite file; one without state is returned as it is.

    Raises:
        ValueError: The ends have different types.
    """
    taken = {tensor.name: tensor for tensor in stage.inputs}
    given = {tensor.name: tensor for tensor in stage.outputs}
    differing = {
        given[out].tensor: taken[into]
        for into, out in stage.state.items()
        if _stored(taken[into]) != _stored(given[out])
    }
    if not differing:
        return stage
    model = flatbuffer.ModelT.InitFromPackedBuf(stage.content, 0)
    signature = model.signatureDefs[0]
    graph = model.subgraphs[signature.subgraphIndex]
    inputs = {place.name.decode(): place.tensorIndex for place in signature.inputs}
    for place in signature.outputs:
        wanted = differing.get(place.name.decode())
        if wanted is None:
            continue
        one, other = graph.tensors[inputs[wanted.tensor]], graph.tensors[place.tensorIndex]
        if one.type != other.type:
            raise ValueError(f"the state {wanted.name!r} goes in as one type and comes out as another")
        before = place.tensorIndex
        place.tensorIndex = _add_copy(graph, other, one.quantization, before)
        graph.outputs = [place.tensorIndex if index == before else index for index in graph.outputs]
        graph.operators = [*graph.operators, quantize_operator(model, before, place.tensorIndex)]
    builder = flatbuffers.Builder(len(stage.content))
    builder.Finish(model.Pack(builder), _IDENTIFIER)
    content = bytes(builder.Output())
    found = found_again(content, stage.inputs, stage.outputs)
    return replace(stage, content=content, inputs=found[0], outputs=found[1])


def _stored(tensor: Tensor) -> tuple[str, float | None, int]:
    return tensor.dtype, tensor.scale, tensor.zero_point


def _add_copy(graph: Any, tensor: Any, quantization: Any, number: int) -> int:
    """Append a tensor like *tensor*, but for its scale; return its place."""
    copy = flatbuffer.TensorT()
    copy.shape, copy.shapeSignature, copy.type = tensor.shape, tensor.shapeSignature, tensor.type
    copy.hasRank, copy.buffer = tensor.hasRank, 0
    copy.name = tensor.name + f"/state_{number}".encode()
    copy.quantization = quantization
    graph.tensors = [*graph.tensors, copy]
    return len(graph.tensors) - 1
