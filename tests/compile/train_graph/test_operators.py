"""Operators that a traced step holds whole become single operators of plain ONNX, and nothing of them in TFLite."""

import pytest

torch = pytest.importorskip("torch")

import onnx  # noqa: E402 - beside torch
from ai_edge_litert.interpreter import Interpreter  # noqa: E402

from hedgerow.compile.train_graph.cases import CASES, make_source  # noqa: E402
from hedgerow.compile.train_graph.export import export_train_graph  # noqa: E402
from hedgerow.compile.train_graph.operators import apart, positive  # noqa: E402
from hedgerow.compile.train_graph.step import trace_step  # noqa: E402

pytestmark = [
    pytest.mark.heavy,
    # torch and its exporter call deprecated parts of each other.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
CASE = CASES["batch norm 2d, train"]


def test_positive_is_one_above_zero_only():
    found = positive(torch.tensor([-1.0, 0.0, 1e-30, 2.0, 3e38]))
    assert found.tolist() == [0.0, 0.0, 1.0, 1.0, 1.0]


def test_onnx_has_each_as_one_standard_operator():
    model = onnx.load_from_string(export_train_graph(make_source(CASE), "onnx", CASE.options).content)
    names = [node.op_type for node in model.graph.node]
    assert {node.domain for node in model.graph.node} == {""}
    assert names.count("HardSigmoid") == 1
    assert names.count("BatchNormalization") == 2
    assert "Where" not in names


def test_two_exports_have_the_same_bytes():
    one, other = (export_train_graph(make_source(CASE), "onnx", CASE.options).content for _ in range(2))
    assert one == other


def test_tflites_positive_is_the_same():
    function = apart()[torch.ops.hedgerow.positive.default]
    assert function(torch.tensor([-1.0, 0.0, 1e-30, 2.0, 3e38])).tolist() == [0.0, 0.0, 1.0, 1.0, 1.0]


def test_xnnpack_takes_a_step_of_convolutions_in_few_parts():
    """A convolution whose kernel is an input would stand alone, in a slow kernel."""
    source = make_source(CASES["residual network"])
    content = export_train_graph(source, "tflite", CASES["residual network"].options).content
    interpreter = Interpreter(model_content=content, num_threads=1)
    interpreter.allocate_tensors()
    names = [detail["op_name"] for detail in interpreter._get_ops_details()]
    assert not {"CONV_2D", "SELECT_V2", "LESS_EQUAL", "STRIDED_SLICE"} & set(names)
    assert names.count("DELEGATE") <= 3


def test_a_step_for_tflite_holds_none():
    graph = trace_step(make_source(CASE), CASE.options, for_tflite=True).graph
    assert not [node for node in graph.graph.nodes if "hedgerow" in str(node.target)]
