"""In which portions samples are run, so that each is bounded in time and memory. Pure."""

import math
from collections.abc import Sequence

__all__ = ["portions"]

_PORTION_MACS = 2 * 10**10
"""About half a minute on a busy machine: far from the bound of one step, and often enough to say how far it is."""
_PORTION_BYTES = 64 * 2**20


def portions(samples: int, macs: int, sample_bytes: int) -> Sequence[tuple[int, int]]:
    """Return the portions in which samples are run: where each begins, and where it ends.

    Args:
        samples: How many there are.
        macs: Multiply-accumulates of one prediction.
        sample_bytes: Of the inputs of one.
    """
    most = min(_PORTION_MACS // max(macs, 1), _PORTION_BYTES // max(sample_bytes, 1), samples)
    size = math.ceil(samples / math.ceil(samples / max(most, 1)))
    return [(begin, min(begin + size, samples)) for begin in range(0, samples, size)]
