"""Where the bins of an input's feature are cut, so that what was never seen in training has bins of its own. Pure.

Bins are half-open, so edges alone say everything: a value that repeats (an atom: the zeros of a rain gauge, a constant,
a flag) is a bin just around it, and the first and the last bin hold what lies below and above all that was seen.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["BYTES_OF_COUNT", "BYTES_OF_FEATURE", "LEAST_COUNTS", "MOST_BYTES", "bins_for_each", "cut_edges"]

MOST_BYTES = 220_000
"""What the counts of all features may take in a window, so that it stays below the 256 KiB of a message."""
BYTES_OF_FEATURE = 36
"""A feature's part of a window beside its name and its counts, with a count of missing values."""
LEAST_COUNTS, BYTES_OF_COUNT = 6, 9
"""Bins that each feature gets at least, and bytes of a count of at most 16,777,216 with its comma."""

_MOST_COUNTS = 131
_INNER_CUTS = tuple(tenth / 10 for tenth in range(1, 10))
_TAILS = (0.01, 0.99)
_LEAST_FOR_TAILS = 500
_ATOM_SHARE, _ATOM_COUNT = 0.05, 5
_MOST_VALUES = 64
# Summaries are sums, whose last bits depend on the machine. A constant is the same one within these.
_RELATIVE, _OF_SCALE, _LEAST = 1e-6, 1e-9, 1e-300


def bins_for_each(names: Sequence[str]) -> int:
    """Return how many bins each of so many features may have, for a window below :data:`MOST_BYTES`."""
    fixed = sum(len(name.encode()) + BYTES_OF_FEATURE for name in names)
    each = (MOST_BYTES - fixed) // (BYTES_OF_COUNT * max(1, len(names)))
    return max(LEAST_COUNTS, min(_MOST_COUNTS, each))


def cut_edges(values: NDArray[np.float64], *, is_whole: bool = False, most: int = _MOST_COUNTS) -> tuple[float, ...]:
    """Return inner edges, strictly rising; bin ``i`` holds ``edges[i-1] <= x < edges[i]``.

    Args:
        values: What was seen, ``float64[n]``, finite and at least one.
        is_whole: They are whole numbers: each of the 64 most frequent ones has a bin of its own. Otherwise a value has
            one that came at least five times, and in at least 5 % of all.
        most: Bins at most.
    """
    found, counts = np.unique(values, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    enough = counts[order] >= (1 if is_whole else max(_ATOM_COUNT, _ATOM_SHARE * len(values)))
    # Around each atom two edges; two more for what lies beyond.
    is_atom = np.zeros(len(found), dtype=np.bool_)
    is_atom[order[enough][: min(_MOST_VALUES, (most - 3) // 2)]] = True
    width = _half_widths(found, is_whole)
    fixed = {float(found[0] - width[0]), float(found[-1] + width[-1])}
    for place in np.flatnonzero(is_atom):
        fixed |= {float(found[place] - width[place]), float(found[place] + width[place])}
    edges = sorted(fixed)
    rest = np.repeat(found[~is_atom], counts[~is_atom])
    atoms, around = found[is_atom], width[is_atom]
    cuts = [cut for cut in _cuts(rest, len(values), most - 1 - len(edges)) if edges[0] < cut < edges[-1]]
    return tuple(sorted({*edges, *(cut for cut in cuts if bool((np.abs(atoms - cut) > around).all()))}))


def _half_widths(found: NDArray[np.float64], is_whole: bool) -> NDArray[np.float64]:
    if is_whole:
        return np.full(len(found), 0.5)
    magnitude = np.abs(found)
    width: NDArray[np.float64] = np.maximum(_RELATIVE * magnitude, max(_OF_SCALE * float(magnitude.max()), _LEAST))
    return width


def _cuts(rest: NDArray[np.float64], size: int, room: int) -> list[float]:
    """Return cuts at quantiles of what is no atom: fewer where that is little, or where there is no room."""
    if len(rest) == 0 or room < 1:
        return []
    wanted = int(np.ceil(len(_INNER_CUTS) * len(rest) / size))
    few = min(wanted, room)
    tails = len(rest) >= _LEAST_FOR_TAILS and room >= wanted + len(_TAILS)
    places = [(place + 1) / (few + 1) for place in range(few)] + (list(_TAILS) if tails else [])
    cuts = np.unique(np.quantile(rest, sorted(places)))
    # Between two cuts there must be a value, and one before the first, or a bin would be empty for ever.
    before = np.searchsorted(rest, cuts, side="left")
    _, firsts = np.unique(before, return_index=True)
    return [float(cuts[place]) for place in firsts if before[place] > 0]
