"""How long one prediction takes on the machine that compiles: one thread, one sample, a bounded time."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from hedgerow.decode import Fields

__all__ = ["HostLatency", "measure_latency"]

BUDGET_S = 0.1
MINIMUM_RUNS, MAXIMUM_RUNS = 3, 200


@dataclass(frozen=True, slots=True)
class HostLatency:
    """Latency of single predictions on this machine.

    Attributes:
        p50_ms, p99_ms: Median and 99th percentile (nearest rank), in milliseconds.
        runs: How many predictions were timed.
    """

    p50_ms: float
    p99_ms: float
    runs: int

    def to_record(self) -> dict[str, float]:
        """Return this as plain JSON values."""
        return {"p50_ms": self.p50_ms, "p99_ms": self.p99_ms, "runs": self.runs}

    @classmethod
    def from_fields(cls, fields: Fields) -> "HostLatency":
        """Decode a latency."""
        latency = cls(fields.number("p50_ms"), fields.number("p99_ms"), fields.integer("runs"))
        fields.finish()
        return latency


def measure_latency(
    predict: Callable[[], object], clock: Callable[[], float], *, budget_s: float = BUDGET_S
) -> HostLatency:
    """Time single predictions after one that is not counted.

    Args:
        predict: Makes one prediction for one sample.
        clock: Seconds, monotonic.
        budget_s: Stop when it is spent, though not before :data:`MINIMUM_RUNS` predictions.
    """
    predict()
    taken: list[float] = []
    begun = clock()
    while len(taken) < MINIMUM_RUNS or (len(taken) < MAXIMUM_RUNS and clock() - begun < budget_s):
        before = clock()
        predict()
        taken.append((clock() - before) * 1e3)
    taken.sort()
    return HostLatency(_rank(taken, 0.5), _rank(taken, 0.99), len(taken))


def _rank(values: list[float], share: float) -> float:
    return round(values[max(0, math.ceil(share * len(values)) - 1)], 4)
