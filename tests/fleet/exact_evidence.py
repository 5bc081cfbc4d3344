"""The e-process of docs/statistics.md with 50 digits, by its definition: what the gate's figures must agree with.

It shares no line with ``fleet/rollout/confidence.py`` but the 24 stakes, which are written out again.
"""

import math
from decimal import Context, Decimal, localcontext

__all__ = ["bounds", "log_evidence"]

_DIGITS = Context(prec=50)
STAKES = [Decimal(0.004 * (0.98 / 0.004) ** (number / 23)) for number in range(24)]


def log_evidence(counts, mean, values=(0, 1)) -> float:
    """Return the logarithm of the mean capital of 24 gamblers who bet against "the mean is at most *mean*"."""
    with localcontext(_DIGITS):
        mean = Decimal(mean)
        capital = sum(
            math.prod(
                (1 - stake + stake * Decimal(value) / mean) ** count
                for value, count in zip(values, counts, strict=True)
            )
            for stake in STAKES
        )
        return float((capital / len(STAKES)).ln())


def bounds(counts, alpha, values=(0, 1)) -> tuple[float, float]:
    """Return the means that are not refuted, to 1e-5."""
    mirrored = [1 - value for value in values]
    return _lowest(counts, alpha, values), 1 - _lowest(counts, alpha, mirrored)


def _lowest(counts, alpha, values) -> float:
    refuted, held = 0.0, 1.0
    while held - refuted > 1e-5:
        middle = (refuted + held) / 2
        if log_evidence(counts, middle, values) >= math.log(1 / alpha):
            refuted = middle
        else:
            held = middle
    return refuted
