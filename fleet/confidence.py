"""Confidence sequences for a share, from counts alone, valid however often one looks.

A usual 95 % interval holds at one look that was fixed beforehand; look after every batch and stop when you like what
you see, and it errs far more often. A confidence *sequence* covers the truth at all looks at once. This one is the
beta-binomial mixture: for ``s`` successes in ``n`` trials and a prior Beta(a, b), the ratio

    M(p) = B(a + s, b + n - s) / (B(a, b) * p^s * (1 - p)^(n - s))

is a nonnegative martingale of mean 1 at the true ``p``, so by Ville's inequality it ever reaches ``1/alpha`` with
probability at most ``alpha``. The sequence holds all ``p`` with ``M(p) < 1/alpha``. It assumes independent trials of
one probability; it does not repair correlated samples.

Sources: H. Robbins, Statistical methods related to the law of the iterated logarithm, Ann. Math. Stat. 41 (1970);
S. Howard, A. Ramdas, J. McAuliffe, J. Sekhon, Time-uniform, nonparametric, nonasymptotic confidence sequences, Ann.
Stat. 49 (2021); I. Waudby-Smith, A. Ramdas, Estimating means of bounded random variables by betting, JRSS B 86 (2024).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Interval", "confidence_sequence"]

_HALVINGS = 60


@dataclass(frozen=True, slots=True)
class Interval:
    """A closed interval of shares."""

    low: float
    high: float


def confidence_sequence(
    successes: int, trials: int, alpha: float, *, prior: tuple[float, float] = (0.5, 0.5)
) -> Interval:
    """Return the interval at this look; over all looks together it misses the truth with probability at most *alpha*.

    Args:
        successes: Trials that succeeded.
        trials: All trials so far; 0 gives the whole unit interval.
        alpha: Error probability, in (0, 1).
        prior: Beta parameters of the mixture. Any prior is valid; one that fits the truth gives narrower intervals.
            It must be fixed before the first trial.

    Raises:
        ValueError: The counts contradict each other, or *alpha* or *prior* is out of bounds.
    """
    if not 0 <= successes <= trials:
        raise ValueError(f"expected 0 <= successes <= trials, found {successes} of {trials}")
    if not 0 < alpha < 1 or min(prior) <= 0:
        raise ValueError(f"expected 0 < alpha < 1 and a positive prior, found {alpha} and {prior}")
    if trials == 0:
        return Interval(0.0, 1.0)
    failures = trials - successes
    # M(p) < 1/alpha  <=>  s log p + f log(1 - p) > bound; the left side is concave in p with its peak at s / n.
    bound = _log_beta(prior[0] + successes, prior[1] + failures) - _log_beta(*prior) + math.log(alpha)

    def inside(share: float) -> bool:
        return _power(successes, share) + _power(failures, 1 - share) > bound

    peak = successes / trials
    low = 0.0 if successes == 0 else _crossing(inside, peak, 0.0)
    high = 1.0 if failures == 0 else _crossing(inside, peak, 1.0)
    return Interval(low, high)


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


def _power(count: int, share: float) -> float:
    if count == 0:
        return 0.0
    return count * math.log(share) if share > 0 else -math.inf


def _crossing(inside: Callable[[float], bool], within: float, outside: float) -> float:
    """Return where *inside* turns false between two points, rounded outwards."""
    for _ in range(_HALVINGS):
        middle = (within + outside) / 2
        if inside(middle):
            within = middle
        else:
            outside = middle
    return outside
