"""Whether the fields of what a user makes have the type that they must have. Pure."""

import math
from collections.abc import Iterable
from numbers import Integral, Real
from typing import Any

__all__ = ["as_sizes", "number_mistakes", "sizes_are_sound"]


def number_mistakes(
    what: str,
    value: object,
    *,
    above: float | None = None,
    least: float | None = None,
    below: float | None = None,
    most: float | None = None,
    whole: bool = False,
) -> list[str]:
    """Return in at most one sentence what is wrong with a number that a user gave.

    Args:
        what: What it is, as the subject of the sentence.
        value: What was given; neither NaN nor infinity is a number, nor is True.
        above: It must be greater than this.
        least: It must be at least this.
        below: It must be less than this.
        most: It must be at most this.
        whole: It must be a whole number.
    """
    number: Any = value
    is_number = isinstance(value, Integral if whole else Real) and not isinstance(value, bool)
    if not is_number or not _is_finite(number):
        return [f"{what} must be a {'whole ' if whole else ''}number, found {value!r}"]
    if (
        (above is None or number > above)
        and (least is None or number >= least)
        and (below is None or number < below)
        and (most is None or number <= most)
    ):
        return []
    low, high = least if above is None else above, most if below is None else below
    if low is not None and high is not None:
        return [f"{what} must lie between {low:g} and {high:g}, found {value}"]
    return [f"{what} must be {'at least' if above is None else 'above'} {low:g}, found {value}"]


def _is_finite(number: Any) -> bool:
    try:
        return math.isfinite(number)
    except OverflowError:  # a whole number beyond every float
        return False


def as_sizes(value: Any) -> Any:
    """Return what a user gave as a shape as a tuple, and what is none as it is, for :func:`sizes_are_sound`."""
    return tuple(value) if isinstance(value, Iterable) and not isinstance(value, str | bytes) else value


def sizes_are_sound(shape: object) -> bool:
    """Return whether it is a tuple of positive whole numbers."""
    return isinstance(shape, tuple) and all(type(size) is int and size > 0 for size in shape)
