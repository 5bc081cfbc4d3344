"""Evidence about a mean, from counts alone, valid however often one looks.

A usual 95 % interval holds at one look that was fixed beforehand; look after every batch and stop when you like what
you see, and it errs far more often. An *e-process* may be looked at always: it is the capital of a gambler who bets
against a hypothesis in fair or unfair games, so under the hypothesis it ever reaches ``1/alpha`` with probability at
most ``alpha`` (Ville's inequality). Against "the mean of values in [0, 1] is at most ``m``" the gambler stakes a share
``u`` of his capital on every value ``y``:

    K_u(m) = product over the samples of (1 - u + u * y / m),    0 < u < 1

which no mean of at most ``m`` lets grow. He splits his first capital evenly over a fixed grid of ``u``: the mean of the
``K_u`` is an e-process again, it needs the counts of the values and not their order, and it falls as ``m`` rises, so
that the means that are not yet refuted are an interval. It grows about as fast as any test of a mean can for bounded
values (the best ``u`` reaches the smallest Kullback-Leibler divergence from a distribution that the hypothesis allows),
whatever else their distribution is: shares (0 and 1), and differences of two models on one sample (-1, 0 and 1, moved
into [0, 1]) alike. It assumes that each sample's mean, given the samples before, obeys the hypothesis; it does not
repair correlated samples.

Sources: I. Waudby-Smith, A. Ramdas, Estimating means of bounded random variables by betting, JRSS B 86 (2024), sections
4 and 5; H. Robbins, Statistical methods related to the law of the iterated logarithm, Ann. Math. Stat. 41 (1970), for
mixtures; J. Honda, A. Takemura, An asymptotically optimal bandit algorithm for bounded support models, COLT 2010, for
the divergence; V. Vovk, R. Wang, E-values: calibration, combination and applications, Ann. Stat. 49 (2021), for means
of e-values.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
from numpy.typing import NDArray

__all__ = ["SHARE", "Interval", "confidence_sequence", "log_evidence", "mean_log_evidence"]

SHARE = (0.0, 1.0)
"""The values of a sample that is wrong or right."""

# Small stakes for long series near the hypothesis, large ones for broken weights.
_STAKES: NDArray[np.float64] = np.geomspace(0.004, 0.98, 24)
_HALVINGS = 30


@dataclass(frozen=True, slots=True)
class Interval:
    """A closed interval."""

    low: float
    high: float


def log_evidence(counts: Sequence[float], mean: float, values: Sequence[float] = SHARE) -> float:
    """Return the natural logarithm of the e-value against "the mean is at most *mean*".

    For the opposite, "the mean is at least *mean*", mirror all of it: ``1 - value`` and ``1 - mean``.

    Args:
        counts: How often each of the values came; fractions where samples are shared between values, as
            :class:`hedgerow.score_counts.ScoreCounts` does.
        mean: The hypothesis.
        values: What a sample can be worth, each in [0, 1].

    Raises:
        ValueError: A count is negative, or there are not as many counts as values.
    """
    return _log_evidence(*_that_came(counts, values), mean)


def _that_came(counts: Sequence[float], values: Sequence[float]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if len(counts) != len(values) or min(counts) < 0:
        raise ValueError(f"expected {len(values)} counts of 0 or more, found {list(counts)}")
    # Most points of a grid of scores hold nothing where a prediction is right or wrong.
    held, how_often = np.array([(v, c) for v, c in zip(values, counts, strict=True) if c] or [(0.0, 0.0)]).T
    return held, how_often


def _log_evidence(held: NDArray[np.float64], how_often: NDArray[np.float64], mean: float) -> float:
    if mean <= 0:
        # The least value above zero refutes a mean of zero, and a mean below it is none at all.
        return math.inf if held.max() > 0 or mean < 0 else 0.0
    logs = np.log1p(np.multiply.outer(_STAKES, held / mean - 1)) @ how_often
    largest = float(logs.max())
    return largest + math.log(float(np.exp(logs - largest).mean()))


def mean_log_evidence(logs: Sequence[float]) -> float:
    """Return the logarithm of the mean of e-values, an e-value against what all of them speak against.

    It needs no more evidence than splitting the level between them, and less when they agree.
    """
    return float(reduce(np.logaddexp, logs)) - math.log(len(logs))


def confidence_sequence(counts: Sequence[float], alpha: float, values: Sequence[float] = SHARE) -> Interval:
    """Return the means that are not refuted at this look, in the unit of *values*.

    Over all looks together, each of the two bounds is on the wrong side of the truth with probability at most *alpha*.

    Args:
        counts: How often each of the values came; no sample gives the whole range.
        alpha: Error probability of each bound, in (0, 1).
        values: What a sample can be worth, each in [0, 1].

    Raises:
        ValueError: A count is negative, or *alpha* is out of bounds.
    """
    if not 0 < alpha < 1:
        raise ValueError(f"expected 0 < alpha < 1, found {alpha}")
    mirrored = [1 - value for value in values]
    return Interval(_lower_bound(counts, values, alpha), 1 - _lower_bound(counts, mirrored, alpha))


def _lower_bound(counts: Sequence[float], values: Sequence[float], alpha: float) -> float:
    """Return the largest mean that is refuted as too small, rounded down."""
    needed, refuted, open_ones = math.log(1 / alpha), 0.0, 1.0
    held, how_often = _that_came(counts, values)
    for _ in range(_HALVINGS):
        middle = (refuted + open_ones) / 2
        if _log_evidence(held, how_often, middle) >= needed:
            refuted = middle
        else:
            open_ones = middle
    return refuted
