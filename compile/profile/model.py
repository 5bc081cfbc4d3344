"""A model's profile for a target: counted from the file, costed with the target's first-order model."""

from dataclasses import dataclass

from hedgerow.compile.inspection.facts import FileFacts
from hedgerow.compile.profile.memory import arena_bytes, lifetimes, peak_bytes
from hedgerow.hardware.cost import Workload, estimate_cost
from hedgerow.hardware.target import Target

__all__ = ["COST_DIGITS", "Profile", "profile_model", "workload"]

COST_DIGITS = 6
"""Decimals of modelled milliseconds and millijoules."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What one prediction asks of a target.

    Attributes:
        parameters: Weights and biases, by count.
        macs: Multiply-accumulates.
        moved_bytes: Weights read, activations read and written.
        peak_memory_bytes: Activations that live at once; for a target with an arena, the arena.
        target_latency_ms, target_energy_mj: By the target's first-order model.
        error_factor: That model's stated error: the truth lies between its number divided and multiplied by this.
    """

    parameters: int
    macs: int
    moved_bytes: int
    peak_memory_bytes: int
    target_latency_ms: float
    target_energy_mj: float
    error_factor: float

    def metrics(self) -> dict[str, float]:
        """Return this as an artifact's metrics."""
        return {
            "parameters": float(self.parameters),
            "macs": float(self.macs),
            "moved_bytes": float(self.moved_bytes),
            "peak_memory_bytes": float(self.peak_memory_bytes),
            "target_latency_ms": self.target_latency_ms,
            "target_energy_mj": self.target_energy_mj,
            "target_error_factor": self.error_factor,
        }


def workload(facts: FileFacts) -> Workload:
    """Return what one prediction computes and moves."""
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
    widening = {"DequantizeLinear", "DEQUANTIZE", "MatMulNBits"} & names
    return "float32" if widening else "int8"


def profile_model(facts: FileFacts, target: Target) -> Profile:
    """Return the profile of a file on *target*."""
    lives, work = lifetimes(facts), workload(facts)
    cost = estimate_cost(target, work)
    memory = peak_bytes(lives) if target.arena_bytes is None else arena_bytes(lives, len(facts.graph))
    return Profile(
        parameters=facts.parameters,
        macs=work.macs,
        moved_bytes=work.moved_bytes,
        peak_memory_bytes=memory,
        target_latency_ms=round(cost.latency_ms, COST_DIGITS),
        target_energy_mj=round(cost.energy_mj, COST_DIGITS),
        error_factor=target.cost.error_factor,
    )
