"""Effect sizes against hand-computed values."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon
from scipy.stats import entropy, wasserstein_distance

from hedgerow.fleet.drift.effect_size import js_bits, psi, total_variation, wasserstein_bins

COUNTS = st.lists(st.integers(0, 1000), min_size=4, max_size=4).filter(any)


def test_equal_shares_have_no_distance_at_any_size():
    for effect in (js_bits, wasserstein_bins, total_variation):
        assert effect((1, 2, 3), (10, 20, 30)) == pytest.approx(0, abs=1e-12)


def test_nothing_in_common_is_one_bit():
    assert js_bits((5, 0), (0, 7)) == pytest.approx(1)
    assert total_variation((5, 0), (0, 7)) == 1


def test_a_fifth_missing_is_above_the_default_minimum_effect():
    """JS((1, 0), (0.8, 0.2)) = H(0.1) - H(0.2) / 2 = 0.108 bits."""
    assert js_bits((1000, 0), (80, 20)) == pytest.approx(0.10803, abs=1e-4)


def test_wasserstein_counts_bins_moved():
    assert wasserstein_bins((10, 0, 0, 0), (0, 0, 0, 10)) == pytest.approx(3)
    assert wasserstein_bins((10, 0, 0, 0), (5, 5, 0, 0)) == pytest.approx(0.5)


def test_psi_smooths_empty_bins_and_is_the_textbook_sum():
    p, q = (10.5 / 21, 10.5 / 21), (20.5 / 21, 0.5 / 21)
    expected = sum((b - a) * math.log(b / a) for a, b in zip(p, q, strict=True))
    assert psi((10, 10), (20, 0)) == pytest.approx(expected)


def test_psi_without_change_follows_the_chi_square_relation():
    """Mean of PSI is about (1/n + 1/m) (B - 1): 0.0198 for n = 500, m = 5,000, B = 10 (Yurdakul 2018)."""
    rng = np.random.default_rng(0)
    values = [psi(rng.multinomial(5000, [0.1] * 10), rng.multinomial(500, [0.1] * 10)) for _ in range(400)]
    assert np.mean(values) == pytest.approx(9 * (1 / 500 + 1 / 5000), rel=0.1)


def test_nothing_counted_is_refused():
    with pytest.raises(ValueError, match="above zero"):
        js_bits((0, 0), (1, 1))


@given(COUNTS, COUNTS)
def test_distances_are_symmetric_and_bounded(a, b):
    assert js_bits(a, b) == pytest.approx(js_bits(b, a), abs=1e-12)
    assert 0 <= js_bits(a, b) <= 1 + 1e-12
    assert 0 <= total_variation(a, b) <= wasserstein_bins(a, b) + 1e-12 <= 3 + 1e-9


@given(COUNTS, COUNTS)
def test_distances_are_those_of_scipy(a, b):
    p, q = np.array(a) / sum(a), np.array(b) / sum(b)
    bins = range(4)
    assert js_bits(a, b) == pytest.approx(np.nan_to_num(jensenshannon(p, q, base=2)) ** 2, abs=1e-12)
    assert wasserstein_bins(a, b) == pytest.approx(wasserstein_distance(bins, bins, p, q), abs=1e-12)
    assert total_variation(a, b) == pytest.approx(sum(abs(p - q)) / 2, abs=1e-12)
    smooth = [(np.array(counts) + 0.5) / (sum(counts) + 2) for counts in (a, b)]
    both_ways = entropy(smooth[0], smooth[1]) + entropy(smooth[1], smooth[0])
    assert psi(a, b) == pytest.approx(both_ways, abs=1e-12)
