"""Float <-> stored integers: every half step, against exact arithmetic and against the runtimes themselves."""

import math
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgerow.manifest.content import Tensor
from hedgerow.tensor_border import from_stored, to_stored

SCALES = [0.5, 1 / 256, 1 / 255, 0.1, 0.037, 1e-6, 3e4, 1e38, 2.0**-126, 2.0**-140, 2.0**-149]
TYPES = {"int8": (-128, 127), "uint8": (0, 255), "int16": (-32768, 32767)}
ZERO_POINTS = [(dtype, point) for dtype, (low, high) in TYPES.items() for point in (low, 0, 5, high)]


def single(value: float) -> float:
    """Return the nearest float32."""
    return struct.unpack("<f", struct.pack("<f", value))[0]


def tensor(dtype: str = "int8", scale: float | None = 0.5, zero_point: int = 0) -> Tensor:
    return Tensor("x", "x", (-1,), dtype, scale, zero_point)


def exactly(value: float, scale: float, zero_point: int, low: int, high: int) -> int:
    """Return the stored integer by the definition, in Python's own numbers.

    Twice as many digits and two more are enough to divide float32s by way of a float64 as if it were done once
    (Figueroa, When is double rounding innocuous?, 1995).
    """
    quotient = value / scale
    if abs(quotient) > 2**100:
        return high if quotient > 0 else low
    return min(high, max(low, round(single(quotient)) + zero_point))


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize(("dtype", "zero_point"), ZERO_POINTS)
def test_every_half_step_goes_where_exact_arithmetic_says(dtype, zero_point, scale):
    low, high = TYPES[dtype]
    scale = single(scale)
    steps = range(low - 3, high + 4, 1 if high < 256 else 97)
    # The half step itself and its two neighbours among the float32s.
    with np.errstate(over="ignore"):
        middle = np.asarray([(step - zero_point + 0.5) * scale for step in steps], np.float64).astype(np.float32)
    middle = middle[np.isfinite(middle)]
    values = np.concatenate([middle, np.nextafter(middle, np.float32(-1)), np.nextafter(middle, np.float32(1))])

    stored = to_stored(values, tensor(dtype, scale, zero_point))

    assert stored.dtype == dtype
    assert stored.tolist() == [exactly(value, scale, zero_point, low, high) for value in values.tolist()]


def test_half_a_step_goes_to_the_even_neighbour():
    halves = np.asarray([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5], np.float32)
    assert to_stored(halves, tensor(scale=1.0)).tolist() == [-2, -2, 0, 0, 2, 2]
    # Even before the zero point is added.
    assert to_stored(halves, tensor(scale=1.0, zero_point=1)).tolist() == [-1, -1, 1, 1, 3, 3]


def test_the_quotient_is_a_float32():
    """In float64, 0.05 / 0.1 as float32s is above the half step; a runtime divides float32s and finds it exactly."""
    value, scale = np.float32(0.05), single(0.1)
    assert float(value) / scale == 0.5
    value = np.float32(0.35)
    assert float(value) / scale < 3.5
    assert to_stored(value, tensor(scale=scale)) == 4


def test_of_two_rules_that_differ_on_68_of_200_half_steps_the_float32_one_holds():
    """The compiler once divided float64s, the agent float32s: golden samples and a device could be a step apart."""
    values = ((np.arange(-100, 100) + 0.5) * 0.1).astype(np.float32)
    in_float64 = np.clip(np.round(values.astype(np.float64) / 0.1), -128, 127)
    stored = to_stored(values, tensor(scale=0.1))
    assert int((stored != in_float64).sum()) == 68
    assert stored.tolist() == [exactly(value, single(0.1), 0, -128, 127) for value in values.tolist()]


@pytest.mark.parametrize(("dtype", "zero_point"), ZERO_POINTS)
def test_what_is_no_number_is_the_real_zero_and_infinities_are_cut(dtype, zero_point):
    values = np.asarray([np.nan, np.inf, -np.inf, 3e38, -3e38, 0.0, -0.0], np.float32)
    low, high = TYPES[dtype]
    for scale in (1e-6, 0.5, 2.0**-149):
        stored = to_stored(values, tensor(dtype, scale, zero_point))
        assert stored.tolist() == [zero_point, high, low, high, low, zero_point, zero_point]


def test_a_scale_below_every_float32_keeps_zero_and_cuts_the_rest():
    values = np.asarray([0.0, 1e-45, -1e-45], np.float32)
    assert to_stored(values, tensor(scale=1e-60, zero_point=3)).tolist() == [3, 127, -128]


def test_32_bit_integers_are_not_blurred():
    points = tensor("int32", 1.0, 2**31 - 1)
    assert to_stored(np.asarray([-1.0, 0.0, 1.0]), points).tolist() == [2**31 - 2, 2**31 - 1, 2**31 - 1]
    assert to_stored(np.asarray([-1e30, 1e30]), points).tolist() == [-(2**31), 2**31 - 1]
    assert from_stored(np.asarray([2**31 - 2, -(2**31)], np.int32), points).tolist() == [-1.0, -float(2**32)]


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize(("dtype", "zero_point"), ZERO_POINTS)
def test_every_stored_integer_comes_back_from_its_real_value(dtype, zero_point, scale):
    low, high = TYPES[dtype]
    described = tensor(dtype, single(scale), zero_point)
    stored = np.arange(low, high + 1).astype(dtype)

    real = from_stored(stored, described)

    assert real.dtype == np.float32
    steps = [number - zero_point for number in range(low, high + 1)]
    wanted = [
        math.copysign(math.inf, n) if abs(n * single(scale)) >= 2.0**128 else single(n * single(scale)) for n in steps
    ]
    assert real.tolist() == wanted
    is_finite = np.isfinite(real)
    assert np.array_equal(to_stored(real, described)[is_finite], stored[is_finite])


@given(
    st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=20),
    st.floats(1 / 64, 2, width=32),
    st.integers(-128, 127),
)
def test_quantizing_and_back_is_off_by_half_a_step_or_cut(values, scale, zero_point):
    described = tensor(scale=scale, zero_point=zero_point)
    back = from_stored(to_stored(np.asarray(values, dtype=np.float32), described), described)
    low, high = (np.float32(limit - zero_point) * np.float32(scale) for limit in (-128, 127))
    np.testing.assert_array_less(np.abs(back - np.clip(values, low, high)), scale * 0.501 + 1e-4)


@pytest.mark.parametrize("scale", [None, 0.5])
def test_the_form_stays_and_the_result_is_contiguous(scale):
    described = tensor(scale=scale)
    grid = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    for values in (
        grid,
        grid.T,
        grid[:, ::2],
        np.asfortranarray(grid),
        grid[:0],
        np.float32(3),
        np.asarray(3.0),
        [1, 2],
    ):
        stored = to_stored(values, described)
        assert isinstance(stored, np.ndarray)
        assert (stored.shape, stored.dtype) == (np.shape(values), np.int8)
        assert stored.flags.c_contiguous
        assert np.array_equal(stored, np.asarray(values) / (scale or 1))
        back = from_stored(stored, described)
        assert isinstance(back, np.ndarray)
        assert back.shape == np.shape(values)


def test_values_without_a_scale_are_only_converted():
    plain = tensor("int32", None)
    assert to_stored(np.asarray([1, 2], dtype=np.int64), plain).dtype == np.int32
    given = np.asarray([3], dtype=np.int32)
    assert from_stored(given, plain) is given
    assert to_stored(np.asarray(0.5), tensor("float32", None)).shape == ()


def test_a_scale_of_a_float_type_is_no_border():
    with pytest.raises(ValueError, match="integer"):
        to_stored(np.zeros(1), tensor("float32", 0.5))


def half_steps(dtype: str, scale: float, zero_point: int) -> np.ndarray:
    low, high = TYPES[dtype]
    steps = np.arange(low - 3, high + 4, 1 if high < 256 else 97)
    return ((steps - zero_point + 0.5) * np.float64(scale)).astype(np.float32)


def run_onnx(operator: str, values: np.ndarray, described: Tensor) -> np.ndarray:
    import onnxruntime
    from onnx import TensorProto, helper

    stored = {"int8": TensorProto.INT8, "uint8": TensorProto.UINT8, "int16": TensorProto.INT16}[described.dtype]
    taken, given = (TensorProto.FLOAT, stored) if operator == "QuantizeLinear" else (stored, TensorProto.FLOAT)
    graph = helper.make_graph(
        [helper.make_node(operator, ["x", "scale", "point"], ["y"])],
        "border",
        [helper.make_tensor_value_info("x", taken, [None])],
        [helper.make_tensor_value_info("y", given, [None])],
        [
            helper.make_tensor("scale", TensorProto.FLOAT, [], [described.scale]),
            helper.make_tensor("point", stored, [], [described.zero_point]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": values})[0]


@pytest.mark.heavy
@pytest.mark.parametrize("scale", [0.5, 1 / 256, 1 / 255, 0.1, 0.037, 1e-6, 3e4])
@pytest.mark.parametrize(("dtype", "zero_point"), ZERO_POINTS)
def test_onnx_runtime_quantizes_half_steps_to_the_same_bits(dtype, zero_point, scale):
    described = tensor(dtype, single(scale), zero_point)
    values = np.concatenate([half_steps(dtype, single(scale), zero_point), np.asarray([np.inf, -np.inf], np.float32)])
    stored = to_stored(values, described)
    assert np.array_equal(run_onnx("QuantizeLinear", values, described), stored)
    assert np.array_equal(run_onnx("DequantizeLinear", stored, described), from_stored(stored, described))


def run_tflite(operator: str, values: np.ndarray, described: Tensor) -> np.ndarray:
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.interpreter import Interpreter

    stored = {"int8": schema.TensorType.INT8, "uint8": schema.TensorType.UINT8, "int16": schema.TensorType.INT16}
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = getattr(schema.BuiltinOperator, operator)
    model = schema.ModelT()
    model.version, model.operatorCodes = 3, [code]
    model.buffers = [schema.BufferT() for _ in range(3)]
    real, quantized = schema.TensorT(), schema.TensorT()
    real.name, real.type, real.buffer, real.shape = "real", schema.TensorType.FLOAT32, 1, [len(values)]
    quantized.name, quantized.type, quantized.buffer = "stored", stored[described.dtype], 2
    quantized.shape, quantized.quantization = [len(values)], schema.QuantizationParametersT()
    quantized.quantization.scale, quantized.quantization.zeroPoint = [described.scale], [described.zero_point]
    step, graph = schema.OperatorT(), schema.SubGraphT()
    step.inputs, step.outputs = [0], [1]
    graph.tensors = [real, quantized] if operator == "QUANTIZE" else [quantized, real]
    graph.operators, graph.inputs, graph.outputs = [step], [0], [1]
    model.subgraphs = [graph]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    interpreter = Interpreter(model_content=bytes(builder.Output()), num_threads=1)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], values)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


@pytest.mark.heavy
@pytest.mark.parametrize("scale", [0.5, 1 / 256, 1 / 255, 0.1, 0.037, 1e-6, 3e4])
@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_litert_agrees_beside_half_steps_and_is_one_off_at_most_on_them(dtype, scale):
    low, high = TYPES[dtype]
    zero_point = (low + high + 1) // 2
    described = tensor(dtype, single(scale), zero_point)
    beside = half_steps(dtype, single(scale), zero_point) + np.float32(0.1 * scale)
    assert np.array_equal(run_tflite("QUANTIZE", beside, described), to_stored(beside, described))
    halves = half_steps(dtype, single(scale), zero_point)
    found = run_tflite("QUANTIZE", halves, described).astype(int)
    assert np.abs(found - to_stored(halves, described)).max() <= 1
    stored = np.arange(low, high + 1).astype(dtype)
    assert np.array_equal(run_tflite("DEQUANTIZE", stored, described), from_stored(stored, described))
