"""One-operator ONNX files of operators that have no test case: of ai.onnx.ml, of ONNX Runtime's own domain, others."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper

__all__ = ["cases"]

_ML, _MS = "ai.onnx.ml", "com.microsoft"
_RNG = np.random.default_rng(0)


def _floats(*shape: int) -> NDArray[np.float32]:
    return _RNG.normal(size=shape).astype(np.float32)


def _bytes(*shape: int) -> NDArray[np.uint8]:
    return _RNG.integers(100, 140, size=shape).astype(np.uint8)


_SCALE, _POINT = np.float32(0.05), np.uint8(128)
_TREE: Mapping[str, Any] = {
    "nodes_treeids": [0, 0, 0], "nodes_nodeids": [0, 1, 2], "nodes_featureids": [0, 0, 0],
    "nodes_values": [0.5, 0.0, 0.0], "nodes_hitrates": [1.0, 1.0, 1.0], "nodes_modes": ["BRANCH_LEQ", "LEAF", "LEAF"],
    "nodes_truenodeids": [1, 0, 0], "nodes_falsenodeids": [2, 0, 0], "nodes_missing_value_tracks_true": [0, 0, 0],
}  # fmt: skip
_TWO = [0, 1]


def cases() -> Iterator[tuple[Any, Sequence[Any]]]:
    """Yield the graph of one operator and the values of its inputs."""
    for domain, name, values, attributes, outputs in (*_of_ml(), *_of_microsoft(), *_of_onnx()):
        names = [f"x{place}" if value is not None else "" for place, value in enumerate(values)]
        node = helper.make_node(name, names, [f"y{place}" for place in range(outputs)], domain=domain, **attributes)
        given = [(each, np.asarray(value)) for each, value in zip(names, values, strict=True) if value is not None]
        infos = [helper.make_tensor_value_info(each, _element_type(value), value.shape) for each, value in given]
        yield helper.make_graph([node], "one", infos, []), [value for _each, value in given]


def _element_type(value: NDArray[Any]) -> int:
    return TensorProto.STRING if value.dtype.kind in "UOS" else helper.np_dtype_to_tensor_dtype(value.dtype)


Row = tuple[str, str, Sequence[Any], Mapping[str, Any], int]
"""Domain, operator, inputs (None: left out), attributes, number of outputs."""


def _of_ml() -> Iterator[Row]:
    x = _floats(2, 3)
    support = {"kernel_type": "LINEAR", "kernel_params": [0.0, 0.0, 3.0], "support_vectors": [0.1] * 6}
    yield _ML, "CategoryMapper", [np.array(["a", "b"])], {"cats_strings": ["a", "b"], "cats_int64s": _TWO}, 1
    yield _ML, "CategoryMapper", [np.array(_TWO, np.int64)], {"cats_strings": ["a", "b"], "cats_int64s": _TWO}, 1
    yield from _of_labels()
    yield _ML, "FeatureVectorizer", [x, x], {"inputdimensions": [3, 3]}, 1
    yield _ML, "Imputer", [x], {"imputed_value_floats": [0.0], "replaced_value_float": 1.0}, 1
    yield (
        _ML, "LinearClassifier", [x],
        {"coefficients": [0.1] * 6, "intercepts": [0.0, 0.0], "classlabels_ints": _TWO}, 2,
    )  # fmt: skip
    numbers = np.array([[1, 2, 3]], np.int64)
    yield _ML, "Imputer", [numbers], {"imputed_value_int64s": [0], "replaced_value_int64": 1}, 1
    yield _ML, "LinearRegressor", [x], {"coefficients": [0.1] * 3, "intercepts": [0.0]}, 1
    yield _ML, "Normalizer", [x], {"norm": "L2"}, 1
    yield _ML, "OneHotEncoder", [np.array([0, 1], np.int64)], {"cats_int64s": _TWO}, 1
    yield _ML, "OneHotEncoder", [np.array(["a", "b"])], {"cats_strings": ["a", "b"]}, 1
    yield _ML, "Scaler", [x], {"offset": [0.0] * 3, "scale": [1.0] * 3}, 1
    yield _ML, "SVMRegressor", [x], {**support, "n_supports": 2, "coefficients": [0.5, 0.5], "rho": [0.1]}, 1
    yield (
        _ML, "SVMClassifier", [x],
        {**support, "vectors_per_class": [1, 1], "coefficients": [0.5, 0.5], "rho": [0.1], "classlabels_ints": _TWO}, 2,
    )  # fmt: skip
    leaves = {"treeids": [0, 0], "nodeids": [1, 2], "ids": [0, 1], "weights": [1.0, 1.0]}
    for kind in (np.float32, np.float64, np.int64, np.int32):
        yield (
            _ML, "TreeEnsembleClassifier", [x.astype(kind)],
            {**_TREE, **{f"class_{key}": value for key, value in leaves.items()}, "classlabels_int64s": _TWO}, 2,
        )  # fmt: skip
        targets = {f"target_{key}": value for key, value in leaves.items()} | {"target_ids": [0, 0]}
        yield _ML, "TreeEnsembleRegressor", [x.astype(kind)], {**_TREE, **targets, "n_targets": 1}, 1
    yield _ML, "ZipMap", [x], {"classlabels_int64s": [0, 1, 2]}, 1


def _of_labels() -> Iterator[Row]:
    """Yield an encoder of each kind of label: what it takes is told by its attributes alone."""
    for kind, labels in (("strings", ["a", "b"]), ("int64s", _TWO), ("floats", [0.0, 1.0])):
        values = np.array(labels, np.float32 if kind == "floats" else None)
        yield _ML, "LabelEncoder", [values], {f"keys_{kind}": labels, "values_int64s": _TWO}, 1


def _of_microsoft() -> Iterator[Row]:
    yield from _of_transformers()
    yield from _of_quantized()
    x, matrix = _floats(2, 4), _floats(4, 4)
    for name in ("Gelu", "QuickGelu", "ScaledSiLU"):
        yield _MS, name, [x], {}, 1
    for name in ("BiasGelu", "FastGelu"):
        yield _MS, name, [x, _floats(4)], {}, 1
    yield _MS, "FusedMatMul", [x, matrix], {}, 1
    yield _MS, "TransposeMatMul", [x, matrix], {}, 1
    yield _MS, "FusedGemm", [x, matrix, _floats(4)], {"activation": "Relu"}, 1
    yield _MS, "FusedConv", [_floats(1, 2, 5, 5), _floats(3, 2, 3, 3), _floats(3)], {"activation": "Relu"}, 1
    yield _MS, "CDist", [x, _floats(3, 4)], {"metric": "euclidean"}, 1
    yield _MS, "ExpandDims", [x, np.array(0, np.int32)], {}, 1
    yield _MS, "GatherND", [x, np.array([[0, 1]], np.int64)], {}, 1
    yield _MS, "Inverse", [matrix], {}, 1
    yield _MS, "MurmurHash3", [np.array([1, 2], np.int32)], {}, 1
    yield _MS, "Pad", [x, np.array([0, 1, 0, 1], np.int64), np.float32(0)], {"mode": "constant"}, 1
    yield _MS, "Range", [np.float32(0), np.float32(4), np.float32(1)], {}, 1
    yield _MS, "Trilu", [x, np.array(0, np.int64)], {}, 1
    yield _MS, "Unique", [_floats(4)], {}, 3
    yield _MS, "GridSample", [_floats(1, 1, 3, 3), _floats(1, 2, 2, 2)], {}, 1
    yield _MS, "MaxpoolWithMask", [_floats(1, 1, 4, 4), np.ones((1, 1, 4, 4), np.int32)], {"kernel_shape": [2, 2]}, 1


def _of_transformers() -> Iterator[Row]:
    hidden, size = _floats(1, 3, 8), _floats(8)
    yield _MS, "SkipLayerNormalization", [hidden, hidden, size, size, size], {}, 1
    yield _MS, "SkipSimplifiedLayerNormalization", [hidden, hidden, size], {}, 1
    yield _MS, "Attention", [hidden, _floats(8, 24), _floats(24)], {"num_heads": 2}, 1
    yield _MS, "MultiHeadAttention", [hidden, hidden, hidden], {"num_heads": 2}, 1
    yield (
        _MS, "EmbedLayerNormalization",
        [np.zeros((1, 3), np.int32), None, _floats(5, 8), _floats(4, 8), None, size, size], {}, 2,
    )  # fmt: skip
    cache = _floats(4, 2)
    yield _MS, "RotaryEmbedding", [_floats(1, 3, 8), np.array([[0, 1, 2]], np.int64), cache, cache], {"num_heads": 2}, 1
    empty = np.zeros((1, 1, 0, 8), np.float32)
    yield (
        _MS, "GroupQueryAttention",
        [
            _floats(1, 1, 16), _floats(1, 1, 8), _floats(1, 1, 8), empty, empty, np.array([0], np.int32),
            np.array(1, np.int32),
        ],
        {"num_heads": 2, "kv_num_heads": 1}, 3,
    )  # fmt: skip


def _of_quantized() -> Iterator[Row]:
    scale, point = _SCALE, _POINT
    a, image = _bytes(2, 4), _bytes(1, 2, 4, 4)
    pair = [a, scale, point]
    for name in ("QLinearAdd", "QLinearMul"):
        yield _MS, name, [*pair, *pair, scale, point], {}, 1
    yield _MS, "QLinearLeakyRelu", [*pair, scale, point], {"alpha": 0.1}, 1
    yield _MS, "QLinearSigmoid", [*pair, scale, point], {}, 1
    yield _MS, "QLinearSoftmax", [*pair, scale, point], {"axis": -1, "opset": 13}, 1
    yield _MS, "QLinearConcat", [scale, point, *pair, *pair], {"axis": 0}, 1
    yield _MS, "QLinearAveragePool", [image, scale, point, scale, point], {"kernel_shape": [2, 2]}, 1
    yield _MS, "QLinearGlobalAveragePool", [image, scale, point, scale, point], {"channels_last": 0}, 1
    yield _MS, "QLinearWhere", [np.ones((2, 4), bool), *pair, *pair, scale, point], {}, 1
    yield _MS, "QLinearConv", [image, scale, point, _bytes(3, 2, 3, 3), scale, point, scale, point], {}, 1
    yield _MS, "NhwcMaxPool", [_bytes(1, 4, 4, 2)], {"kernel_shape": [2, 2]}, 1
    yield _MS, "QGemm", [*pair, _bytes(4, 3), scale, point, None, scale, point], {}, 1
    yield _MS, "QuantizeLinear", [_floats(2, 4), scale, point], {}, 1
    yield _MS, "DequantizeLinear", pair, {}, 1
    yield _MS, "DynamicQuantizeMatMul", [_floats(2, 4), _bytes(4, 3), scale, point], {}, 1
    yield _MS, "MatMulIntegerToFloat", [a, _bytes(4, 3), scale, scale, point, point], {}, 1
    yield _MS, "MatMulInteger16", [np.ones((2, 4), np.int16), np.ones((4, 3), np.int16)], {}, 1
    yield (
        _MS, "MatMulNBits", [_floats(2, 32), _bytes(8, 1, 16), _floats(8)],
        {"K": 32, "N": 8, "bits": 4, "block_size": 32}, 1,
    )  # fmt: skip
    packed = _RNG.integers(0, 255, size=(4, 8)).astype(np.uint8)
    yield (
        _MS, "GatherBlockQuantized", [packed, np.array([1], np.int64), _floats(4, 1)],
        {"gather_axis": 0, "quantize_axis": 1, "block_size": 16}, 1,
    )  # fmt: skip
    hidden = _bytes(1, 3, 8)
    yield (
        _MS, "QAttention",
        [hidden, _bytes(8, 24), _floats(24), scale, scale, None, point, point], {"num_heads": 2}, 1,
    )  # fmt: skip
    words = np.zeros((1, 3), np.int32)
    yield (
        _MS, "QEmbedLayerNormalization",
        [
            words, None, _bytes(5, 8), _bytes(4, 8), None, _bytes(8), _bytes(8), None, scale, scale, None, scale, scale,
            point, point, None, point, point,
        ],
        {}, 2,
    )  # fmt: skip
    weights, point_each = _bytes(1, 3, 16), np.full((1, 16), 128, np.uint8)
    yield (
        _MS, "DynamicQuantizeLSTM",
        [_floats(2, 1, 3), weights, _bytes(1, 4, 16), None, None, None, None, None, np.full((1, 16), 0.05, np.float32),
         point_each, np.full((1, 16), 0.05, np.float32), point_each], {"hidden_size": 4}, 3,
    )  # fmt: skip


def _of_onnx() -> Iterator[Row]:
    x = _floats(1, 2, 4, 4)
    yield "", "GlobalLpPool", [x], {}, 1
    yield "", "MaxRoiPool", [x, np.array([[0, 0, 0, 3, 3]], np.float32)], {"pooled_shape": [2, 2]}, 1
    yield "", "Multinomial", [_floats(1, 4)], {}, 1
    yield "", "RandomNormal", [], {"shape": [2]}, 1
    yield "", "RandomUniform", [], {"shape": [2]}, 1
    yield "", "RandomNormalLike", [x], {}, 1
    yield "", "RandomUniformLike", [x], {}, 1
    yield "", "SequenceConstruct", [x, x], {}, 1
    yield "", "SequenceEmpty", [], {}, 1
    # Of older operator sets alone.
    yield "", "Upsample", [x, np.array([1, 1, 2, 2], np.float32)], {}, 1
    yield "", "Scatter", [_floats(3, 3), np.zeros((1, 3), np.int64), _floats(1, 3)], {}, 1
