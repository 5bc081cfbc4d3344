import numpy as np
import pytest

onnx = pytest.importorskip("onnx")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402 - needs onnx

from hedgerow.compile.inspection.model import format_of, read_facts  # noqa: E402
from hedgerow.errors import DecodeError  # noqa: E402

pytestmark = pytest.mark.heavy


def model(nodes, constants, *, taken=("batch", 3, 8, 8), given=("batch", 4, 8, 8)) -> bytes:
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, taken)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, given)],
        [numpy_helper.from_array(values, name) for name, values in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString()


WEIGHT = np.ones((4, 3, 3, 3), np.float32)
CONV = helper.make_node("Conv", ["x", "w", "b"], ["c"], pads=[1, 1, 1, 1])
RELU = helper.make_node("Relu", ["c"], ["y"])
BIAS = np.zeros(4, np.float32)


def test_a_float_convolution_is_counted_for_one_sample():
    content = model([CONV, RELU], {"w": WEIGHT, "b": BIAS})
    facts = read_facts(format_of(content), content, {"x": (1, 3, 8, 8)})
    assert facts.macs == 4 * 8 * 8 * 3 * 3 * 3
    assert facts.parameters == 4 * 27 + 4
    assert facts.weights_bytes_by_bits == {32: 4 * (4 * 27 + 4)}
    assert facts.tensor_bytes == {"x": 768, "c": 1024, "y": 1024}
    assert [(op.name, op.inputs, op.outputs) for op in facts.graph] == [
        ("Conv", ("x",), ("c",)),
        ("Relu", ("c",), ("y",)),
    ]
    assert facts.operator_versions == {"Conv": 17, "Relu": 17}
    assert (facts.inputs, facts.outputs) == (("x",), ("y",))
    assert not facts.dynamic_shapes


def test_a_dimension_other_than_the_batch_that_is_open_is_dynamic():
    content = model([CONV, RELU], {"w": WEIGHT, "b": BIAS}, taken=(1, 3, "h", 8), given=(1, 4, "h", 8))
    assert read_facts("onnx", content).dynamic_shapes


@pytest.mark.parametrize(("number", "broken"), [(np.nan, True), (np.inf, True), (-np.inf, False), (1.0, False)])
def test_nan_and_infinity_are_found_but_minus_infinity_is_a_mask(number, broken):
    bias = np.array([number, 0, 0, 0], np.float32)
    assert read_facts("onnx", model([CONV, RELU], {"w": WEIGHT, "b": bias})).has_nan is broken


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
    facts = read_facts("onnx", model(nodes, constants), {"x": (1, 3, 8, 8)})
    assert facts.quantized_weights == 108
    assert facts.float_weights == 4
    assert facts.parameters == 112
    assert facts.weights_bytes_by_bits == {8: 108, 32: 16}
    assert [op.name for op in facts.graph] == ["Conv", "Relu"]
    assert set(facts.tensor_bytes) == {"x", "c", "y"}
    assert facts.asymmetric_tensors == 0
    assert read_facts("onnx", model(nodes, constants | {"z": np.full(4, 3, np.int8)})).asymmetric_tensors == 1


@pytest.mark.parametrize("content", [b"", b"\x08\x01", b"not a model at all", b"\xff" * 100])
def test_other_bytes_are_no_onnx_file(content):
    with pytest.raises(DecodeError):
        read_facts("onnx", content)


def test_weights_in_other_files_are_refused():
    loaded = onnx.load_model_from_string(model([CONV, RELU], {"w": WEIGHT, "b": BIAS}))
    loaded.graph.initializer[0].data_location = TensorProto.EXTERNAL
    with pytest.raises(DecodeError, match="one file that holds its weights"):
        read_facts("onnx", loaded.SerializeToString())


def test_a_damaged_file_is_read_or_refused_and_nothing_else():
    good = model([CONV, RELU], {"w": WEIGHT, "b": BIAS})
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        content = bytearray(good)
        for place in rng.integers(0, len(content), rng.integers(1, 12)):
            content[place] = rng.integers(0, 256)
        try:
            read_facts("onnx", bytes(content[: rng.integers(1, len(content) + 1)]))
        except DecodeError:
            refused += 1
    assert refused > 100
