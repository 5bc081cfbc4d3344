"""Tests of hedgerow.batches: devices and simulated clients must agree on it to the last index."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgerow.batches import batch_indices, client_seed


def test_the_last_batch_wraps_to_the_start_of_the_permutation():
    found = batch_indices(5, 4, np.random.default_rng(0))
    order = np.random.default_rng(0).permutation(5)
    assert found.tolist() == [order[:4].tolist(), [order[4], *order[:3]]]
    assert found.dtype == np.int64


def test_a_client_smaller_than_a_batch_repeats_its_samples():
    found = batch_indices(3, 8, np.random.default_rng(1))
    order = np.random.default_rng(1).permutation(3)
    assert found.tolist() == [[*order, *order, *order[:2]]]


def test_an_even_split_repeats_nothing():
    assert sorted(batch_indices(32, 8, np.random.default_rng(2)).reshape(-1)) == list(range(32))


@given(st.integers(1, 300), st.integers(1, 40), st.integers(0, 2**32))
def test_every_sample_is_in_an_epoch_and_none_more_often_than_wrapping_needs(samples, batch_size, seed):
    found = batch_indices(samples, batch_size, np.random.default_rng(seed))
    counts = np.bincount(found.reshape(-1), minlength=samples)
    assert found.shape == (-(-samples // batch_size), batch_size)
    assert counts.min() >= 1
    assert counts.max() - counts.min() <= 1


def test_each_epoch_of_one_generator_is_another_permutation():
    rng = np.random.default_rng(3)
    assert batch_indices(50, 10, rng).tolist() != batch_indices(50, 10, rng).tolist()


@pytest.mark.parametrize(("samples", "batch_size"), [(0, 4), (4, 0)])
def test_nothing_to_cut_is_a_wrong_call(samples, batch_size):
    with pytest.raises(ValueError, match="at least 1"):
        batch_indices(samples, batch_size, np.random.default_rng(0))


def test_the_seed_is_the_same_in_every_process():
    assert client_seed(0, 1, "a") == 3562115698689350468


def test_seed_round_and_client_all_matter():
    seeds = {client_seed(s, r, c) for s in (0, 1, 11) for r in (1, 2, 11) for c in ("0", "1", "11")}
    assert len(seeds) == 27
    assert all(0 <= seed < 2**63 for seed in seeds)
