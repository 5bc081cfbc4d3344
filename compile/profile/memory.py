"""Peak activation memory, from how long each tensor lives: what a runtime with a perfect allocator needs.

The arena of TensorFlow Lite Micro is never derived: it is found by its own interpreter (:mod:`hedgerow.compile.arena`).
"""

from dataclasses import dataclass

from hedgerow.compile.inspection.facts import FileFacts

__all__ = ["Lifetime", "lifetimes", "peak_bytes"]


@dataclass(frozen=True, slots=True, order=True)
class Lifetime:
    """When a tensor must be in memory.

    Attributes:
        size_bytes: Of the tensor, unaligned.
        first, last: Places of operators in execution order, both included; -1 before the first one.
        name: Of the tensor.
    """

    size_bytes: int
    first: int
    last: int
    name: str


def lifetimes(facts: FileFacts) -> tuple[Lifetime, ...]:
    """Return the lifetime of every tensor that is no constant, largest first."""
    first: dict[str, int] = dict.fromkeys(facts.inputs, 0)
    last: dict[str, int] = dict.fromkeys(facts.inputs, 0)
    for place, operator in enumerate(facts.graph):
        for name in operator.outputs:
            first.setdefault(name, place)
            last[name] = max(place, last.get(name, place))
        for name in operator.inputs:
            first.setdefault(name, 0)
            last[name] = place
    for name in facts.outputs:
        first.setdefault(name, 0)
        last[name] = len(facts.graph) - 1
    found = [
        Lifetime(facts.tensor_bytes[name], first[name], last[name], name)
        for name in first
        if name in facts.tensor_bytes
    ]
    return tuple(sorted(found, key=lambda life: (-life.size_bytes, life.first, life.name)))


def peak_bytes(lives: tuple[Lifetime, ...]) -> int:
    """Return the most bytes that live during any one operator."""
    steps = max((life.last for life in lives), default=-1) + 1
    change = [0] * (steps + 1)
    for life in lives:
        change[max(0, life.first)] += life.size_bytes
        change[life.last + 1] -= life.size_bytes
    peak = now = 0
    for step in change[:steps]:
        now += step
        peak = max(peak, now)
    return peak
