"""A first-order estimate of a model's latency and energy on a target.

The roofline model (Williams, Waterman, Patterson, CACM 52(4), 2009): a call takes as long as the slower of computing
and moving bytes, plus a constant. Energy is power times time. It ranks models for one device; it is not a
measurement, and nothing here reads a clock.
"""

from dataclasses import dataclass

from hedgerow.hardware.target import Target

__all__ = ["CostEstimate", "Workload", "estimate_cost"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What one prediction asks of the hardware.

    Attributes:
        macs: Multiply-accumulates.
        moved_bytes: Weights read plus activations written and read.
        number_type: Type of the multiplications, such as ``int8``.
    """

    macs: int
    moved_bytes: int
    number_type: str


@dataclass(frozen=True, slots=True)
class CostEstimate:
    """What one prediction costs, to first order.

    Attributes:
        latency_ms: Time of one prediction on one thread.
        energy_mj: Energy in millijoules.
        bound: ``compute`` or ``memory``, whichever takes longer.
    """

    latency_ms: float
    energy_mj: float
    bound: str


def estimate_cost(target: Target, work: Workload) -> CostEstimate:
    """Return what one prediction costs on *target*.

    A number type without a rate of its own runs at the slowest known rate: hardware that lacks a fast path converts.

    Raises:
        ValueError: The workload is negative.
    """
    if work.macs < 0 or work.moved_bytes < 0:
        raise ValueError(f"expected a workload of at least zero, found {work}")
    rates = target.cost.macs_per_s
    compute_s = work.macs / rates.get(work.number_type, min(rates.values()))
    memory_s = work.moved_bytes / target.cost.memory_bytes_per_s
    busy_s = max(compute_s, memory_s)
    latency_ms = busy_s * 1e3 + target.cost.overhead_ms
    return CostEstimate(
        latency_ms, latency_ms * target.cost.active_watts, "compute" if compute_s >= memory_s else "memory"
    )
