"""Random numbers that are looked up rather than drawn: each is a pure function of a seed, a purpose and a number.

A generator with a state would have to store one for each of a million devices, or draw for all to know one. Here the
number of device i is the i-th output of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014), which can be computed at any i
at once: its state is a plain sum. The state at 0 is a hash of the seed and the purpose, so that no two purposes share
a stream.
"""

import hashlib

import numpy as np
from numpy.typing import NDArray

__all__ = ["Floats", "Numbers", "bits", "normals", "uniforms"]

Numbers = NDArray[np.int64]
"""Device numbers from 0, or other counters."""

Floats = NDArray[np.float64]

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_MULTIPLIERS = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
_SHIFTS = (np.uint64(30), np.uint64(27), np.uint64(31))
_TO_UNIT = 2.0**-53


def bits(state: NDArray[np.uint64] | np.uint64, numbers: Numbers) -> NDArray[np.uint64]:
    """Return the outputs at *numbers* (from 0) of the SplitMix64 whose state is *state*.

    Args:
        state: One for all, or one for each.
        numbers: Whole numbers, ``int64[n]``.

    Returns:
        ``uint64[n]``.
    """
    # Sums and products wrap round at 2**64, which is the algorithm; numpy says nothing about arrays that do.
    mixed = np.atleast_1d(np.asarray(numbers)).astype(np.uint64)
    mixed += np.uint64(1)
    mixed *= _GAMMA
    mixed += state
    shifted = np.empty_like(mixed)
    for shift, multiplier in zip(_SHIFTS[:2], _MULTIPLIERS, strict=True):
        np.right_shift(mixed, shift, out=shifted)
        mixed ^= shifted
        mixed *= multiplier
    np.right_shift(mixed, _SHIFTS[2], out=shifted)
    mixed ^= shifted
    return mixed


def uniforms(seed: int, purpose: str, numbers: Numbers, counters: Numbers | int | None = None) -> Floats:
    """Return one number in [0, 1) for each of *numbers*.

    Args:
        seed: What the population, the run or the like was given.
        purpose: What the numbers are for, such as ``speed``; different purposes give independent numbers.
        numbers: Devices, ``int64[n]``.
        counters: A second number that each depends on, such as the day: one for all, or ``int64[n]``.

    Returns:
        ``float64[n]`` with 53 random bits.
    """
    return _unit(bits(_states(seed, purpose, numbers, counters), _places(numbers, counters)))


def normals(seed: int, purpose: str, numbers: Numbers) -> Floats:
    """Return one standard normal number for each of *numbers*, ``float64[n]`` (Box and Muller 1958)."""
    state = _state(seed, purpose)
    first = bits(state, 2 * np.atleast_1d(np.asarray(numbers, dtype=np.int64)))
    second = bits(state, 2 * np.atleast_1d(np.asarray(numbers, dtype=np.int64)) + 1)
    radius = np.sqrt(-2.0 * np.log1p(-_unit(first)))
    return np.asarray(radius * np.cos(2.0 * np.pi * _unit(second)))


def _state(seed: int, purpose: str) -> np.uint64:
    return np.uint64(int.from_bytes(hashlib.sha256(f"{seed}/{purpose}".encode()).digest()[:8], "big"))


def _states(
    seed: int, purpose: str, numbers: Numbers, counters: Numbers | int | None
) -> NDArray[np.uint64] | np.uint64:
    state = _state(seed, purpose)
    return state if counters is None else bits(state, numbers)


def _places(numbers: Numbers, counters: Numbers | int | None) -> Numbers:
    if counters is None:
        return numbers
    return np.broadcast_to(np.asarray(counters, dtype=np.int64), np.atleast_1d(np.asarray(numbers)).shape)


def _unit(words: NDArray[np.uint64]) -> Floats:
    return np.asarray((words >> np.uint64(11)).astype(np.float64) * _TO_UNIT)
