"""A size that an ONNX file leaves open is unknown, with the place that leaves it open; it is never 1 or 0."""

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402 - needs onnx

from hedgerow.compile.errors import InputShapeError  # noqa: E402
from hedgerow.compile.inspection.model import read_facts  # noqa: E402
from hedgerow.errors import DecodeError  # noqa: E402
from tests.compile.inspection.onnx.files import product  # noqa: E402

pytestmark = pytest.mark.heavy


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
    facts = read_facts("onnx", product(taken))
    assert facts.open_sizes == (named,)
    assert facts.macs is None
    assert facts.tensor_bytes == {}


def test_a_given_shape_makes_it_known_for_that_shape():
    facts = read_facts("onnx", product((1, "time", 6)), {"x": (1, 50, 6)})
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
        read_facts("onnx", product((1, "time", 6)), shapes)


def test_a_size_that_depends_on_values_is_named_by_its_operator():
    nodes = [helper.make_node("NonZero", ["x"], ["n"]), helper.make_node("Cast", ["n"], ["y"], to=TensorProto.FLOAT)]
    facts = read_facts("onnx", product((1, 6), nodes, ()))
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
    facts = read_facts("onnx", product((1, 6), nodes, constants))
    assert facts.open_sizes == ("what the operator Loop runs inside",)
    assert facts.macs is None


def test_a_damaged_onnx_file_is_read_or_refused_and_nothing_else():
    good = product(("batch", 6))
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
