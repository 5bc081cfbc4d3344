"""Whether two histograms come from one distribution: the p-value of a two-sample test on exact counts.

The reference is a sample too, so this is the chi-square test of homogeneity on a 2 x B table, with the expected
counts of both rows estimated from their sum and (bins that hold anything) - 1 degrees of freedom (K. Pearson 1911;
A. Agresti, Categorical Data Analysis, section 3.2). Where any expected count is below 5 (W. Cochran 1954) the
chi-square law is wrong, and the test is conditional on the margins instead: under no change the window's counts are
multivariate hypergeometric. Two such tests share the level:

- the chi-square test on a table whose rare bins are put together with their neighbours; where less than half of the
  bins would be left, the same statistic of the whole table against random draws instead, stopped when its p-value is
  clear (J. Besag, P. Clifford, Sequential Monte Carlo p-values, Biometrika 78, 1991). That cannot be smaller than one
  in the number of draws;
- the most surprising single bin by its hypergeometric tail, times 2B (Bonferroni). It has no floor, so a shift that
  is beyond doubt stays so under a small corrected threshold.

The first gets 95 % of the level, the second 5 % (weighted Bonferroni), so the answer errs at most as often as it says.
"""

from collections.abc import Sequence
from math import ceil, exp, inf, lgamma, log, log1p

import numpy as np
from numpy.typing import NDArray

__all__ = ["p_value"]

_MINIMUM_EXPECTED = 5.0
_SHARE_OF_BIN_TEST = 0.05
_EXCEEDANCES = 20  # Besag and Clifford's h: the p-value's relative error is about 1 / sqrt(h)
_DRAWS = (1_000, 100_000)
_BATCH = 256
_LARGEST_TOTAL = 10**9  # numpy's method "marginals" refuses more


def p_value(
    reference: Sequence[int], window: Sequence[int], rng: np.random.Generator, *, resolution: float = 1e-3
) -> float:
    """Return the probability of a difference at least as large if nothing changed.

    Args:
        reference: Counts of the reference's bins.
        window: Counts of the same bins in the window.
        rng: Decides the draws, where there are any.
        resolution: The threshold that the p-value will be held against; more draws are made for a smaller one.

    Raises:
        ValueError: The numbers of bins differ.
    """
    if len(reference) != len(window):
        raise ValueError(f"expected {len(reference)} bins, found {len(window)}")
    table = np.asarray([reference, window], dtype=np.float64)
    table = table[:, table.sum(axis=0) > 0]
    rows = table.sum(axis=1)
    if table.shape[1] < 2 or rows.min() == 0:
        return 1.0  # one bin, or nothing to compare: no difference is possible
    expected = rows[:, None] * table.sum(axis=0) / rows.sum()
    weights = (1 / expected).sum(axis=0)
    # Both rows miss the expectation by the same number, so one row tells all.
    statistic = float(((table[1] - expected[1]) ** 2 * weights).sum())
    from scipy.special import chdtrc

    if expected.min() >= _MINIMUM_EXPECTED:
        return float(chdtrc(table.shape[1] - 1, statistic))
    bin_test = exp(min(0.0, _log_bin_test(table)))
    merged = _merged(table)
    if 2 * merged.shape[1] >= max(4, table.shape[1]):
        expected = rows[:, None] * merged.sum(axis=0) / rows.sum()
        statistic = float(((merged[1] - expected[1]) ** 2 * (1 / expected).sum(axis=0)).sum())
        by_law = float(chdtrc(merged.shape[1] - 1, statistic))
        return min(1.0, by_law / (1 - _SHARE_OF_BIN_TEST), bin_test / _SHARE_OF_BIN_TEST)
    if rows.sum() >= _LARGEST_TOTAL:
        return bin_test
    draws = min(max(ceil(4 / max(resolution, 1e-12)), _DRAWS[0]), _DRAWS[1])
    by_bin = bin_test / _SHARE_OF_BIN_TEST
    if by_bin <= 1 / (draws + 1):
        return by_bin
    permuted = _permuted(table.astype(np.int64), weights, rng, draws)
    return min(1.0, permuted / (1 - _SHARE_OF_BIN_TEST), by_bin)


def _merged(table: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the table with neighbours put together until all expected counts are large enough; one bin: they are not.

    Which are, depends on the sums of both rows alone, so the law of the rows given these stays what it is.
    """
    needed = _MINIMUM_EXPECTED * table.sum() / table.sum(axis=1).min()
    columns = [np.zeros(2)]
    for column in table.T:
        columns[-1] = columns[-1] + column
        if columns[-1].sum() >= needed:
            columns.append(np.zeros(2))
    rest = columns.pop()
    if not columns:
        return rest[:, None]
    columns[-1] = columns[-1] + rest
    return np.stack(columns, axis=1)


def _permuted(table: NDArray[np.int64], weights: NDArray[np.float64], rng: np.random.Generator, draws: int) -> float:
    pooled, size = table.sum(axis=0), int(table[1].sum())
    expected = pooled * (size / table.sum())
    # Equal tables must count as equal, whatever the order of their sums.
    bound = float(((table[1] - expected) ** 2 * weights).sum()) * (1 - 1e-9)
    done = exceeded = 0
    batch = _BATCH
    while done < draws:
        batch = min(batch, draws - done)
        windows = rng.multivariate_hypergeometric(pooled, size, size=batch, method="marginals")
        hits = (((windows - expected) ** 2 * weights).sum(axis=1) >= bound).cumsum()
        if exceeded + hits[-1] >= _EXCEEDANCES:
            at = int(np.searchsorted(hits, _EXCEEDANCES - exceeded)) + 1
            return _EXCEEDANCES / (done + at)
        exceeded += int(hits[-1])
        done += batch
        batch *= 4
    return (exceeded + 1) / (draws + 1)


def _log_bin_test(table: NDArray[np.float64]) -> float:
    size, total = int(table[1].sum()), int(table.sum())
    tails = [
        min(
            _log_upper_tail(int(inside), int(before + inside), size, total),
            # Few in this bin is many in all the others.
            _log_upper_tail(size - int(inside), total - int(before + inside), size, total),
        )
        for before, inside in table.T
    ]
    return log(2 * len(tails)) + min(tails)


def _log_upper_tail(found: int, marked: int, size: int, total: int) -> float:
    """Return an upper bound of ``log P(X >= found)`` for X hypergeometric: *marked* of *total*, *size* drawn.

    The ratio of neighbouring probabilities falls, so the tail is at most a geometric series from its first term. The
    tail itself (``scipy.stats.hypergeom.logsf``) is a sum of as many terms as the bin holds samples, for every bin.
    """
    ratio_up = (marked - found) * (size - found)
    ratio_down = (found + 1) * (total - marked - size + found + 1)
    if ratio_up >= ratio_down:
        return 0.0  # not beyond the mode
    first = _log_choose(marked, found) + _log_choose(total - marked, size - found) - _log_choose(total, size)
    return min(0.0, first - log1p(-ratio_up / ratio_down))


def _log_choose(n: int, k: int) -> float:
    if not 0 <= k <= n:
        return -inf
    return lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)
