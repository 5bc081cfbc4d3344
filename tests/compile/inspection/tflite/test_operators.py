"""What an operator of a TFLite file has learned, and how much it computes."""

import numpy as np
import pytest

pytest.importorskip("ai_edge_litert")

from tools.operator_tables.tflite_model import TfliteModel

from hedgerow.compile.inspection.model import read_facts

pytestmark = pytest.mark.heavy


def half() -> bytes:
    """Return a product with weights in float16 behind a DEQUANTIZE, as TFLite's float16 files have them."""
    model = TfliteModel()
    graph = model.graph()
    taken, given = graph.tensor("FLOAT32", (1, 6)), graph.tensor("FLOAT32", (1, 3))
    stored = graph.tensor("FLOAT16", (3, 6), data=np.ones((3, 6), np.float16))
    weight = graph.tensor("FLOAT32", (3, 6))
    bias = graph.tensor("FLOAT32", (3,), data=np.zeros(3, np.float32))
    graph.operator("DEQUANTIZE", [stored], [weight])
    graph.operator("FULLY_CONNECTED", [taken, weight, bias], [given], options="FullyConnectedOptions")
    graph.record.inputs, graph.record.outputs = [taken], [given]
    return model.content()


def test_weights_behind_a_conversion_are_parameters():
    facts = read_facts("tflite", half())
    assert (facts.parameters, facts.macs) == (3 * 6 + 3, 18)
    assert facts.weights_bytes_by_bits == {16: 36, 32: 12}
