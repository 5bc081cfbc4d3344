"""Within which bounds the numbers of an output lie. Pure."""

import math
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

from hedgerow.field_types import number_mistakes

__all__ = ["GREATEST", "LEAST", "MOST_NUMBERS", "as_number", "positive_mistakes", "size_mistakes"]

LEAST, GREATEST = 2.0**-126, (2 - 2.0**-23) * 2.0**127
"""What float32 holds in full precision: what models answer is compared with it."""

MOST_NUMBERS = 2**24
"""So many numbers may a target value have."""


def as_number(given: Any) -> Any:
    """Return a number of any type as Python's own, which records hold; anything else as it is."""
    if isinstance(given, bool):
        return given
    if isinstance(given, Integral):
        return int(given)
    return float(given) if isinstance(given, Real) else given


def positive_mistakes(noun: str, number: object, *, below: float | None = None) -> list[str]:
    """Return one sentence where something is no number above 0 that float32 holds.

    Args:
        noun: What it is.
        number: As :func:`as_number` gives it.
        below: It must lie below this; None: below all that float32 holds.
    """
    if below is None:
        return number_mistakes(noun, number, least=LEAST, most=GREATEST)
    return number_mistakes(noun, number, above=0, below=below) or number_mistakes(noun, number, least=LEAST)


def size_mistakes(noun: str, sizes: Sequence[object]) -> list[str]:
    """Return one sentence where something is no shape of a target value.

    Args:
        noun: What it is.
        sizes: Along each dimension.
    """
    whole = [size for size in sizes if isinstance(size, int) and not isinstance(size, bool) and size > 0]
    if len(whole) < len(sizes):
        return [f"{noun} must hold positive whole numbers, found {list(sizes)}"]
    if math.prod(whole) > MOST_NUMBERS:
        return [f"{noun} must hold at most {MOST_NUMBERS} numbers in all, found {list(sizes)}"]
    return []
