"""One TFLite file of two: what the first gives is what the second takes."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import flatbuffers
from ai_edge_litert import schema_py_generated as flatbuffer

from hedgerow.compile.pass_models import CompiledModel
from hedgerow.compile.passes.tflite.trimming import trimmed

__all__ = ["joined_tflite", "quantize_operator"]

_IDENTIFIER = b"TFL3"
_QUANTIZE = flatbuffer.BuiltinOperator.QUANTIZE


def joined_tflite(first: CompiledModel, second: CompiledModel) -> CompiledModel:
    """Return the file that runs *second* on what *first* gives, quantized where *second* takes integers for floats.

    Args:
        first: A float file without control flow.
        second: A file whose inputs have the names of *first*'s outputs, or are state, which goes past the first.

    Raises:
        ValueError: *first* has control flow.
    """
    # Constants come into the flatbuffers, so that none is left behind.
    before, after = (flatbuffer.ModelT.InitFromPackedBuf(trimmed(stage.content), 0) for stage in (first, second))
    if len(before.subgraphs) != 1:
        raise ValueError("preprocess has branches or loops; write it without, or put it into the model")
    signature, earlier = after.signatureDefs[0], before.signatureDefs[0]
    graph, other = after.subgraphs[signature.subgraphIndex], before.subgraphs[0]
    moved = len(graph.tensors)
    _add_tensors(graph, other, len(after.buffers))
    after.buffers = [*after.buffers, *before.buffers]
    codes = _add_codes(after, before.operatorCodes)
    for operator in other.operators:
        operator.opcodeIndex = codes[operator.opcodeIndex]
        operator.inputs = [index + moved if index >= 0 else index for index in operator.inputs]
        operator.outputs = [index + moved for index in operator.outputs]
    given = {place.name.decode(): place.tensorIndex + moved for place in earlier.outputs}
    taken = {place.name.decode(): place.tensorIndex for place in signature.inputs}
    outputs = {tensor.name: tensor.tensor for tensor in first.outputs}
    carried = [tensor for tensor in second.inputs if tensor.name not in outputs]
    links = {taken[t.tensor]: given[outputs[t.name]] for t in second.inputs if t.name in outputs}
    between = []
    for there, here in list(links.items()):
        if graph.tensors[there].type != graph.tensors[here].type:
            between.append(quantize_operator(after, here, there))
            del links[there]
    for operator in graph.operators:
        operator.inputs = [links.get(index, index) for index in operator.inputs]
    graph.outputs = [links.get(index, index) for index in graph.outputs]
    for place in signature.outputs:
        place.tensorIndex = links.get(place.tensorIndex, place.tensorIndex)
    graph.operators = [*other.operators, *between, *graph.operators]
    past = [place for place in signature.inputs if place.name.decode() in {tensor.tensor for tensor in carried}]
    graph.inputs = [*(index + moved for index in other.inputs), *(place.tensorIndex for place in past)]
    for place in earlier.inputs:
        place.tensorIndex += moved
    # Both files count their inputs from 0.
    names = {tensor.tensor: f"args_{len(earlier.inputs) + number}" for number, tensor in enumerate(carried)}
    for place in past:
        place.name = names[place.name.decode()].encode()
    signature.inputs = [*earlier.inputs, *past]
    inputs = (*first.inputs, *(replace(tensor, tensor=names[tensor.tensor]) for tensor in carried))
    builder = flatbuffers.Builder(len(first.content) + len(second.content))
    builder.Finish(after.Pack(builder), _IDENTIFIER)
    return replace(second, content=trimmed(bytes(builder.Output())), inputs=inputs)


def _add_tensors(graph: Any, other: Any, buffers: int) -> None:
    """Append the tensors of *other* to *graph*; their constants stand *buffers* places further on."""
    for tensor in other.tensors:
        # The buffer 0 stands for all that is computed.
        tensor.buffer = tensor.buffer + buffers if tensor.buffer else 0
    graph.tensors = [*graph.tensors, *other.tensors]


def _add_codes(model: Any, others: Sequence[Any]) -> dict[int, int]:
    """Add kinds of operators to those of *model*, each once; return where each of *others* is then."""
    known = {_kind(code): place for place, code in enumerate(model.operatorCodes)}
    places = {}
    for place, code in enumerate(others):
        if _kind(code) not in known:
            known[_kind(code)] = len(model.operatorCodes)
            model.operatorCodes = [*model.operatorCodes, code]
        places[place] = known[_kind(code)]
    return places


def _kind(code: Any) -> tuple[int, int, bytes]:
    return max(code.builtinCode, code.deprecatedBuiltinCode), code.version, code.customCode or b""


def quantize_operator(model: Any, source: int, result: int) -> Any:
    """Return an operator that makes the integers of the tensor *result* from the floats of *source*."""
    code = flatbuffer.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = _QUANTIZE
    code.version = 1
    operator = flatbuffer.OperatorT()
    operator.opcodeIndex = _add_codes(model, [code])[0]
    operator.inputs, operator.outputs = [source], [result]
    operator.builtinOptionsType = flatbuffer.BuiltinOptions.QuantizeOptions
    operator.builtinOptions = flatbuffer.QuantizeOptionsT()
    return operator
