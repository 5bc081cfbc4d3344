import numpy as np
import pytest

onnx = pytest.importorskip("onnx")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402 - needs onnx

from hedgerow.compile.inspection.model import read_facts  # noqa: E402
from hedgerow.errors import DecodeError  # noqa: E402
from tests.compile.foreign_models import forest_onnx  # noqa: E402
from tests.compile.inspection.onnx.files import BIAS, CONV, RELU, WEIGHT, convolution, product  # noqa: E402

pytestmark = pytest.mark.heavy


@pytest.mark.parametrize(("number", "broken"), [(np.nan, True), (np.inf, True), (-np.inf, False), (1.0, False)])
def test_nan_and_infinity_are_found_but_minus_infinity_is_a_mask(number, broken):
    bias = np.array([number, 0, 0, 0], np.float32)
    assert read_facts("onnx", convolution([CONV, RELU], {"w": WEIGHT, "b": bias})).has_nan is broken


@pytest.mark.parametrize(("number", "broken"), [(np.nan, True), (np.inf, False), (-np.inf, False)])
def test_infinity_alone_is_what_values_are_compared_with(number, broken):
    nodes = [helper.make_node("Equal", ["c", "limit"], ["is"]), helper.make_node("Cast", ["is"], ["y"], to=1)]
    constants = {"w": WEIGHT, "b": BIAS, "limit": np.array(number, np.float32)}

    assert read_facts("onnx", convolution([CONV, *nodes], constants)).has_nan is broken


def test_a_dequantized_weight_is_no_activation_and_scales_are_no_weights():
    nodes = [
        helper.make_node("DequantizeLinear", ["w8", "s", "z"], ["w"], axis=0),
        CONV,
        RELU,
    ]
    constants = {
        "w8": np.ones((4, 3, 3, 3), np.int8),
        "s": np.ones(4, np.float32),
        "z": np.zeros(4, np.int8),
        "b": BIAS,
    }
    facts = read_facts("onnx", convolution(nodes, constants), {"x": (1, 3, 8, 8)})
    assert facts.quantized_weights == 108
    assert facts.float_weights == 4
    assert facts.parameters == 112
    assert facts.weights_bytes_by_bits == {8: 108, 32: 16}
    assert [op.name for op in facts.graph] == ["Conv", "Relu"]
    assert set(facts.tensor_bytes) == {"x", "c", "y"}
    assert facts.asymmetric_tensors == 0
    assert read_facts("onnx", convolution(nodes, constants | {"z": np.full(4, 3, np.int8)})).asymmetric_tensors == 1


def test_weights_in_other_files_are_refused():
    loaded = onnx.load_model_from_string(convolution([CONV, RELU], {"w": WEIGHT, "b": BIAS}))
    loaded.graph.initializer[0].data_location = TensorProto.EXTERNAL
    with pytest.raises(DecodeError, match="one file that holds its weights"):
        read_facts("onnx", loaded.SerializeToString())


def test_a_constant_that_holds_less_than_its_shape_says_is_named():
    short = numpy_helper.from_array(np.ones((6, 3), np.float32), "w")
    short.raw_data = short.raw_data[:-4]
    with pytest.raises(DecodeError, match="numbers that fill the constant 'w'"):
        read_facts("onnx", product((1, 6), constants=(short,)))


def test_what_a_forest_has_learned_is_in_its_attributes():
    facts = read_facts("onnx", forest_onnx())
    # Five thresholds and the weights of three leaves.
    assert (facts.parameters, facts.weights_bytes, facts.weights_bytes_by_bits) == (8, 32, {32: 32})
    assert facts.float_weights == 0
