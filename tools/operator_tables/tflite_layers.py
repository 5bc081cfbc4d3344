"""One-operator TFLite files of layers with weights, of what converts types, of control flow and of variables."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tools.operator_tables.tflite_model import Graph, TfliteModel
from tools.operator_tables.tflite_shapes import QUANTIZED, TYPES, whole

__all__ = ["files"]

_DATA = ("FLOAT32", "FLOAT16", "INT8", "INT16", "UINT8")
_WEIGHTS = ("FLOAT32", "FLOAT16", "INT8", "INT4", "INT2", "UINT8")
_BITS = {
    "FLOAT32": 32,
    "FLOAT16": 16,
    "INT8": 8,
    "INT4": 4,
    "INT2": 2,
    "UINT8": 8,
    "INT16": 16,
    "INT32": 32,
    "INT64": 64,
}
_QUANTIZED_WEIGHTS = frozenset({"INT8", "INT4", "INT2", "UINT8", "INT16"})
_VALID = 1
_RELU, _TANH = 1, 4
_LEFT_OUT = -1


def files() -> Iterator[tuple[str, bytes]]:
    """Yield operator and file."""
    for kind in _DATA:
        for weights in _WEIGHTS:
            for bias in ("", "FLOAT32", "FLOAT16", "INT32", "INT64"):
                yield from _weighted(kind, weights, bias)
    yield from _matrices()
    yield from _recurrent()
    yield from _converting()
    yield from _control()
    for kind in TYPES:
        yield from _variables(kind)


def _constant(graph: Graph, kind: str, shape: Sequence[int], *, channels: int = 0, axis: int = 0) -> int:
    """Add constant zeros; *channels*: with so many scales along *axis*."""
    content = bytes(math.ceil(math.prod(shape) * _BITS[kind] / 8))
    scale: float | Sequence[float] | None = None
    if kind in _QUANTIZED_WEIGHTS:
        scale = [0.5] * channels if channels else 0.5
    # What they must be for the products of data and weights: 0.5 times 0.5.
    if kind in {"INT32", "INT64"}:
        scale = [0.25] * channels if channels else 0.25
    return graph.tensor(kind, shape, data=content, scale=scale, axis=axis)


def _data(graph: Graph, kind: str, shape: Sequence[int], **more: Any) -> int:
    return graph.tensor(kind, shape, **({"scale": 0.5} if kind in QUANTIZED else {}), **more)


def _weighted(kind: str, weights: str, bias: str) -> Iterator[tuple[str, bytes]]:
    """Yield convolutions and full connections of one type of data, of weights and of biases."""
    shapes: Mapping[str, tuple[Any, ...]] = {
        # name -> data, weights, output, channels, their axis in the weights, options, fields
        "CONV_2D": (
            (1, 4, 4, 2), (4, 3, 3, 2), (1, 2, 2, 4), 0, "Conv2DOptions",
            {"padding": _VALID, "strideW": 1, "strideH": 1},
        ),
        "DEPTHWISE_CONV_2D": (
            (1, 4, 4, 4), (1, 3, 3, 4), (1, 2, 2, 4), 3, "DepthwiseConv2DOptions",
            {"padding": _VALID, "strideW": 1, "strideH": 1, "depthMultiplier": 1},
        ),
        "TRANSPOSE_CONV": (
            (1, 2, 2, 2), (4, 2, 2, 2), (1, 4, 4, 4), 0, "TransposeConvOptions",
            {"padding": _VALID, "strideW": 2, "strideH": 2},
        ),
        "CONV_3D": (
            (1, 4, 4, 4, 2), (3, 3, 3, 2, 4), (1, 2, 2, 2, 4), 4, "Conv3DOptions",
            {"padding": _VALID, "strideD": 1, "strideW": 1, "strideH": 1},
        ),
        "CONV_3D_TRANSPOSE": (
            (1, 2, 2, 2, 2), (2, 2, 2, 4, 2), (1, 4, 4, 4, 4), 3, "Conv3DOptions",
            {"padding": _VALID, "strideD": 2, "strideW": 2, "strideH": 2},
        ),
    }  # fmt: skip
    for name, (taken, matrix, given, axis, options, fields) in shapes.items():
        for channels in (4, 0):
            model = TfliteModel()
            graph = model.graph()
            values = _data(graph, kind, taken)
            inputs = [values, _constant(graph, weights, matrix, channels=channels, axis=axis)]
            if name.endswith(("TRANSPOSE_CONV", "CONV_3D_TRANSPOSE")):
                inputs = [whole(graph, given), inputs[1], values]
            if bias:
                inputs.append(_constant(graph, bias, (4,), channels=channels))
            out = _data(graph, kind, given)
            graph.operator(name, inputs, [out], options=options, fields=fields)
            graph.record.inputs, graph.record.outputs = [values], [out]
            yield name, model.content()
    for lead in ((1,), (1, 2), (1, 2, 2), (1, 1, 2, 2)):
        model = TfliteModel()
        graph = model.graph()
        values, out = _data(graph, kind, (*lead, 8)), _data(graph, kind, (*lead, 4))
        inputs = [values, _constant(graph, weights, (4, 8)), *([_constant(graph, bias, (4,))] if bias else [_LEFT_OUT])]
        fields = {"keepNumDims": True}
        graph.operator("FULLY_CONNECTED", inputs, [out], options="FullyConnectedOptions", fields=fields)
        graph.record.inputs, graph.record.outputs = [values], [out]
        yield "FULLY_CONNECTED", model.content()


def _matrices() -> Iterator[tuple[str, bytes]]:
    for kind in (*_DATA, "INT32", "INT64"):
        for other in dict.fromkeys((kind, "FLOAT32", "INT8", "INT4")):
            for given in dict.fromkeys((kind, "INT32")):
                for lead in ((), (2,), (1, 2), (1, 1, 2)):
                    for is_constant in (False, True):
                        if is_constant and other not in _BITS:
                            continue
                        model = TfliteModel()
                        graph = model.graph()
                        left = _data(graph, kind, (*lead, 3, 4))
                        shape = (*lead, 4, 2)
                        right = _constant(graph, other, shape) if is_constant else _data(graph, other, shape)
                        out = _data(graph, given, (*lead, 3, 2))
                        options = "BatchMatMulOptions"
                        graph.operator("BATCH_MATMUL", [left, right], [out], options=options, fields={})
                        graph.record.inputs = [left] if is_constant else [left, right]
                        graph.record.outputs = [out]
                        yield "BATCH_MATMUL", model.content()
        model = TfliteModel()
        graph = model.graph()
        table, out = _data(graph, kind, (3, 4)), _data(graph, kind, (1, 4))
        graph.operator("EMBEDDING_LOOKUP", [whole(graph, [1]), table], [out])
        graph.record.inputs, graph.record.outputs = [table], [out]
        yield "EMBEDDING_LOOKUP", model.content()


def _recurrent() -> Iterator[tuple[str, bytes]]:
    for kind, weights, bias, cell in (
        ("FLOAT32", "FLOAT32", "FLOAT32", "FLOAT32"),
        ("FLOAT32", "INT8", "FLOAT32", "FLOAT32"),
        ("FLOAT32", "UINT8", "FLOAT32", "FLOAT32"),
        ("FLOAT16", "FLOAT16", "FLOAT16", "FLOAT16"),
        ("INT8", "INT8", "INT32", "INT16"),
        ("INT16", "INT8", "INT64", "INT16"),
        ("INT16", "INT8", "INT32", "INT16"),
        ("INT16", "INT16", "INT64", "INT16"),
        ("UINT8", "UINT8", "INT32", "INT16"),
    ):
        yield "UNIDIRECTIONAL_SEQUENCE_LSTM", _lstm(kind, weights, bias, cell)
    for kind, weights, time, bias, state in (
        ("FLOAT32", "FLOAT32", "FLOAT32", "FLOAT32", "FLOAT32"),
        ("FLOAT32", "INT8", "INT8", "FLOAT32", "FLOAT32"),
        ("FLOAT32", "UINT8", "UINT8", "FLOAT32", "FLOAT32"),
        ("INT8", "INT8", "INT16", "INT32", "INT16"),
        ("INT8", "INT8", "INT8", "INT32", "INT8"),
        ("INT16", "INT8", "INT16", "INT32", "INT16"),
        ("INT16", "INT16", "INT16", "INT32", "INT16"),
    ):
        for activation in (0, _RELU):
            yield "SVDF", _svdf(kind, weights, time, bias, state, activation)
    for kind, weights in (("FLOAT32", "FLOAT32"), ("FLOAT32", "INT8"), ("FLOAT32", "UINT8"), ("INT8", "INT8")):
        yield "UNIDIRECTIONAL_SEQUENCE_RNN", _rnn("UNIDIRECTIONAL_SEQUENCE_RNN", kind, weights)
        yield "RNN", _rnn("RNN", kind, weights)


def _lstm(kind: str, weights: str, bias: str, cell: str) -> bytes:
    model = TfliteModel()
    graph = model.graph()
    values, out = _data(graph, kind, (1, 3, 4)), _data(graph, kind, (1, 3, 2))
    matrices = [_constant(graph, weights, (2, 4)) for _ in range(4)] + [
        _constant(graph, weights, (2, 2)) for _ in range(4)
    ]
    biases = [_constant(graph, bias, (2,)) for _ in range(4)]
    hidden = _data(graph, kind, (1, 2), is_variable=True)
    scale = {"scale": 2.0**-11} if cell == "INT16" else {}
    kept = graph.tensor(cell, (1, 2), is_variable=True, **scale)
    inputs = [values, *matrices, *[_LEFT_OUT] * 3, *biases, *[_LEFT_OUT] * 2, hidden, kept, *[_LEFT_OUT] * 4]
    fields = {"fusedActivationFunction": _TANH, "cellClip": 0.0, "projClip": 0.0, "timeMajor": False}
    # They have scales alone; TensorFlow Lite Micro wants them without numbers.
    between = [] if kind == "FLOAT32" else [_data(graph, "INT8" if place == 4 else "INT16", (0,)) for place in range(5)]
    options = "UnidirectionalSequenceLSTMOptions"
    graph.operator("UNIDIRECTIONAL_SEQUENCE_LSTM", inputs, [out], options=options, fields=fields, intermediates=between)
    graph.record.inputs, graph.record.outputs = [values], [out]
    return model.content()


def _svdf(kind: str, weights: str, time: str, bias: str, state: str, activation: int) -> bytes:
    model = TfliteModel()
    graph = model.graph()
    # So large that what is written past the end of its tensors is noticed.
    filters, memory = 512, 32
    values, out = _data(graph, kind, (1, 4)), _data(graph, kind, (1, filters))
    features, times = _constant(graph, weights, (filters, 4)), _constant(graph, time, (filters, memory))
    kept = _data(graph, state, (1, filters * memory), is_variable=True)
    inputs = [values, features, times, _constant(graph, bias, (filters,)), kept]
    fields = {"rank": 1, "fusedActivationFunction": activation}
    graph.operator("SVDF", inputs, [out], options="SVDFOptions", fields=fields)
    graph.record.inputs, graph.record.outputs = [values], [out]
    return model.content()


def _rnn(name: str, kind: str, weights: str) -> bytes:
    model = TfliteModel()
    graph = model.graph()
    steps = (3,) if name != "RNN" else ()
    values, out = _data(graph, kind, (1, *steps, 4)), _data(graph, kind, (1, *steps, 2))
    inputs = [values, _constant(graph, weights, (2, 4)), _constant(graph, weights, (2, 2))]
    inputs += [_constant(graph, "FLOAT32", (2,)), _data(graph, kind, (1, 2), is_variable=True)]
    options = "SequenceRNNOptions" if steps else "RNNOptions"
    graph.operator(name, inputs, [out], options=options, fields={"fusedActivationFunction": _TANH})
    graph.record.inputs, graph.record.outputs = [values], [out]
    return model.content()


def _converting() -> Iterator[tuple[str, bytes]]:
    options = {"CAST": "CastOptions", "QUANTIZE": "QuantizeOptions", "DEQUANTIZE": "DequantizeOptions"}
    for name in ("CAST", "QUANTIZE", "DEQUANTIZE"):
        for kind in TYPES:
            # The kernels of DEQUANTIZE do not look at what they write, and write float32 or float16.
            for given in ("FLOAT32", "FLOAT16") if name == "DEQUANTIZE" else TYPES:
                for is_scaled in (False, True):
                    model = TfliteModel()
                    graph = model.graph()
                    scale = {"scale": 0.5} if is_scaled and "FLOAT" not in given else {}
                    values, out = _data(graph, kind, (1, 4)), graph.tensor(given, (1, 4), **scale)
                    graph.operator(name, [values], [out], options=options[name], fields={})
                    graph.record.inputs, graph.record.outputs = [values], [out]
                    yield name, model.content()
    model = TfliteModel()
    graph = model.graph()
    values, out = graph.tensor("FLOAT32", (1, 4)), graph.tensor("FLOAT32", (1, 4))
    fields = {"min": -1.0, "max": 1.0, "numBits": 8}
    graph.operator("FAKE_QUANT", [values], [out], options="FakeQuantOptions", fields=fields)
    graph.record.inputs, graph.record.outputs = [values], [out]
    yield "FAKE_QUANT", model.content()
    for kind in TYPES:
        model = TfliteModel()
        graph = model.graph()
        ends = [graph.tensor(kind, ()) for _ in range(3)]
        out = graph.tensor(kind, (0,))
        graph.operator("RANGE", ends, [out], options="RangeOptions", fields={})
        graph.record.inputs, graph.record.outputs = ends, [out]
        yield "RANGE", model.content()
        model = TfliteModel()
        graph = model.graph()
        shapes = [graph.tensor(kind, (2,)) for _ in range(2)]
        out = graph.tensor(kind, (2,))
        graph.operator("BROADCAST_ARGS", shapes, [out])
        graph.record.inputs, graph.record.outputs = shapes, [out]
        yield "BROADCAST_ARGS", model.content()


def _plain(graph: Graph) -> None:
    values, out = graph.tensor("FLOAT32", (1, 4)), graph.tensor("FLOAT32", (1, 4))
    graph.operator("RELU", [values], [out])
    graph.record.inputs, graph.record.outputs = [values], [out]


def _control() -> Iterator[tuple[str, bytes]]:
    model = TfliteModel()
    graph = model.graph()
    question = graph.tensor("BOOL", (1,))
    values, out = graph.tensor("FLOAT32", (1, 4)), graph.tensor("FLOAT32", (1, 4))
    fields = {"thenSubgraphIndex": 1, "elseSubgraphIndex": 2}
    graph.operator("IF", [question, values], [out], options="IfOptions", fields=fields)
    graph.record.inputs, graph.record.outputs = [question, values], [out]
    _plain(model.graph("then"))
    _plain(model.graph("else"))
    yield "IF", model.content()

    model = TfliteModel()
    graph = model.graph()
    values, out = graph.tensor("FLOAT32", (1, 1)), graph.tensor("FLOAT32", (1, 1))
    fields = {"condSubgraphIndex": 1, "bodySubgraphIndex": 2}
    graph.operator("WHILE", [values], [out], options="WhileOptions", fields=fields)
    graph.record.inputs, graph.record.outputs = [values], [out]
    condition, body = model.graph("condition"), model.graph("body")
    taken, limit = condition.tensor("FLOAT32", (1, 1)), condition.tensor("FLOAT32", (1, 1), data=b"\0\0\0\xc0")
    answer = condition.tensor("BOOL", (1, 1))
    condition.operator("LESS", [taken, limit], [answer], options="LessOptions", fields={})
    condition.record.inputs, condition.record.outputs = [taken], [answer]
    taken, given = body.tensor("FLOAT32", (1, 1)), body.tensor("FLOAT32", (1, 1))
    body.operator("NEG", [taken], [given], options="NegOptions", fields={})
    body.record.inputs, body.record.outputs = [taken], [given]
    yield "WHILE", model.content()

    model = TfliteModel()
    graph = model.graph()
    graph.operator("CALL_ONCE", [], [], options="CallOnceOptions", fields={"initSubgraphIndex": 1})
    values, out = graph.tensor("FLOAT32", (1, 4)), graph.tensor("FLOAT32", (1, 4))
    graph.operator("RELU", [values], [out])
    graph.record.inputs, graph.record.outputs = [values], [out]
    _stored(model.graph("first"), "FLOAT32")
    yield "CALL_ONCE", model.content()


def _stored(graph: Graph, kind: str) -> int:
    """Add a variable and write into it; return its handle."""
    handle = graph.tensor("RESOURCE", (1,))
    graph.operator("VAR_HANDLE", [], [handle], options="VarHandleOptions", fields={"sharedName": "kept"})
    values = graph.tensor(kind, (1, 2), data=bytes(16 if kind == "INT4" else 2 * _size(kind)))
    graph.operator("ASSIGN_VARIABLE", [handle, values], [], options="AssignVariableOptions", fields={})
    return handle


def _size(kind: str) -> int:
    return {"BOOL": 1}.get(kind) or max(int("".join(filter(str.isdigit, kind))) // 8, 1)


def _variables(kind: str) -> Iterator[tuple[str, bytes]]:
    model = TfliteModel()
    graph = model.graph()
    handle = _stored(graph, kind)
    out = graph.tensor(kind, (1, 2))
    graph.operator("READ_VARIABLE", [handle], [out], options="ReadVariableOptions", fields={})
    graph.record.outputs = [out]
    for name in ("VAR_HANDLE", "ASSIGN_VARIABLE", "READ_VARIABLE"):
        yield name, model.content()
