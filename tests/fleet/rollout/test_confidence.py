"""The evidence is fair under the hypothesis at every look, and its bounds cover the truth at every look at once."""

import math
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgerow.fleet.rollout.confidence import SHARE, Interval, confidence_sequence, log_evidence, mean_log_evidence
from tests.fleet import exact_evidence

THIRDS = (0.0, 0.5, 1.0)


def test_no_trial_says_nothing():
    assert log_evidence((0, 0), 0.3) == pytest.approx(0, abs=1e-12)
    assert confidence_sequence((0, 0), 0.05) == Interval(0.0, 1.0)


@pytest.mark.parametrize(
    ("values", "shares"),
    [(SHARE, (0.7, 0.3)), (SHARE, (0.05, 0.95)), (THIRDS, (0.1, 0.85, 0.05)), (THIRDS, (0.3, 0.3, 0.4))],
)
def test_the_game_is_fair_at_the_hypothesis_and_loses_below_it(values, shares):
    """The expectation over all series of five samples, added up one by one, is 1 at the mean and less above it."""
    mean = sum(value * share for value, share in zip(values, shares, strict=True))

    def expected(hypothesis):
        total = 0.0
        for series in product(range(len(values)), repeat=5):
            counts = [series.count(index) for index in range(len(values))]
            total += math.prod(shares[index] for index in series) * math.exp(log_evidence(counts, hypothesis, values))
        return total

    assert expected(mean) == pytest.approx(1, abs=1e-9)
    assert expected(mean + 0.01) < 1
    assert expected(mean - 0.01) > 1


def test_the_capital_is_the_mean_of_the_gamblers():
    """Three right of four against a mean of 1/2, with exact fractions: each gambler has (1 + u)^3 (1 - u)."""
    stakes = [Fraction(0.004 * (0.98 / 0.004) ** (k / 23)) for k in range(24)]
    capital = sum((1 + stake) ** 3 * (1 - stake) for stake in stakes) / 24

    assert math.exp(log_evidence((1, 3), 0.5)) == pytest.approx(float(capital), rel=1e-9)


def test_a_mean_of_nothing_is_refuted_by_one_value_above_it():
    assert log_evidence((9, 0), 0.0) == 0
    assert log_evidence((9, 1), 0.0) == math.inf
    assert log_evidence((9, 0), -0.1) == math.inf


def test_all_failures_leave_zero_inside_and_all_successes_one():
    assert confidence_sequence((20, 0), 0.05).low == 0.0
    assert confidence_sequence((0, 20), 0.05).high == 1.0


@given(n=st.integers(1, 10_000_000), share=st.floats(0, 1), alpha=st.floats(0.001, 0.5))
def test_the_interval_holds_the_observed_share_and_mirrors(n, share, alpha):
    right = round(share * n)
    interval = confidence_sequence((n - right, right), alpha)
    mirrored = confidence_sequence((right, n - right), alpha)
    assert 0 <= interval.low <= right / n + 1e-9
    assert right / n - 1e-9 <= interval.high <= 1
    assert mirrored.low == pytest.approx(1 - interval.high, abs=1e-8)


@given(st.tuples(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**6)), st.floats(0.01, 0.98))
def test_evidence_falls_as_the_hypothesis_rises(counts, mean):
    assert log_evidence(counts, mean, THIRDS) >= log_evidence(counts, mean + 0.01, THIRDS) - 1e-6


@given(st.integers(1, 500), st.floats(0.02, 0.98), st.floats(0.001, 0.5))
def test_the_bounds_are_where_the_evidence_reaches_the_level(n, share, alpha):
    counts = (n - round(share * n), round(share * n))
    low = confidence_sequence(counts, alpha).low
    if low > 0:
        assert log_evidence(counts, low) >= math.log(1 / alpha) > log_evidence(counts, low + 1e-6)


def test_the_mean_of_evidence_is_the_mean_of_the_values():
    assert math.exp(mean_log_evidence([math.log(10), math.log(30)])) == pytest.approx(20)
    assert mean_log_evidence([3.0]) == pytest.approx(3.0)
    assert mean_log_evidence([-math.inf, math.log(4)]) == pytest.approx(math.log(2))


@pytest.mark.parametrize(("counts", "values"), [((3, -1), SHARE), ((1, 2, 3), SHARE), ((1, 2), THIRDS)])
def test_counts_that_are_none_are_refused(counts, values):
    with pytest.raises(ValueError, match="expected") as caught:
        log_evidence(counts, 0.5, values)
    assert str(caught.value) == f"expected {len(values)} counts of 0 or more, found {list(counts)}"


@pytest.mark.parametrize("alpha", [0.0, 1.0, -1.0])
def test_levels_out_of_bounds_are_refused(alpha):
    with pytest.raises(ValueError, match=rf"^expected 0 < alpha < 1, found {alpha}$"):
        confidence_sequence((1, 1), alpha)


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("values", "shares"),
    [(SHARE, (0.99, 0.01)), (SHARE, (0.03, 0.97)), (THIRDS, (0.02, 0.96, 0.02)), (THIRDS, (0.14, 0.84, 0.02))],
)
def test_looking_again_and_again_misses_the_truth_at_most_as_often_as_alpha(values, shares):
    """1,000 runs of 60 looks at ten samples each; both sides."""
    rng, alpha = np.random.default_rng(11), 0.05
    truth = float(np.dot(values, shares))
    mirrored = [1 - value for value in values]
    missed = np.zeros(2)
    for _ in range(1000):
        looks = rng.multinomial(10, shares, size=60).cumsum(axis=0).tolist()
        missed += [
            any(log_evidence(counts, truth, values) >= math.log(1 / alpha) for counts in looks),
            any(log_evidence(counts, 1 - truth, mirrored) >= math.log(1 / alpha) for counts in looks),
        ]
    assert (missed / 1000 <= alpha).all(), missed


# Golden figures: with 50 digits (tests/fleet/exact_evidence.py)


@pytest.mark.parametrize("counts", [(0, 1), (1, 0), (3, 7), (28, 472), (50, 50), (400, 3)])
@pytest.mark.parametrize("mean", [0.01, 0.3, 0.5, 0.9, 0.995])
def test_evidence_is_that_of_its_definition(counts, mean):
    assert log_evidence(counts, mean) == pytest.approx(exact_evidence.log_evidence(counts, mean), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("counts", [(1, 2, 3), (40, 350, 10), (0, 10, 0)])
def test_evidence_about_differences_is_that_of_its_definition(counts):
    values = (0.0, 0.5, 1.0)
    exact = exact_evidence.log_evidence(counts, 0.49, values)
    assert log_evidence(counts, 0.49, values) == pytest.approx(exact, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize(("counts", "alpha"), [((0, 0), 0.05), ((28, 472), 0.05), ((28, 472), 0.001), ((9, 1), 0.1)])
def test_bounds_are_those_of_the_definition_and_never_inside_them(counts, alpha):
    found, (low, high) = confidence_sequence(counts, alpha), exact_evidence.bounds(counts, alpha)
    assert found.low == pytest.approx(low, abs=1.1e-5)
    assert found.high == pytest.approx(high, abs=1.1e-5)
    needed = math.log(1 / alpha)
    assert found.low == 0 or exact_evidence.log_evidence(counts, found.low) >= needed - 1e-9
    assert found.high == 1 or exact_evidence.log_evidence(counts[::-1], 1 - found.high) >= needed - 1e-9


def test_a_mean_of_e_values_is_their_mean():
    logs = [math.log(2), math.log(30), math.log(4)]
    assert math.exp(mean_log_evidence(logs)) == pytest.approx(12)
    assert mean_log_evidence([1.5]) == pytest.approx(1.5)
    assert mean_log_evidence([math.inf, 0.0]) == math.inf


def test_only_a_value_above_zero_speaks_against_a_mean_of_zero():
    assert log_evidence((5, 0), 0.0) == 0.0
    assert log_evidence((5, 1), 0.0) == math.inf
    assert log_evidence((0, 0), -0.1) == math.inf


@pytest.mark.parametrize("mean", [0.0, 0.5])
def test_what_never_came_refutes_nothing(mean):
    assert log_evidence((0, 0), mean) == 0.0
