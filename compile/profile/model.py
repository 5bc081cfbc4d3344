"""A model's profile for a target: counted from the file, costed with the target's first-order model.

What cannot be counted, because a size is open, and what no one has checked, such as the time on an accelerator that
nothing here has, is not known. A model of the cost stands for CPUs alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hedgerow.compile.inspection.facts import FileFacts
from hedgerow.compile.profile.memory import lifetimes, peak_bytes
from hedgerow.hardware.cost import Workload, estimate_cost
from hedgerow.hardware.target import Target

if TYPE_CHECKING:
    from hedgerow.compile.arena import Arena

__all__ = ["COST_DIGITS", "NO_ARENA", "Profile", "profile_model", "unknown_sizes", "workload"]

NO_ARENA = "nothing measured the arena"

COST_DIGITS = 6
"""Decimals of modelled milliseconds and millijoules."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What one prediction asks of a target. What is not known is None.

    Attributes:
        parameters: Weights and biases, by count.
        macs: Multiply-accumulates.
        moved_bytes: Weights read, activations read and written.
        peak_memory_bytes: Activations that live at once; for a target with an arena, the smallest arena that works.
        target_latency_ms, target_energy_mj: By the target's first-order model.
        error_factor: That model's stated error: the truth lies between its number divided and multiplied by this.
        not_run: Check -> why nothing is known for it.
    """

    parameters: int
    macs: int | None
    moved_bytes: int | None
    peak_memory_bytes: int | None
    target_latency_ms: float | None
    target_energy_mj: float | None
    error_factor: float | None
    not_run: Mapping[str, str] = field(default_factory=dict)

    def metrics(self) -> dict[str, float]:
        """Return this as an artifact's metrics; what is not known is absent."""
        found = {
            "parameters": self.parameters,
            "macs": self.macs,
            "moved_bytes": self.moved_bytes,
            "peak_memory_bytes": self.peak_memory_bytes,
            "target_latency_ms": self.target_latency_ms,
            "target_energy_mj": self.target_energy_mj,
            "target_error_factor": self.error_factor,
        }
        return {name: float(value) for name, value in found.items() if value is not None}


def workload(facts: FileFacts) -> Workload | None:
    """Return what one prediction computes and moves, or None where a size is open."""
    if facts.macs is None:
        return None
    sizes = facts.tensor_bytes
    moved = sum(sizes.get(name, 0) for operator in facts.graph for name in (*operator.inputs, *operator.outputs))
    return Workload(macs=facts.macs, moved_bytes=facts.weights_bytes + moved, number_type=_number_type(facts))


def _number_type(facts: FileFacts) -> str:
    """Return the type of the multiplications, by which operators stand around them."""
    if facts.quantized_share < 0.2:
        return "float16" if "float16" in facts.number_types and "float32" not in facts.number_types else "float32"
    names = facts.operators
    if any(name.startswith("constexpr") for name in names) and "quantize" not in names:
        return "float16"  # Core ML widens compressed weights before it computes
    quantizing = {"QuantizeLinear", "DynamicQuantizeLinear", "QUANTIZE", "quantize"} & names
    if quantizing or facts.float_tensors <= 2:
        return "int8"
    widening = {"DequantizeLinear", "DEQUANTIZE", "com.microsoft.MatMulNBits"} & names
    return "float32" if widening else "int8"


def profile_model(facts: FileFacts, target: Target, arena: "Arena | str" = NO_ARENA) -> Profile:
    """Return the profile of a file on *target*.

    Args:
        facts: Read from the file.
        target: What runs it.
        arena: For a target with an arena: the smallest one that works, or why nobody knows it.
    """
    work, not_run = workload(facts), {}
    memory: int | None = None
    if target.arena_bytes is not None:
        if isinstance(arena, str):
            not_run["memory"] = arena
        else:
            memory = arena.bytes
    elif facts.open_sizes:
        not_run["memory"] = unknown_sizes(facts)
    else:
        memory = peak_bytes(lifetimes(facts))
    cost = None
    if not target.is_modelled:
        not_run["latency"] = (
            f"nothing has run on the accelerator ({target.accelerator}), so its latency and energy are not known"
        )
    elif work is None:
        not_run["latency"] = unknown_sizes(facts)
    else:
        cost = estimate_cost(target, work)
    return Profile(
        parameters=facts.parameters,
        macs=work.macs if work else None,
        moved_bytes=work.moved_bytes if work else None,
        peak_memory_bytes=memory,
        target_latency_ms=round(cost.latency_ms, COST_DIGITS) if cost else None,
        target_energy_mj=round(cost.energy_mj, COST_DIGITS) if cost else None,
        error_factor=target.cost.error_factor if cost else None,
        not_run=not_run,
    )


def unknown_sizes(facts: FileFacts) -> str:
    """Return why nothing can be counted of a file with open sizes."""
    return f"unknown, because the file leaves open {' and '.join(facts.open_sizes)}"
