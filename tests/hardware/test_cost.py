import pytest

from hedgerow.hardware.cost import Workload, estimate_cost
from hedgerow.hardware.lookup import load_target

TARGET = load_target("raspberry-pi-4")


def test_computing_bounds_a_dense_model():
    estimate = estimate_cost(TARGET, Workload(macs=6_000_000_000, moved_bytes=1000, number_type="int8"))
    assert estimate.bound == "compute"
    assert estimate.latency_ms == pytest.approx(1000.05)
    assert estimate.energy_mj == pytest.approx(1000.05 * 4)


def test_memory_bounds_a_model_that_reads_much_and_computes_little():
    estimate = estimate_cost(TARGET, Workload(macs=10, moved_bytes=3_000_000_000, number_type="int8"))
    assert estimate.bound == "memory"
    assert estimate.latency_ms == pytest.approx(1000.05)


def test_a_number_type_without_a_fast_path_runs_at_the_slowest_rate():
    slow = estimate_cost(TARGET, Workload(macs=3_000_000_000, moved_bytes=0, number_type="int16"))
    assert slow.latency_ms == pytest.approx(1000.05)


def test_an_empty_model_costs_the_overhead():
    assert estimate_cost(TARGET, Workload(macs=0, moved_bytes=0, number_type="float32")).latency_ms == 0.05


def test_a_negative_workload_is_a_bug_of_the_caller():
    with pytest.raises(ValueError, match="at least zero"):
        estimate_cost(TARGET, Workload(macs=-1, moved_bytes=0, number_type="int8"))
