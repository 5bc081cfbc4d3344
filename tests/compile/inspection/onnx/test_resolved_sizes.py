"""Sizes that ONNX's own inference loses are those of a run on zeros."""

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
from onnx import helper, numpy_helper  # noqa: E402 - needs onnx

from hedgerow.compile.inspection.model import read_facts  # noqa: E402
from tests.compile.foreign_models import forest_onnx, recurrent_onnx  # noqa: E402
from tests.compile.inspection.onnx.files import SQUARE, product  # noqa: E402

pytestmark = pytest.mark.heavy


def flattened(taken) -> bytes:
    """Return a product behind ``x.view(x.shape[0], -1)``, as torch's older exporter writes it."""
    nodes = [
        helper.make_node("Shape", ["x"], ["sizes"]),
        helper.make_node("Slice", ["sizes", "zero", "one"], ["batch"]),
        helper.make_node("Concat", ["batch", "rest"], ["wanted"], axis=0),
        helper.make_node("Reshape", ["x", "wanted"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["y"]),
    ]
    constants = {
        "zero": np.array([0], np.int64),
        "one": np.array([1], np.int64),
        "rest": np.array([-1], np.int64),
        "w": np.ones((6, 3), np.float32),
    }
    return product(taken, nodes, [numpy_helper.from_array(value, name) for name, value in constants.items()])


@pytest.mark.parametrize(("taken", "shapes"), [((1, 2, 3), {}), (("n", 2, 3), {"x": (1, 2, 3)})])
def test_what_is_reshaped_by_computed_sizes_is_counted(taken, shapes):
    facts = read_facts("onnx", flattened(taken), shapes)
    assert (facts.open_sizes, facts.macs) == ((), 18)
    assert (facts.tensor_bytes["flat"], facts.tensor_bytes["y"]) == (24, 12)


def test_an_open_input_stays_unknown():
    facts = read_facts("onnx", flattened(("n", 2, 3)))
    assert (facts.open_sizes, facts.macs) == (("the dimension 'n' of the input 'x'",), None)


def test_a_forest_has_the_memory_of_what_it_gives():
    facts = read_facts("onnx", forest_onnx(), {"x": (1, 128)})
    assert facts.open_sizes == ()
    assert facts.tensor_bytes == {"x": 4 * 128, "label": 8, "probabilities": 12}


def of_domain(domain: str, *nodes, constants=(SQUARE,)) -> bytes:
    content = onnx.load_model_from_string(product((1, 6), list(nodes), constants))
    content.opset_import.append(helper.make_opsetid(domain, 1))
    return content.SerializeToString()


def test_operators_of_onnx_runtimes_own_domain_are_counted():
    node = helper.make_node("FusedMatMul", ["x", "w"], ["y"], domain="com.microsoft")
    facts = read_facts("onnx", of_domain("com.microsoft", node))
    assert (facts.open_sizes, facts.macs, facts.parameters) == ((), 18, 18)
    assert facts.tensor_bytes == {"x": 24, "y": 12}


def test_a_product_of_integers_of_onnx_runtimes_own_domain_is_counted():
    constants = {
        "s": np.array(0.1, np.float32),
        "z": np.array(0, np.uint8),
        "w": np.ones((6, 3), np.uint8),
        "b": np.ones(3, np.int32),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("QGemm", ["q", "s", "z", "w", "s", "z", "b", "s", "z"], ["m"], domain="com.microsoft"),
        helper.make_node("DequantizeLinear", ["m", "s", "z"], ["y"]),
    ]
    tensors = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    facts = read_facts("onnx", of_domain("com.microsoft", *nodes, constants=tensors))
    assert (facts.open_sizes, facts.macs, facts.parameters) == ((), 18, 21)
    assert facts.tensor_bytes == {"x": 24, "q": 6, "m": 3, "y": 12}


def test_a_size_that_depends_on_values_stays_unknown():
    nodes = [helper.make_node("NonZero", ["x"], ["n"]), helper.make_node("Cast", ["n"], ["y"], to=1)]
    assert read_facts("onnx", product((1, 6), nodes, ())).open_sizes == ("the output 'n' of the operator NonZero",)


def test_what_onnx_runtime_does_not_run_stays_unknown():
    content = of_domain("of.nobody", helper.make_node("Nothing", ["x"], ["y"], domain="of.nobody"))
    assert read_facts("onnx", content).open_sizes == ("the output 'y' of the operator Nothing",)


def test_a_weight_behind_an_operator_that_onnx_does_not_know_has_a_size():
    constants = {"s": np.array(0.1, np.float32), "z": np.array(0, np.int16), "w16": np.ones((6, 3), np.int16)}
    nodes = [
        helper.make_node("DequantizeLinear", ["w16", "s", "z"], ["w"], domain="com.microsoft"),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
    ]
    tensors = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    facts = read_facts("onnx", of_domain("com.microsoft", *nodes, constants=tensors))
    assert (facts.open_sizes, facts.macs, facts.parameters) == ((), 18, 18)


def test_a_list_of_dictionaries_has_no_size_and_hides_no_other():
    model = onnx.load_model_from_string(forest_onnx())
    zipped = helper.make_node("ZipMap", ["probabilities"], ["maps"], domain="ai.onnx.ml", classlabels_int64s=[0, 1, 2])
    model.graph.node.append(zipped)
    kind = helper.make_map_type_proto(onnx.TensorProto.INT64, helper.make_tensor_type_proto(1, ()))
    model.graph.output[1].CopyFrom(helper.make_value_info("maps", helper.make_sequence_type_proto(kind)))
    facts = read_facts("onnx", model.SerializeToString(), {"x": (1, 128)})
    assert facts.open_sizes == ()
    assert facts.tensor_bytes == {"x": 4 * 128, "label": 8, "probabilities": 12}


def test_classes_that_are_text_have_a_shape_and_are_no_number_type():
    model = onnx.load_model_from_string(forest_onnx())
    [node] = model.graph.node
    [labels] = [place for place, each in enumerate(node.attribute) if each.name == "classlabels_int64s"]
    del node.attribute[labels]
    node.attribute.append(helper.make_attribute("classlabels_strings", ["a", "b", "c"]))
    model.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.STRING
    facts = read_facts("onnx", model.SerializeToString(), {"x": (1, 128)})
    assert facts.open_sizes == ()
    assert facts.number_types == {"float32"}


def test_a_file_whose_sizes_are_known_is_not_run(monkeypatch):
    from hedgerow.compile.runners import onnx as runner

    monkeypatch.setattr(runner, "open_session", None)
    assert read_facts("onnx", recurrent_onnx()).open_sizes == ()
