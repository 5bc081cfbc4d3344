"""Which rows of a stacked cohort run in which steps: clients of unequal size, few shapes to trace. Pure.

Every batch is full, so clients differ only in their number of steps. Rows are sorted by it, the longest first: those
that still train are always the first ones. A client's result is taken at the end of its last step; from then on its row
is padding, whose content nobody reads.
"""

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Segment", "padded_rows", "plan_segments"]

_SMALLEST = 8
"""Fewer rows than this are not halved: a step costs as much whatever they are."""


@dataclass(frozen=True, slots=True)
class Segment:
    """Steps that run with the same rows.

    Attributes:
        first: Number of its first step, from 0.
        end: Number of the step after its last.
        rows: So many run, padding included.
        finished: The rows whose clients have taken their last step at its end.
    """

    first: int
    end: int
    rows: int
    finished: range


def padded_rows(clients: int) -> int:
    """Return how many rows a slice of *clients* gets: at most an eighth more, and eight sizes from 2^n to 2^(n+1).

    Cohorts that differ little in size so share one trace.
    """
    step = max(1, 1 << max(0, clients.bit_length() - 4))
    return -(-clients // step) * step


def plan_segments(steps: Sequence[int]) -> tuple[Segment, ...]:
    """Return the segments of one slice.

    Args:
        steps: Each row takes so many, at least 1, not rising.
    """
    segments = []
    rows, first, active = padded_rows(len(steps)), 0, len(steps)
    while active:
        end = steps[active - 1]
        left = active
        while left and steps[left - 1] == end:
            left -= 1
        while rows > _SMALLEST and -(-rows // 2) >= active:
            rows = -(-rows // 2)
        segments.append(Segment(first, end, rows, range(left, active)))
        first, active = end, left
    return tuple(segments)
