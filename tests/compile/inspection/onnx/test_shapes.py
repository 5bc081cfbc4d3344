"""A size that a file leaves open is unknown, with the place that leaves it open; it is never 1 or 0."""

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402 - needs onnx

from hedgerow.compile.errors import InputShapeError  # noqa: E402
from hedgerow.compile.inspection.model import read_facts  # noqa: E402
from hedgerow.errors import DecodeError  # noqa: E402

pytestmark = pytest.mark.heavy

WEIGHT = numpy_helper.from_array(np.ones((6, 3), np.float32), "w")


def model(taken, nodes=None, constants=(WEIGHT,), *, given=None) -> bytes:
    graph = helper.make_graph(
        nodes or [helper.make_node("MatMul", ["x", "w"], ["m"]), helper.make_node("Softmax", ["m"], ["y"])],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, taken)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, given)],
        list(constants),
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


@pytest.mark.parametrize(
    ("taken", "named"),
    [
        (("batch", 6), "the dimension 'batch' of the input 'x'"),
        ((1, "time", 6), "the dimension 'time' of the input 'x'"),
        ((None, 6), "the dimension 0 of the input 'x'"),
        ((-1, 6), "the dimension 0 of the input 'x'"),
        ((1, 0, 6), "the dimension 1 of the input 'x'"),
    ],
)
def test_an_open_dimension_of_an_onnx_file_leaves_everything_that_follows_unknown(taken, named):
    facts = read_facts("onnx", model(taken))
    assert facts.open_sizes == (named,)
    assert facts.macs is None
    assert facts.tensor_bytes == {}


def test_a_given_shape_makes_it_known_for_that_shape():
    facts = read_facts("onnx", model((1, "time", 6)), {"x": (1, 50, 6)})
    assert facts.open_sizes == ()
    assert facts.macs == 50 * 6 * 3
    assert facts.tensor_bytes == {"x": 4 * 300, "m": 4 * 150, "y": 4 * 150}
    # The file itself still leaves it open, and targets that need fixed shapes refuse it.
    assert facts.dynamic_shapes


@pytest.mark.parametrize(
    ("shapes", "said"),
    [
        ({"z": (1, 6)}, "'z': expected an input among x, found no such input"),
        ({"x": (1, 6)}, "'x': expected the sizes 1, open, 6, found 1, 6"),
        ({"x": (1, 50, 7)}, "'x': expected the sizes 1, open, 6, found 1, 50, 7"),
    ],
)
def test_a_shape_that_does_not_fit_is_refused(shapes, said):
    with pytest.raises(InputShapeError, match=said):
        read_facts("onnx", model((1, "time", 6)), shapes)


def test_a_size_that_depends_on_values_is_named_by_its_operator():
    nodes = [helper.make_node("NonZero", ["x"], ["n"]), helper.make_node("Cast", ["n"], ["y"], to=TensorProto.FLOAT)]
    facts = read_facts("onnx", model((1, 6), nodes, ()))
    assert facts.open_sizes == ("the output 'n' of the operator NonZero",)
    assert facts.macs is None


def test_what_a_loop_runs_inside_is_unknown():
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["going"], ["goes"]),
            helper.make_node("MatMul", ["a", "square"], ["b"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, ()),
            helper.make_tensor_value_info("going", TensorProto.BOOL, ()),
            helper.make_tensor_value_info("a", TensorProto.FLOAT, (1, 6)),
        ],
        [
            helper.make_tensor_value_info("goes", TensorProto.BOOL, ()),
            helper.make_tensor_value_info("b", TensorProto.FLOAT, (1, 6)),
        ],
    )
    constants = [
        numpy_helper.from_array(np.ones((6, 6), np.float32), "square"),
        numpy_helper.from_array(np.array(10, np.int64), "times"),
        numpy_helper.from_array(np.array(True), "yes"),
    ]
    nodes = [helper.make_node("Loop", ["times", "yes", "x"], ["y"], body=body)]
    facts = read_facts("onnx", model((1, 6), nodes, constants))
    assert facts.open_sizes == ("what the operator Loop runs inside",)
    assert facts.macs is None


def test_a_product_with_packed_weights_has_a_shape_of_its_own():
    """Onnx itself does not know MatMulNBits; it is counted as the product that it is."""
    packed = numpy_helper.from_array(np.zeros((3, 1, 16), np.uint8), "w")
    scales = numpy_helper.from_array(np.ones(3, np.float32), "s")
    nodes = [helper.make_node("MatMulNBits", ["x", "w", "s"], ["y"], domain="com.microsoft", K=32, N=3, bits=4)]
    facts = read_facts("onnx", model((1, 32), nodes, (packed, scales)))
    assert (facts.open_sizes, facts.macs) == ((), 32 * 3)
    assert facts.tensor_bytes == {"x": 128, "y": 12}


@pytest.mark.parametrize(
    "nodes",
    [
        [helper.make_node("MatMul", ["x"], ["y"])],
        [helper.make_node("MatMul", ["x", "w"], [])],
        [helper.make_node("Conv", [], ["y"])],
    ],
)
def test_an_operator_without_what_it_needs_is_a_file_that_contradicts_itself(nodes):
    with pytest.raises(DecodeError, match="inputs and an output"):
        read_facts("onnx", model((1, 6), nodes))


def test_a_constant_that_holds_less_than_its_shape_says_is_named():
    short = numpy_helper.from_array(np.ones((6, 3), np.float32), "w")
    short.raw_data = short.raw_data[:-4]
    with pytest.raises(DecodeError, match="numbers that fill the constant 'w'"):
        read_facts("onnx", model((1, 6), constants=(short,)))


def test_a_name_that_is_no_text_is_refused():
    content = model((1, 6)).replace(b"MatMul", b"Mat\xba\xffl")
    with pytest.raises(DecodeError, match="names in UTF-8"):
        read_facts("onnx", content)


def test_a_damaged_onnx_file_is_read_or_refused_and_nothing_else():
    good = model(("batch", 6))
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        content = bytearray(good)
        for place in rng.integers(0, len(content), rng.integers(1, 8)):
            content[place] = rng.integers(0, 256)
        try:
            read_facts("onnx", bytes(content))
        except DecodeError:
            refused += 1
    assert refused > 30


@pytest.fixture(scope="session")
def opened(own_int8_file) -> bytes:
    """ResNet-8 with the height of its input left open."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    parsed = schema.ModelT.InitFromPackedBuf(own_int8_file, 0)
    graph = parsed.subgraphs[0]
    tensor = graph.tensors[graph.inputs[0]]
    tensor.shapeSignature = [int(size) for size in tensor.shape]
    tensor.shapeSignature[2] = -1
    builder = flatbuffers.Builder(1024)
    builder.Finish(parsed.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def test_an_open_dimension_of_a_tflite_file_is_unknown_and_the_size_in_its_place_means_nothing(opened, own_int8_file):
    assert read_facts("tflite", own_int8_file).open_sizes == ()
    facts = read_facts("tflite", opened)
    [named] = facts.open_sizes
    assert named.startswith("the dimension 2 of the input ")
    assert facts.macs is None


def test_a_given_shape_of_a_tflite_file_is_resolved_by_litert(opened, own_int8_file):
    wanted = read_facts("tflite", own_int8_file)
    [name] = [each.partition(":")[2] for each in wanted.inputs]
    facts = read_facts("tflite", opened, {name: (1, 3, 32, 32)})
    assert (facts.open_sizes, facts.macs) == ((), wanted.macs)
    assert facts.tensor_bytes == wanted.tensor_bytes
