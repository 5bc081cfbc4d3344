"""How large a difference between two histograms is, whatever the number of samples. Pure.

A p-value says whether a difference is there; with enough samples every difference is. An alert needs both
(:mod:`hedgerow.fleet.drift.findings`). All functions take counts in the same bins, of any total above zero.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["js_bits", "psi", "total_variation", "wasserstein_bins"]

_PSEUDO_COUNT = 0.5


def js_bits(reference: Sequence[int], window: Sequence[int]) -> float:
    """Return the Jensen-Shannon divergence in bits: 0 for equal shares, 1 for shares with nothing in common.

    With ``m = (p + q) / 2``: ``JS = KL(p, m) / 2 + KL(q, m) / 2``, logarithms to base 2 (J. Lin, Divergence measures
    based on the Shannon entropy, IEEE Trans. Inf. Theory 37, 1991). Finite for empty bins, so nothing is smoothed.
    Two samples of ``n`` and ``m`` from one distribution over B bins are expected at
    ``(B - 1) (1/n + 1/m) / (8 ln 2)``.
    """
    p, q = _shares(reference), _shares(window)
    middle = (p + q) / 2
    return float(max(0.0, (_divergence_bits(p, middle) + _divergence_bits(q, middle)) / 2))


def psi(reference: Sequence[int], window: Sequence[int]) -> float:
    """Return the population stability index ``sum (q - p) ln(q / p)``, half a sample added to every bin.

    Under no change it is about ``(1/n + 1/m)`` times a chi-square variable with B - 1 degrees of freedom (B. Yurdakul,
    Statistical properties of population stability index, Western Michigan University, 2018). So the folk thresholds
    0.1 and 0.25 mean something else at every sample size: it is shown, and decides nothing.
    """
    p, q = _shares(reference, _PSEUDO_COUNT), _shares(window, _PSEUDO_COUNT)
    return float(((q - p) * np.log(q / p)).sum())


def wasserstein_bins(reference: Sequence[int], window: Sequence[int]) -> float:
    """Return how many bins a sample has moved on average: the Wasserstein-1 distance of ordered bins, one bin apart.

    ``W1 = sum over bins |P(<= bin) - Q(<= bin)|``.
    """
    return float(np.abs(np.cumsum(_shares(reference) - _shares(window)))[:-1].sum())


def total_variation(reference: Sequence[int], window: Sequence[int]) -> float:
    """Return the share of samples that would have to change bin: the Wasserstein distance of bins without an order."""
    return float(np.abs(_shares(reference) - _shares(window)).sum() / 2)


def _shares(counts: Sequence[int], pseudo_count: float = 0.0) -> NDArray[np.float64]:
    values: NDArray[np.float64] = np.asarray(counts, dtype=np.float64) + pseudo_count
    total = float(values.sum())
    if not total > 0:
        raise ValueError("expected counts with a total above zero")
    return values * (1 / total)


def _divergence_bits(p: NDArray[np.float64], q: NDArray[np.float64]) -> float:
    from scipy.special import rel_entr

    return float(rel_entr(p, q).sum()) / math.log(2)
