import numpy as np
import pytest

onnx = pytest.importorskip("onnx")

from onnx import helper, numpy_helper  # noqa: E402 - needs onnx

from hedgerow.compile.inspection.model import read_facts  # noqa: E402
from hedgerow.errors import DecodeError  # noqa: E402
from tests.compile.inspection.onnx.files import product  # noqa: E402

pytestmark = pytest.mark.heavy


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
        read_facts("onnx", product((1, 6), nodes))


def test_a_product_with_packed_weights_has_a_shape_of_its_own():
    """Onnx itself does not know MatMulNBits; it is counted as the product that it is."""
    packed = numpy_helper.from_array(np.zeros((3, 1, 16), np.uint8), "w")
    scales = numpy_helper.from_array(np.ones(3, np.float32), "s")
    nodes = [helper.make_node("MatMulNBits", ["x", "w", "s"], ["y"], domain="com.microsoft", K=32, N=3, bits=4)]
    facts = read_facts("onnx", product((1, 32), nodes, (packed, scales)))
    assert (facts.open_sizes, facts.macs) == ((), 32 * 3)
    assert facts.tensor_bytes == {"x": 128, "y": 12}


@pytest.mark.parametrize("name", ["LinearClassifier", "SVMClassifier"])
def test_a_product_with_what_scikit_learn_has_learned_is_counted(name):
    learned = {
        "LinearClassifier": {"coefficients": [0.1] * 12},
        "SVMClassifier": {"support_vectors": [0.1] * 12, "coefficients": [0.5, 0.5]},
    }
    node = helper.make_node(name, ["x"], ["label", "y"], domain="ai.onnx.ml", **learned[name])
    model = onnx.load_model_from_string(product((5, 6), [node], ()))
    model.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))
    [operator] = read_facts("onnx", model.SerializeToString()).graph
    assert operator.macs == 5 * 12
