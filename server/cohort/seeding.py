"""The generators of many clients, seeded at once: what ``numpy.random.default_rng(seed)`` starts from, as arrays.

Seeding one generator costs more than drawing a small client's order. Both algorithms are fixed by numpy's
compatibility policy (NEP 19): ``SeedSequence`` (O'Neill 2015, "Developing a seed_seq alternative") and PCG64's own
initialization (O'Neill 2014, HMC-CS-2014-0905).
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["seeded_generators"]

_POOL = 4
_INIT_A, _MULT_A = 0x43B0D7E5, 0x931E8875
_INIT_B, _MULT_B = 0x8B51F9DD, 0x58F38DED
_MIX_LEFT, _MIX_RIGHT = np.uint32(0xCA01F9DD), np.uint32(0x4973F715)
_SHIFT = np.uint32(16)
_PCG_MULTIPLIER = 0x2360ED051FC65DA44385DF649FCCF645
_WORD, _STATE = 2**32, 2**128

Words = NDArray[np.uint32]


def seeded_generators(seeds: Sequence[int]) -> Iterator[np.random.Generator]:
    """Yield a generator in the state of ``default_rng(seed)``, for each of *seeds*.

    It is one and the same object: each must be used before the next is taken.

    Args:
        seeds: Whole numbers from 0 to 2**64 - 1.
    """
    bits = np.random.PCG64(0)
    generator = np.random.Generator(bits)
    for words in _generate(_mix(np.array(seeds, dtype=np.uint64))).tolist():
        start, increment = words[0] << 64 | words[1], (words[2] << 64 | words[3]) << 1 | 1
        increment %= _STATE
        state = ((increment + start) * _PCG_MULTIPLIER + increment) % _STATE
        bits.state = {
            "bit_generator": "PCG64",
            "state": {"state": state, "inc": increment},
            "has_uint32": 0,
            "uinteger": 0,
        }
        yield generator


class _HashConstant:
    """The constant that changes with every word that is hashed."""

    def __init__(self, first: int, factor: int) -> None:
        self._value, self._factor = first, factor

    def hash(self, words: Words) -> Words:
        """Return the hash of each word."""
        words = words ^ np.uint32(self._value)
        self._value = self._value * self._factor % _WORD
        words = words * np.uint32(self._value)
        return words ^ (words >> _SHIFT)


def _mix(seeds: NDArray[np.uint64]) -> list[Words]:
    low, high = seeds.astype(np.uint32), (seeds >> np.uint64(32)).astype(np.uint32)
    constant = _HashConstant(_INIT_A, _MULT_A)
    nothing = np.zeros_like(low)
    pool = [constant.hash(words) for words in (low, high, nothing, nothing)]
    for source in range(_POOL):
        for target in range(_POOL):
            if source != target:
                mixed = _MIX_LEFT * pool[target] - _MIX_RIGHT * constant.hash(pool[source])
                pool[target] = mixed ^ (mixed >> _SHIFT)
    return pool


def _generate(pool: list[Words]) -> NDArray[np.uint64]:
    """Return four words of 64 bits for each seed."""
    constant = _HashConstant(_INIT_B, _MULT_B)
    halves = [constant.hash(pool[number % _POOL]).astype(np.uint64) for number in range(2 * _POOL)]
    shift = np.uint64(32)
    return np.stack([low | high << shift for low, high in zip(halves[::2], halves[1::2], strict=True)], axis=1)
