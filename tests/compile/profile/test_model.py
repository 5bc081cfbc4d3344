from dataclasses import replace

import pytest

from hedgerow.compile.inspection.facts import FileFacts, OperatorFacts
from hedgerow.compile.profile.model import profile_model, workload
from hedgerow.hardware.cost import Workload, estimate_cost
from hedgerow.hardware.target import load_target

FACTS = FileFacts(
    operators=frozenset({"CONV_2D", "QUANTIZE"}),
    number_types=frozenset({"float32", "int8"}),
    quantized_weights=90,
    float_weights=10,
    weights_bytes=1000,
    parameters=900,
    float_tensors=5,
    graph=(OperatorFacts(name="CONV_2D", version=1, inputs=("x",), outputs=("y",), macs=5000),),
    tensor_bytes={"x": 64, "y": 32},
    inputs=("x",),
    outputs=("y",),
)


def test_a_profile_counts_the_file_and_costs_it_by_the_targets_model():
    target = load_target("raspberry-pi-4")
    profile = profile_model(FACTS, target)
    assert (profile.parameters, profile.macs, profile.moved_bytes, profile.peak_memory_bytes) == (900, 5000, 1096, 96)
    cost = estimate_cost(target, Workload(macs=5000, moved_bytes=1096, number_type="int8"))
    assert profile.target_latency_ms == pytest.approx(cost.latency_ms, abs=1e-6)
    assert profile.error_factor == target.cost.error_factor
    assert profile.metrics()["macs"] == 5000.0


def test_a_microcontroller_needs_an_arena_and_no_less_than_the_tensors():
    assert profile_model(FACTS, load_target("cortex-m4")).peak_memory_bytes > 96


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({}, "int8"),
        ({"quantized_weights": 0}, "float32"),
        ({"quantized_weights": 0, "number_types": frozenset({"float16"})}, "float16"),
        ({"operators": frozenset({"CONV_2D", "DEQUANTIZE"})}, "float32"),
        ({"operators": frozenset({"CONV_2D"}), "float_tensors": 0}, "int8"),
        ({"operators": frozenset({"MatMul", "MatMulNBits"})}, "float32"),
        ({"operators": frozenset({"DynamicQuantizeLinear", "MatMulInteger"})}, "int8"),
        ({"operators": frozenset({"constexpr_affine_dequantize", "conv"})}, "float16"),
    ],
)
def test_the_type_of_the_multiplications_is_read_from_the_operators_around_them(changes, kind):
    assert workload(replace(FACTS, **changes)).number_type == kind
