"""What is read from the reference models of MLPerf Tiny (mlcommons/tiny 1afd2c9), number by number."""

import numpy as np
import pytest

pytest.importorskip("ai_edge_litert")

from hedgerow.compile.inspection.model import read_facts
from hedgerow.errors import DecodeError

pytestmark = pytest.mark.heavy

# file -> parameters, multiply-accumulates, bytes; sizes as in the repository.
TABLE = {
    "pretrainedResnet.tflite": (77_706, 12_501_632, 318_144),
    "pretrainedResnet_quant.tflite": (77_706, 12_501_632, 98_496),
    "kws_ref_model_float32.tflite": (22_604, 2_656_768, 43_392),
    "kws_ref_model_int8.tflite": (22_604, 2_656_768, 53_936),
    "vww_96_float.tflite": (210_850, 7_489_664, 866_284),
    "vww_96_int8.tflite": (210_850, 7_489_664, 333_288),
    "ad01_fp32.tflite": (265_864, 264_192, 1_067_648),
    "ad01_int8.tflite": (265_864, 264_192, 276_976),
    "str_ww_ref_model.tflite": (46_883, 826_368, 74_520),
}


@pytest.mark.parametrize("name", sorted(TABLE))
def test_parameters_and_multiplications_are_exactly_those_of_the_table(name, mlperf_tiny):
    content = (mlperf_tiny / name).read_bytes()
    facts = read_facts("tflite", content)
    assert (facts.parameters, facts.macs, len(content)) == TABLE[name]


@pytest.mark.parametrize("name", sorted(TABLE))
def test_every_tensor_of_the_graph_has_a_size_and_a_producer(name, mlperf_tiny):
    facts = read_facts("tflite", (mlperf_tiny / name).read_bytes())
    made = set(facts.inputs)
    for operator in facts.graph:
        assert set(operator.inputs) <= made
        made |= set(operator.outputs)
    assert set(facts.outputs) <= made <= set(facts.tensor_bytes)


def test_an_integer_model_has_no_float_tensor_and_a_float_one_no_quantized_weight(mlperf_tiny):
    integer = read_facts("tflite", (mlperf_tiny / "pretrainedResnet_quant.tflite").read_bytes())
    assert integer.float_tensors == 0
    assert integer.border_types == {"int8"}
    assert integer.quantized_share == 1
    assert integer.weights_bytes_by_bits == {8: 77_360}
    assert integer.operator_versions["CONV_2D"] == 3
    floating = read_facts("tflite", (mlperf_tiny / "pretrainedResnet.tflite").read_bytes())
    assert floating.weights_bytes == 4 * 77_706
    assert floating.quantized_share == 0
    assert floating.float_tensors > 0
    assert not floating.has_nan
    assert not floating.dynamic_shapes


def test_a_file_that_calls_itself_float_and_is_not_is_seen(mlperf_tiny):
    """22,604 float weights need 90 kB; this file has 43 kB, because most of its weights are int8."""
    facts = read_facts("tflite", (mlperf_tiny / "kws_ref_model_float32.tflite").read_bytes())
    assert facts.border_types == {"float32"}
    assert facts.quantized_share > 0.8


@pytest.mark.parametrize("length", [0, 7, 8, 100, 5000])
def test_a_file_that_is_cut_off_is_no_tflite_file(length, mlperf_tiny):
    content = (mlperf_tiny / "ad01_int8.tflite").read_bytes()[:length]
    with pytest.raises(DecodeError):
        read_facts("tflite", content)


def test_a_damaged_file_is_read_or_refused_and_nothing_else(mlperf_tiny):
    good = (mlperf_tiny / "str_ww_ref_model.tflite").read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(100):
        content = bytearray(good)
        # The tables are behind the weights.
        for place in rng.integers(len(content) - 12_000, len(content), rng.integers(1, 12)):
            content[place] = rng.integers(0, 256)
        try:
            read_facts("tflite", bytes(content))
        except DecodeError:
            refused += 1
    assert refused > 20
