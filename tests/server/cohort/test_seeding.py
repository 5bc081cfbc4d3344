"""Tests of hedgerow.server.cohort.seeding: the same generators as numpy's own."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hedgerow.server.cohort.seeding import seeded_generators


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=5), st.integers(1, 100))
def test_generators_are_those_of_default_rng(seeds, samples):
    for seed, generator in zip(seeds, seeded_generators(seeds), strict=True):
        wanted = np.random.default_rng(seed)
        assert generator.bit_generator.state == wanted.bit_generator.state
        assert np.array_equal(generator.permutation(samples), wanted.permutation(samples))


def test_seeds_at_the_edges_of_words_are_taken():
    seeds = [0, 1, 2**32 - 1, 2**32, 2**63 - 1, 2**64 - 1]
    states = [generator.bit_generator.state for generator in seeded_generators(seeds)]
    assert states == [np.random.default_rng(seed).bit_generator.state for seed in seeds]


def test_a_draw_leaves_nothing_behind_for_the_next():
    first = []
    for generator in seeded_generators([5, 5]):
        generator.integers(0, 10, dtype=np.int32)  # keeps half a word
        first.append(generator.integers(0, 2**31, dtype=np.int32))
    assert first[0] == first[1]
