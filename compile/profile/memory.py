"""Peak activation memory, from how long each tensor lives.

Two numbers: the most bytes that live at once (what a runtime with a perfect allocator needs), and the arena of
TensorFlow Lite Micro, whose planner places buffers greedily by size (tflite-micro, ``memory_planner/
greedy_memory_planner.cc``) with 16-byte alignment.
"""

from dataclasses import dataclass

from hedgerow.compile.inspection.facts import FileFacts

__all__ = ["Lifetime", "arena_bytes", "lifetimes", "peak_bytes"]

_ALIGNMENT_BYTES = 16
_BYTES_PER_TENSOR, _BYTES_PER_OPERATOR, _FIXED_BYTES = 32, 96, 2048
"""First-order tail of the TFLM arena: TfLiteEvalTensor with its dims, node and kernel data, the interpreter's own."""


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


def arena_bytes(lives: tuple[Lifetime, ...], operators: int) -> int:
    """Return an estimate of TensorFlow Lite Micro's tensor arena.

    Args:
        lives: Largest first, as :func:`lifetimes` gives them.
        operators: How many the graph has.
    """
    placed: list[tuple[int, int, Lifetime]] = []
    for life in lives:
        size = -(-life.size_bytes // _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES
        offset = 0
        # The first gap between buffers that live at the same time, from the bottom up.
        for start, end, other in placed:
            if other.last < life.first or life.last < other.first:
                continue
            if start - offset >= size:
                break
            offset = max(offset, end)
        placed.append((offset, offset + size, life))
        placed.sort(key=lambda entry: entry[0])
    head = max((end for _start, end, _life in placed), default=0)
    return head + _FIXED_BYTES + _BYTES_PER_TENSOR * len(lives) + _BYTES_PER_OPERATOR * operators
