from dataclasses import replace

import pytest

from hedgerow.compile.arena import Arena
from hedgerow.compile.inspection.facts import FileFacts, OperatorFacts
from hedgerow.compile.profile.model import profile_model, workload
from hedgerow.hardware.cost import Workload, estimate_cost
from hedgerow.hardware.lookup import load_target, target_names

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


def test_a_microcontrollers_memory_is_the_arena_that_was_measured_and_nothing_else():
    arena = Arena(bytes=6784, kernels="reference", version="1", scratch_bytes=None, scratch_omitted="not covered")
    profile = profile_model(FACTS, load_target("cortex-m4"), arena)
    assert (profile.peak_memory_bytes, profile.not_run) == (6784, {})
    unmeasured = profile_model(FACTS, load_target("cortex-m4"), "nobody looked")
    assert (unmeasured.peak_memory_bytes, unmeasured.not_run) == (None, {"memory": "nobody looked"})
    assert "peak_memory_bytes" not in unmeasured.metrics()


@pytest.mark.parametrize("name", [n for n in target_names() if load_target(n).accelerator != "none"])
def test_the_latency_and_energy_of_an_accelerator_on_which_nothing_ran_are_not_known(name):
    profile = profile_model(FACTS, load_target(name))
    assert (profile.target_latency_ms, profile.target_energy_mj, profile.error_factor) == (None, None, None)
    accelerator = load_target(name).accelerator
    said = f"nothing has run on the accelerator ({accelerator}), so its latency and energy are not known"
    assert profile.not_run == {"latency": said}
    assert set(profile.metrics()) == {"parameters", "macs", "moved_bytes", "peak_memory_bytes"}


def test_a_file_with_an_open_size_has_no_memory_and_no_cost_and_says_which():
    opened = replace(FACTS, open_sizes=("the dimension 'n' of the input 'x'",))
    profile = profile_model(opened, load_target("raspberry-pi-4"))
    said = "unknown, because the file leaves open the dimension 'n' of the input 'x'"
    assert profile.not_run == {"memory": said, "latency": said}
    assert profile.metrics() == {"parameters": 900.0}
    assert workload(opened) is None


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({}, "int8"),
        ({"quantized_weights": 0}, "float32"),
        ({"quantized_weights": 0, "number_types": frozenset({"float16"})}, "float16"),
        ({"operators": frozenset({"CONV_2D", "DEQUANTIZE"})}, "float32"),
        ({"operators": frozenset({"CONV_2D"}), "float_tensors": 0}, "int8"),
        ({"operators": frozenset({"MatMul", "com.microsoft.MatMulNBits"})}, "float32"),
        ({"operators": frozenset({"DynamicQuantizeLinear", "MatMulInteger"})}, "int8"),
        ({"operators": frozenset({"constexpr_affine_dequantize", "conv"})}, "float16"),
    ],
)
def test_the_type_of_the_multiplications_is_read_from_the_operators_around_them(changes, kind):
    assert workload(replace(FACTS, **changes)).number_type == kind
