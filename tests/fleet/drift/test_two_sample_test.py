"""The p-value is right at every size: chi-square where it holds, draws and single bins where it does not."""

import math
from fractions import Fraction

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from hedgerow.fleet.drift.two_sample_test import _log_upper_tail, p_value


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_the_statistic_is_pearsons_with_one_degree_less_than_bins():
    """Table (60, 40), (40, 60): X^2 = 8, one degree of freedom, p = 0.004678."""
    assert p_value((60, 40), (40, 60), rng()) == pytest.approx(math.erfc(2), rel=1e-9)


def test_empty_bins_cost_no_degree_of_freedom():
    assert p_value((60, 0, 40, 0), (40, 0, 60, 0), rng()) == p_value((60, 40), (40, 60), rng())


@pytest.mark.parametrize(("a", "b"), [((10, 0), (7, 0)), ((0, 0), (1, 2)), ((3, 4), (0, 0)), ((), ())])
def test_where_no_difference_is_possible_the_p_value_is_one(a, b):
    assert p_value(a, b, rng()) == 1.0


def test_other_bins_are_refused():
    with pytest.raises(ValueError, match="3 bins"):
        p_value((1, 2, 3), (1, 2), rng())


def test_the_same_generator_gives_the_same_p_value():
    assert p_value((30, 3, 2), (10, 4, 4), rng(5)) == p_value((30, 3, 2), (10, 4, 4), rng(5))


def test_draws_agree_with_fishers_exact_test():
    """Table (2, 6), (6, 2), expected counts 4: two-sided Fisher p = 2 (784 + 64 + 1) / 12870 = 0.1319."""
    values = [p_value((2, 6), (6, 2), rng(seed)) * 0.95 for seed in range(60)]
    assert np.mean(values) == pytest.approx(0.1319, rel=0.1)


def test_a_shift_beyond_doubt_stays_below_any_threshold_although_draws_have_a_floor():
    assert p_value((100, 100, 100, 100, 2), (0, 0, 0, 0, 60), rng(), resolution=1e-9) < 1e-15


def test_counts_too_large_to_draw_from_are_still_judged():
    huge = 10**12
    assert p_value((huge, 3), (huge, 3), rng()) == 1.0
    assert p_value((huge, 0), (4, 4), rng()) < 1e-9


@given(total=st.integers(2, 40), data=st.data())
@settings(derandomize=True)
def test_the_tail_bound_is_above_the_exact_tail_and_close(total, data):
    marked = data.draw(st.integers(0, total))
    size = data.draw(st.integers(0, total))
    found = data.draw(st.integers(max(0, marked + size - total), min(marked, size)))
    exact = sum(
        math.comb(marked, k) * math.comb(total - marked, size - k) for k in range(found, min(marked, size) + 1)
    ) / math.comb(total, size)
    bound = _log_upper_tail(found, marked, size, total)
    assert bound >= math.log(exact) - 1e-9
    if exact < 0.01:
        assert bound <= math.log(exact) + 1  # never more than a factor e above


def test_impossible_counts_have_probability_zero():
    assert _log_upper_tail(5, 3, 10, 20) == -math.inf


@pytest.mark.heavy
@pytest.mark.parametrize("nominal", [0.05, 0.01])
@pytest.mark.parametrize(
    ("n", "m", "runs"), [(50, 10_000, 12_000), (50, 300, 12_000), (500, 10_000, 40_000), (5000, 10_000, 40_000)]
)
def test_false_alarms_are_within_a_fifth_of_nominal(n, m, runs, nominal):
    """Ten equal bins, as cut at quantiles. n = 50 against 10,000 has expected counts around 5: mostly by draws."""
    draw = rng(n + m)
    shares = np.full(10, 0.1)
    references, windows = draw.multinomial(m, shares, size=runs), draw.multinomial(n, shares, size=runs)
    alarms = sum(p_value(a, b, draw) <= nominal for a, b in zip(references.tolist(), windows.tolist(), strict=True))
    error = 2 * math.sqrt(nominal * (1 - nominal) / runs)
    assert 0.8 * nominal - error <= alarms / runs <= 1.2 * nominal + error


@pytest.mark.heavy
def test_a_tenth_of_a_standard_deviation_is_always_found_in_50_000_samples():
    draw = rng(8)
    edges = np.quantile(draw.normal(size=200_000), np.linspace(0, 1, 21)[1:-1])
    for _ in range(40):
        reference = np.bincount(np.searchsorted(edges, draw.normal(size=50_000)), minlength=20)
        window = np.bincount(np.searchsorted(edges, draw.normal(0.1, size=50_000)), minlength=20)
        assert p_value(reference.tolist(), window.tolist(), draw) < 1e-6


@pytest.mark.heavy
def test_skewed_categories_with_tiny_expected_counts_raise_no_more_alarms_than_nominal():
    draw, shares = rng(9), np.array([0.6, 0.3, 0.06, 0.02, 0.01, 0.005, 0.003, 0.002])
    runs = 6000
    references, windows = draw.multinomial(1000, shares, size=runs), draw.multinomial(60, shares, size=runs)
    alarms = sum(p_value(a, b, draw) <= 0.05 for a, b in zip(references.tolist(), windows.tolist(), strict=True))
    assert 0.03 <= alarms / runs <= 0.056


# Golden figures: by scipy, or by counting


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ((60, 40), (40, 60)),
        ((500, 300, 200), (30, 40, 50)),
        ((1000, 1000, 1000, 1000), (7, 9, 11, 13)),
        ((9, 8), (7, 9)),
    ],
)
def test_where_every_expected_count_is_five_the_p_value_is_pearsons(a, b):
    table = scipy.stats.contingency.expected_freq(np.array([a, b]))
    assert table.min() >= 5
    exact = scipy.stats.chi2_contingency(np.array([a, b]), correction=False).pvalue
    assert p_value(a, b, rng()) == pytest.approx(exact, rel=1e-12)


def test_rare_bins_are_put_together_with_their_neighbours():
    """Of 60 among 660 the bins need 55 together: (2 + 40 + 40), 58, 62, then the rest with the last."""
    reference, window = (2, 40, 40, 58, 400, 58, 2), (0, 3, 5, 4, 40, 4, 4)
    merged = scipy.stats.chi2_contingency([[82, 58, 400, 60], [8, 4, 40, 8]], correction=False).pvalue
    tail = scipy.stats.hypergeom.sf(3, 660, 6, 60) * 2 * 7

    assert p_value(reference, window, rng()) == pytest.approx(min(merged / 0.95, tail / 0.05), rel=1e-3)
    assert p_value(reference, (0, 3, 5, 4, 40, 8, 0), rng()) == pytest.approx(
        scipy.stats.chi2_contingency([[82, 58, 400, 60], [8, 4, 40, 8]], correction=False).pvalue / 0.95, rel=1e-9
    )


def test_an_expected_count_of_five_is_enough_and_less_is_not():
    """Ten of each: expected are exactly 5 and 5; with one less on a side, 4.75, and draws decide."""
    assert p_value((4, 6), (6, 4), rng()) == pytest.approx(math.erfc(math.sqrt(0.8 / 2)), rel=1e-12)
    values = {p_value((4, 6), (5, 4), rng(seed)) for seed in range(5)}
    assert len(values) > 1


def test_the_most_surprising_bin_counts_double_for_each_bin_and_a_twentieth_of_the_level():
    """All 60 from a bin that holds 62 of 462: one term, so the bound is the tail itself."""
    tail = scipy.stats.hypergeom.sf(59, 462, 62, 60)
    found = p_value((100, 100, 100, 100, 2), (0, 0, 0, 0, 60), rng(), resolution=1e-9)
    assert found == pytest.approx(tail * 2 * 5 / 0.05, rel=1e-6)


def test_a_bin_that_is_empty_now_is_as_surprising_as_one_that_is_full():
    """None of 40 from a bin with 250 of the reference's 500: few there is many elsewhere."""
    tail = scipy.stats.hypergeom.cdf(0, 540, 250, 40)
    found = p_value((250, 2, 124, 124), (0, 0, 20, 20), rng(), resolution=1e-12)
    assert found == pytest.approx(tail * 2 * 4 / 0.05, rel=1e-6)


@pytest.mark.parametrize(("resolution", "draws"), [(1e-3, 4000), (0.1, 1000), (1e-9, 100_000)])
def test_draws_that_never_come_near_leave_one_in_their_number(resolution, draws):
    """A window that is spread over ten of 50 equal bins: no bin says much, the whole is beyond all draws."""
    reference, part = (40,) * 50, (6,) * 10 + (0,) * 40
    assert p_value(reference, part, rng(), resolution=resolution) == pytest.approx(1 / (draws + 1) / 0.95, rel=1e-12)


def test_a_test_of_a_billion_samples_is_of_single_bins_alone():
    assert p_value((10**9 - 10, 3), (6, 1), rng()) == pytest.approx(
        p_value((10**9 - 10, 3), (6, 1), rng(7), resolution=1e-9), rel=1e-15
    )
    assert p_value((10**9, 4), (4, 4), rng()) == pytest.approx(
        4 * float(scipy.stats.hypergeom.sf(3, 10**9 + 12, 8, 8)), rel=1e-3
    )


class CountingGenerator(np.random.Generator):
    """Notes how many windows are drawn at a time."""

    def multivariate_hypergeometric(self, *arguments, size, **more):
        self.sizes = [*getattr(self, "sizes", []), size]
        return super().multivariate_hypergeometric(*arguments, size=size, **more)


def test_as_many_windows_are_drawn_as_were_meant_to_in_growing_batches():
    counting = CountingGenerator(np.random.PCG64(0))
    p_value((40,) * 50, (6,) * 10 + (0,) * 40, counting, resolution=1e-3)
    assert counting.sizes == [256, 1024, 4000 - 256 - 1024]


@pytest.mark.parametrize(("reference", "window"), [((30, 3, 2), (10, 4, 4)), ((2, 6), (6, 2)), ((8, 8, 8), (4, 1, 1))])
def test_draws_stop_with_the_twentieth_that_is_as_far_off(reference, window):
    """Besag and Clifford: 20 in the number of draws that it took, here found in one long row of draws."""
    table = np.array([reference, window])
    pooled, size = table.sum(axis=0), table[1].sum()
    expected = table.sum(axis=1)[:, None] * pooled / table.sum()

    def statistic(windows):
        return ((windows - expected[1]) ** 2 * (1 / expected).sum(axis=0)).sum(axis=-1)

    drawn = rng(3).multivariate_hypergeometric(pooled, size, size=4000, method="marginals")
    places = np.flatnonzero(statistic(drawn) >= statistic(table[1]) - 1e-9)
    assert len(places) >= 20
    assert p_value(reference, window, rng(3)) == pytest.approx(min(1, 20 / (places[19] + 1) / 0.95), rel=1e-12)


@given(total=st.integers(2, 60), data=st.data())
@settings(derandomize=True)
def test_the_tail_bound_is_the_geometric_series_from_its_first_term(total, data):
    marked = data.draw(st.integers(0, total))
    size = data.draw(st.integers(0, total))
    found = data.draw(st.integers(max(0, marked + size - total), min(marked, size)))

    def term(k):
        return Fraction(math.comb(marked, k) * math.comb(total - marked, size - k), math.comb(total, size))

    ratio = term(found + 1) / term(found) if found < size else Fraction(0)
    series = term(found) / (1 - ratio) if ratio < 1 else Fraction(1)
    assert _log_upper_tail(found, marked, size, total) == pytest.approx(math.log(min(series, 1)), abs=1e-9)


def test_a_billion_samples_are_too_many_to_draw_from_and_all_of_the_level_is_the_bins():
    found = p_value((10**9 - 10, 3), (6, 1), rng())
    assert found == pytest.approx(2 * 2 * float(scipy.stats.hypergeom.sf(0, 10**9, 4, 7)), rel=1e-4)
