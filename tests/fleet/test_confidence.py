"""The confidence sequence covers the truth at every look at once."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgerow.fleet.confidence import Interval, confidence_sequence


def test_no_trial_says_nothing():
    assert confidence_sequence(0, 0, 0.05) == Interval(0.0, 1.0)


def test_the_bounds_solve_the_martingale_equation():
    """At the bounds the mixture ratio M(p) is 1 / alpha; s = 3 of 10, prior Beta(1, 1)."""
    interval = confidence_sequence(3, 10, 0.05, prior=(1.0, 1.0))
    for p in (interval.low, interval.high):
        beta = math.exp(math.lgamma(4) + math.lgamma(8) - math.lgamma(12))
        assert beta / (p**3 * (1 - p) ** 7) == pytest.approx(20, rel=1e-9)


def test_all_failures_leave_zero_inside_and_all_successes_one():
    assert confidence_sequence(0, 20, 0.05).low == 0.0
    assert confidence_sequence(20, 20, 0.05).high == 1.0


@given(n=st.integers(1, 10_000_000), share=st.floats(0, 1), alpha=st.floats(0.001, 0.5), a=st.floats(0.1, 20))
def test_the_interval_holds_the_observed_share_and_mirrors(n, share, alpha, a):
    s = round(share * n)
    interval = confidence_sequence(s, n, alpha, prior=(a, 1.0))
    mirrored = confidence_sequence(n - s, n, alpha, prior=(1.0, a))
    assert 0 <= interval.low <= s / n <= interval.high <= 1
    assert mirrored.low == pytest.approx(1 - interval.high, abs=1e-9)


@pytest.mark.parametrize(("successes", "trials", "alpha"), [(3, 2, 0.05), (-1, 2, 0.05), (1, 2, 0.0), (1, 2, 1.0)])
def test_counts_and_levels_out_of_bounds_are_refused(successes, trials, alpha):
    with pytest.raises(ValueError, match="expected"):
        confidence_sequence(successes, trials, alpha)


@pytest.mark.heavy
@pytest.mark.parametrize("p", [0.01, 0.3, 0.97])
def test_looking_after_every_sample_misses_the_truth_at_most_as_often_as_alpha(p):
    """2,000 runs of 1,000 looks each. p is missed when M(p) reaches 1 / alpha, the same as leaving the interval."""
    rng, n, alpha = np.random.default_rng(11), 1000, 0.05
    successes = (rng.random((2000, n)) < p).cumsum(axis=1)
    trials = np.arange(1, n + 1)
    log_gamma = np.vectorize(math.lgamma)(np.arange(0, n + 2) + 0.5)
    whole = np.vectorize(math.lgamma)(np.arange(0, n + 2) + 1.0)
    log_m = log_gamma[successes] + log_gamma[trials - successes] - whole[trials] - math.log(math.pi)
    log_m -= successes * math.log(p) + (trials - successes) * math.log(1 - p)
    missed = (log_m >= math.log(1 / alpha)).any(axis=1)
    assert missed.mean() <= alpha
    first = int(np.flatnonzero(missed)[0])  # and the intervals say the same as the formula
    look = int(np.argmax(log_m[first] >= math.log(1 / alpha)))
    interval = confidence_sequence(int(successes[first, look]), look + 1, alpha)
    assert not interval.low <= p <= interval.high
