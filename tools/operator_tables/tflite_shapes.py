"""One-operator TFLite files of operators that compute number by number, reduce or move numbers: any type, any rank."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from tools.operator_tables.tflite_model import Graph, TfliteModel

__all__ = ["QUANTIZED", "RANKS", "TYPES", "files"]

TYPES = (
    *("FLOAT32", "FLOAT16", "BFLOAT16", "FLOAT64", "INT4", "INT8", "INT16", "INT32", "INT64"),
    *("UINT8", "UINT16", "UINT32", "UINT64", "BOOL"),
)
RANKS = range(1, 8)
QUANTIZED = frozenset({"INT4", "INT8", "INT16", "UINT8"})
_INTEGERS = np.int32

Build = Callable[[Graph, str, tuple[int, ...]], tuple[Sequence[int], tuple[int, ...]]]
"""Adds an operator and its inputs: (graph, type, shape) -> places of what is no constant, and the output's shape."""

# Fixed scales of the outputs of some operators: type -> (scale, zero point).
_UNIT: Mapping[str, tuple[float, int]] = {"INT8": (1 / 256, -128), "UINT8": (1 / 256, 0), "INT16": (1 / 32768, 0)}
_SIGNED: Mapping[str, tuple[float, int]] = {"INT8": (1 / 128, 0), "UINT8": (1 / 128, 128), "INT16": (1 / 32768, 0)}
_LOG: Mapping[str, tuple[float, int]] = {"INT8": (16 / 256, 127), "UINT8": (16 / 256, 255)}
_OUTPUT_SCALES = {
    "LOGISTIC": _UNIT, "SOFTMAX": _UNIT, "TANH": _SIGNED, "L2_NORMALIZATION": _SIGNED, "LOG_SOFTMAX": _LOG,
}  # fmt: skip

_UNARY = {
    **dict.fromkeys(("CEIL", "ELU", "FLOOR", "HARD_SWISH", "LOGICAL_NOT", "LOGISTIC", "RELU", "RELU6"), ""),
    **dict.fromkeys(("RELU_N1_TO_1", "RELU_0_TO_1", "ROUND", "RSQRT", "SIN", "SQRT", "TANH", "LOG"), ""),
    "ABS": "AbsOptions", "COS": "CosOptions", "EXP": "ExpOptions", "GELU": "GeluOptions",
    "L2_NORMALIZATION": "L2NormOptions", "LEAKY_RELU": "LeakyReluOptions", "LOG_SOFTMAX": "LogSoftmaxOptions",
    "NEG": "NegOptions", "SIGN": "SignOptions", "SOFTMAX": "SoftmaxOptions", "SQUARE": "SquareOptions",
    "ZEROS_LIKE": "ZerosLikeOptions",
}  # fmt: skip
_UNARY_FIELDS: Mapping[str, Mapping[str, Any]] = {"SOFTMAX": {"beta": 1.0}, "LEAKY_RELU": {"alpha": 0.1}}
_BINARY = {
    "ADD": "AddOptions", "ATAN2": "ATan2Options", "BITWISE_XOR": "BitwiseXorOptions", "DIV": "DivOptions",
    "FLOOR_DIV": "FloorDivOptions", "FLOOR_MOD": "FloorModOptions", "LOGICAL_AND": "LogicalAndOptions",
    "LOGICAL_OR": "LogicalOrOptions", "MAXIMUM": "MaximumMinimumOptions", "MINIMUM": "MaximumMinimumOptions",
    "MUL": "MulOptions", "POW": "PowOptions", "PRELU": "", "RIGHT_SHIFT": "RightShiftOptions",
    "SQUARED_DIFFERENCE": "SquaredDifferenceOptions", "SUB": "SubOptions",
}  # fmt: skip
_COMPARING = {
    "EQUAL": "EqualOptions", "GREATER": "GreaterOptions", "GREATER_EQUAL": "GreaterEqualOptions",
    "LESS": "LessOptions", "LESS_EQUAL": "LessEqualOptions", "NOT_EQUAL": "NotEqualOptions",
}  # fmt: skip
_REDUCING = ("MEAN", "REDUCE_ALL", "REDUCE_ANY", "REDUCE_MAX", "REDUCE_MIN", "REDUCE_PROD", "SUM")


def files() -> Iterator[tuple[str, bytes]]:
    """Yield operator and file: of every type in three and four dimensions, then every rank."""
    for name, build in _builders().items():
        for kind in TYPES:
            yield from _tried(name, build, kind, _shape(3))
            yield from _tried(name, build, kind, _shape(4))
        for kind in ("FLOAT32", "INT8", "INT32", "BOOL"):
            for rank in RANKS:
                yield from _tried(name, build, kind, _shape(rank))


def _shape(rank: int) -> tuple[int, ...]:
    """Return a shape whose first size is 1 and whose last is 2, where it has both."""
    return (*(1, 3, 2, 3, 1, 3)[: rank - 1], 2)


def _tried(name: str, build: Build, kind: str, shape: tuple[int, ...]) -> Iterator[tuple[str, bytes]]:
    model = TfliteModel()
    graph = model.graph()
    # Some runtimes do not look, and read what is none.
    if name.startswith("LOGICAL_") and kind != "BOOL":
        return
    try:
        inputs, _ = build(graph, kind, shape)
    # There is no such operator of these dimensions.
    except IndexError:
        return
    graph.record.inputs = list(dict.fromkeys(inputs))
    graph.record.outputs = list(graph.record.operators[-1].outputs)
    yield name, model.content()


def data(graph: Graph, kind: str, shape: Sequence[int], **more: Any) -> int:
    """Add a tensor of numbers, with a scale where its type is one of quantized numbers."""
    return graph.tensor(kind, shape, **({"scale": 0.5} if kind in QUANTIZED else {}), **more)


def whole(graph: Graph, values: Any) -> int:
    """Add a constant of int32 numbers."""
    array = np.asarray(values, _INTEGERS)
    return graph.tensor("INT32", array.shape, data=array)


def _same(name: str, options: str, fields: Mapping[str, Any] | None = None, *, taken: int = 1) -> Build:
    def build(graph: Graph, kind: str, shape: tuple[int, ...]) -> tuple[Sequence[int], tuple[int, ...]]:
        inputs = [data(graph, kind, shape) for _ in range(taken)]
        scale, point = _OUTPUT_SCALES.get(name, {}).get(kind, (0.5, 0))
        quantized = {"scale": scale, "zero_point": point} if kind in QUANTIZED else {}
        graph.operator(name, inputs, [graph.tensor(kind, shape, **quantized)], options=options, fields=fields)
        return inputs, shape

    return build


def _to(
    name: str,
    options: str,
    out: Callable[[tuple[int, ...]], tuple[int, ...]],
    *,
    taken: int = 1,
    constants: Callable[[tuple[int, ...]], Sequence[Any]] = lambda _shape: (),
    before: Callable[[tuple[int, ...]], Sequence[Any]] = lambda _shape: (),
    fields: Callable[[tuple[int, ...]], Mapping[str, Any]] = lambda _shape: {},
    given: str = "",
    outputs: int = 1,
    version: int = 1,
) -> Build:
    """Return what adds an operator with int32 constants before or after its data."""

    def build(graph: Graph, kind: str, shape: tuple[int, ...]) -> tuple[Sequence[int], tuple[int, ...]]:
        leading = [whole(graph, values) for values in before(shape)]
        inputs = [data(graph, kind, shape) for _ in range(taken)]
        trailing = [whole(graph, values) for values in constants(shape)]
        shaped = out(shape)
        results = [data(graph, given or kind, shaped) for _ in range(outputs)]
        inside = [*leading, *inputs, *trailing]
        graph.operator(name, inside, results, options=options, fields=fields(shape), version=version)
        return inputs, shaped

    return build


def _builders() -> dict[str, Build]:
    found: dict[str, Build] = {name: _same(name, options, _UNARY_FIELDS.get(name)) for name, options in _UNARY.items()}
    found |= {name: _same(name, options, taken=2) for name, options in _BINARY.items()}
    found |= {
        name: _to(name, options, lambda shape: shape, taken=2, given="BOOL") for name, options in _COMPARING.items()
    }
    found |= {
        name: _to(
            name, "ReducerOptions", lambda s: (*s[:-1], 1), constants=lambda s: [[len(s) - 1]],
            fields=lambda _s: {"keepDims": True},
        )
        for name in _REDUCING
    }  # fmt: skip
    for name, options in (("ARG_MAX", "ArgMaxOptions"), ("ARG_MIN", "ArgMinOptions")):
        code = {"outputType": 2}  # INT32
        found[name] = _to(
            name, options, lambda s: s[:-1], constants=lambda s: [len(s) - 1], given="INT32",
            fields=lambda _s, code=code: code,
        )  # fmt: skip
    return found | _moving() | _choosing() | _spatial()


def _moving() -> dict[str, Build]:
    return {
        "ADD_N": _to("ADD_N", "AddNOptions", lambda s: s, taken=2),
        "BROADCAST_TO": _to("BROADCAST_TO", "BroadcastToOptions", lambda s: s, constants=lambda s: [s], version=2),
        "CONCATENATION": _to(
            "CONCATENATION", "ConcatenationOptions", lambda s: (*s[:-1], 2 * s[-1]), taken=2,
            fields=lambda s: {"axis": len(s) - 1},
        ),
        "CUMSUM": _to("CUMSUM", "CumsumOptions", lambda s: s, constants=lambda s: [len(s) - 1]),
        "DYNAMIC_UPDATE_SLICE": _to(
            "DYNAMIC_UPDATE_SLICE", "DynamicUpdateSliceOptions", lambda s: s, taken=2,
            constants=lambda s: [[0] * len(s)],
        ),
        "EXPAND_DIMS": _to("EXPAND_DIMS", "ExpandDimsOptions", lambda s: (1, *s), constants=lambda _s: [0]),
        "GATHER": _to(
            "GATHER", "GatherOptions", lambda s: (1, *s[1:]), constants=lambda _s: [[0]], fields=lambda _s: {"axis": 0}
        ),
        "GATHER_ND": _to("GATHER_ND", "GatherNdOptions", lambda s: (1, *s[1:]), constants=lambda _s: [[[0]]]),
        "MIRROR_PAD": _to(
            "MIRROR_PAD", "MirrorPadOptions", lambda s: (*s[:-1], s[-1] + 2), fields=lambda _s: {"mode": 1},
            constants=lambda s: [[[0, 0]] * (len(s) - 1) + [[1, 1]]],
        ),
        "PACK": _to(
            "PACK", "PackOptions", lambda s: (2, *s), taken=2, fields=lambda _s: {"valuesCount": 2, "axis": 0}
        ),
        "PAD": _to("PAD", "PadOptions", lambda s: tuple(n + 2 for n in s), constants=lambda s: [[[1, 1]] * len(s)]),
        "PADV2": _padded,
        "RESHAPE": _to("RESHAPE", "ReshapeOptions", lambda s: s[::-1], constants=lambda s: [s[::-1]]),
        "REVERSE_SEQUENCE": _to(
            "REVERSE_SEQUENCE", "ReverseSequenceOptions", lambda s: s, constants=lambda s: [[1] * s[0]],
            fields=lambda s: {"seqDim": _second(s), "batchDim": 0},
        ),
        "REVERSE_V2": _to("REVERSE_V2", "ReverseV2Options", lambda s: s, constants=lambda s: [[len(s) - 1]]),
        "SCATTER_ND": _to(
            "SCATTER_ND", "ScatterNdOptions", lambda s: (4, *s[1:]), before=lambda s: [[[0]] * s[0]],
            constants=lambda s: [(4, *s[1:])],
        ),
        "SHAPE": _to("SHAPE", "ShapeOptions", lambda s: (len(s),), given="INT32", fields=lambda _s: {"outType": 2}),
        "RANK": _to("RANK", "RankOptions", lambda _s: (), given="INT32"),
        "SLICE": _to("SLICE", "SliceOptions", lambda s: s, constants=lambda s: [[0] * len(s), s]),
        "SPLIT": _to(
            "SPLIT", "SplitOptions", lambda s: (*s[:-1], _half(s[-1])), before=lambda s: [len(s) - 1], outputs=2,
            fields=lambda _s: {"numSplits": 2},
        ),
        "SPLIT_V": _to(
            "SPLIT_V", "SplitVOptions", lambda s: (*s[:-1], _half(s[-1])), outputs=2,
            constants=lambda s: [[_half(s[-1])] * 2, len(s) - 1], fields=lambda _s: {"numSplits": 2},
        ),
        "SQUEEZE": _to("SQUEEZE", "SqueezeOptions", _behind_one, fields=lambda _s: {"squeezeDims": [0]}),
        "STRIDED_SLICE": _to(
            "STRIDED_SLICE", "StridedSliceOptions", lambda s: s,
            constants=lambda s: [[0] * len(s), s, [1] * len(s)],
        ),
        "TILE": _to(
            "TILE", "TileOptions", lambda s: (2 * s[0], *s[1:]), constants=lambda s: [[2] + [1] * (len(s) - 1)]
        ),
        "TRANSPOSE": _to(
            "TRANSPOSE", "TransposeOptions", lambda s: s[::-1], constants=lambda s: [list(range(len(s)))[::-1]]
        ),
        "UNPACK": _to("UNPACK", "UnpackOptions", _behind_one, fields=lambda _s: {"num": 1, "axis": 0}),
    }  # fmt: skip


def _behind_one(shape: tuple[int, ...]) -> tuple[int, ...]:
    if shape[0] != 1:
        raise IndexError
    return shape[1:]


def _half(size: int) -> int:
    if size % 2:
        raise IndexError
    return size // 2


def _second(shape: tuple[int, ...]) -> int:
    if len(shape) < 2:
        raise IndexError
    return 1


def _padded(graph: Graph, kind: str, shape: tuple[int, ...]) -> tuple[Sequence[int], tuple[int, ...]]:
    inputs = [data(graph, kind, shape)]
    pads, value = whole(graph, [[1, 1]] * len(shape)), data(graph, kind, (1,), data=b"\\0" * 8)
    shaped = tuple(size + 2 for size in shape)
    graph.operator("PADV2", [*inputs, pads, value], [data(graph, kind, shaped)], options="PadV2Options", fields={})
    return inputs, shaped


def _choosing() -> dict[str, Build]:
    def select(name: str, options: str) -> Build:
        def build(graph: Graph, kind: str, shape: tuple[int, ...]) -> tuple[Sequence[int], tuple[int, ...]]:
            inputs = [graph.tensor("BOOL", shape), data(graph, kind, shape), data(graph, kind, shape)]
            graph.operator(name, inputs, [data(graph, kind, shape)], options=options, fields={})
            return inputs, shape

        return build

    return {
        "SELECT": select("SELECT", "SelectOptions"),
        "SELECT_V2": select("SELECT_V2", "SelectV2Options"),
        "WHERE": _to("WHERE", "WhereOptions", lambda s: (int(np.prod(s)), len(s)), given="INT64"),
        "FILL": _filled,
        "ONE_HOT": _hot,
        "TOPK_V2": _top,
    }


def _filled(graph: Graph, kind: str, shape: tuple[int, ...]) -> tuple[Sequence[int], tuple[int, ...]]:
    value = data(graph, kind, ())
    graph.operator("FILL", [whole(graph, shape), value], [data(graph, kind, shape)], options="FillOptions", fields={})
    return [value], shape


def _hot(graph: Graph, kind: str, shape: tuple[int, ...]) -> tuple[Sequence[int], tuple[int, ...]]:
    indices, on, off = graph.tensor("INT32", shape), data(graph, kind, ()), data(graph, kind, ())
    shaped = (*shape, 3)
    fields = {"axis": -1}
    graph.operator(
        "ONE_HOT",
        [indices, whole(graph, 3), on, off],
        [data(graph, kind, shaped)],
        options="OneHotOptions",
        fields=fields,
    )
    return [indices, on, off], shaped


def _top(graph: Graph, kind: str, shape: tuple[int, ...]) -> tuple[Sequence[int], tuple[int, ...]]:
    values, shaped = data(graph, kind, shape), (*shape[:-1], 1)
    results = [data(graph, kind, shaped), graph.tensor("INT32", shaped)]
    graph.operator("TOPK_V2", [values, whole(graph, 1)], results, options="TopKV2Options", fields={})
    return [values], shaped


def _spatial() -> dict[str, Build]:
    """Return operators of images, ``(1, 4, 4, 4)``, and of blocks of them; other ranks are other files of theirs."""
    return {
        "AVERAGE_POOL_2D": _pool("AVERAGE_POOL_2D"),
        "BATCH_TO_SPACE_ND": _batches("BATCH_TO_SPACE_ND", "BatchToSpaceNDOptions", down=False),
        "DEPTH_TO_SPACE": _block("DEPTH_TO_SPACE", "DepthToSpaceOptions", down=False),
        "L2_POOL_2D": _pool("L2_POOL_2D"),
        "MAX_POOL_2D": _pool("MAX_POOL_2D"),
        "RESIZE_BILINEAR": _resize("RESIZE_BILINEAR", "ResizeBilinearOptions"),
        "RESIZE_NEAREST_NEIGHBOR": _resize("RESIZE_NEAREST_NEIGHBOR", "ResizeNearestNeighborOptions"),
        "SPACE_TO_BATCH_ND": _batches("SPACE_TO_BATCH_ND", "SpaceToBatchNDOptions", down=True),
        "SPACE_TO_DEPTH": _block("SPACE_TO_DEPTH", "SpaceToDepthOptions", down=True),
    }


def _image(shape: tuple[int, ...]) -> tuple[int, ...]:
    if len(shape) != 4:
        raise IndexError
    return 1, 4, 4, 4


def _pool(name: str) -> Build:
    def build(graph: Graph, kind: str, shape: tuple[int, ...]) -> tuple[Sequence[int], tuple[int, ...]]:
        taken = _image(shape)
        shaped = (taken[0], *(size // 2 for size in taken[1:3]), *taken[3:])
        inputs = [data(graph, kind, taken)]
        fields = {"padding": 1, "strideW": 2, "strideH": 2, "filterWidth": 2, "filterHeight": 2}
        graph.operator(name, inputs, [data(graph, kind, shaped)], options="Pool2DOptions", fields=fields)
        return inputs, shaped

    return build


def _resize(name: str, options: str) -> Build:
    def build(graph: Graph, kind: str, shape: tuple[int, ...]) -> tuple[Sequence[int], tuple[int, ...]]:
        taken = _image(shape)
        shaped = (taken[0], *(size * 2 for size in taken[1:3]), *taken[3:])
        inputs = [data(graph, kind, taken)]
        graph.operator(name, [*inputs, whole(graph, [8, 8])], [data(graph, kind, shaped)], options=options, fields={})
        return inputs, shaped

    return build


def _block(name: str, options: str, *, down: bool) -> Build:
    def build(graph: Graph, kind: str, shape: tuple[int, ...]) -> tuple[Sequence[int], tuple[int, ...]]:
        if len(shape) != 4:
            raise IndexError
        shaped = (1, 2, 2, 16) if down else (1, 8, 8, 1)
        inputs = [data(graph, kind, (1, 4, 4, 4))]
        graph.operator(name, inputs, [data(graph, kind, shaped)], options=options, fields={"blockSize": 2})
        return inputs, shaped

    return build


def _batches(name: str, options: str, *, down: bool) -> Build:
    def build(graph: Graph, kind: str, shape: tuple[int, ...]) -> tuple[Sequence[int], tuple[int, ...]]:
        if len(shape) < 3:
            raise IndexError
        taken, small = ((1, 4, 4, *shape[3:]), (4, 2, 2, *shape[3:]))
        first, last = (taken, small) if down else (small, taken)
        inputs = [data(graph, kind, first)]
        constants = [whole(graph, [2, 2]), whole(graph, [[0, 0], [0, 0]])]
        graph.operator(name, [*inputs, *constants], [data(graph, kind, last)], options=options, fields={})
        return inputs, last

    return build
