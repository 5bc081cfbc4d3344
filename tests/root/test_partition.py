"""However data is cut, every sample goes to exactly one client and every client gets enough."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgerow.errors import UnknownNameError
from hedgerow.partition import PARTITIONS, Partition, PartitionError

LABELS = np.repeat(np.arange(5), 40)


@given(
    name=st.sampled_from(sorted(PARTITIONS)),
    labels=st.lists(st.integers(0, 4), min_size=24, max_size=120),
    clients=st.integers(1, 8),
    minimum=st.integers(0, 3),
    alpha=st.floats(0.01, 100),
    seed=st.integers(0, 2**32),
)
def test_every_sample_goes_to_one_client_and_every_client_gets_the_minimum(name, labels, clients, minimum, alpha, seed):
    partition = Partition(name, alpha=alpha, minimum_samples=minimum)

    shards = partition.split(np.array(labels), clients, np.random.default_rng(seed))

    assert len(shards) == clients
    assert sorted(np.concatenate(shards).tolist()) == list(range(len(labels)))
    assert all(len(shard) >= max(1, minimum) for shard in shards)
    assert all((np.diff(shard) > 0).all() for shard in shards)


@pytest.mark.parametrize("name", sorted(PARTITIONS))
def test_the_same_seed_cuts_the_same(name):
    first, second = (Partition(name).split(LABELS, 4, np.random.default_rng(3)) for _ in range(2))

    assert all((a == b).all() for a, b in zip(first, second, strict=True))


def classes_per_client(partition: Partition) -> float:
    shards = partition.split(LABELS, 10, np.random.default_rng(0))
    return float(np.mean([len(np.unique(LABELS[shard])) for shard in shards]))


def test_small_alpha_is_more_uneven_than_large():
    assert classes_per_client(Partition("dirichlet", alpha=0.05)) < 3
    assert classes_per_client(Partition("dirichlet", alpha=1000)) == 5


def test_two_shards_hold_at_most_three_classes_each_here():
    assert classes_per_client(Partition("shards", shards_per_client=2)) <= 3


def test_an_even_cut_differs_by_one_sample_at_most():
    sizes = [len(shard) for shard in Partition().split(np.zeros(10, np.int64), 4, np.random.default_rng(0))]

    assert sorted(sizes) == [2, 2, 3, 3]


def test_too_few_samples_are_refused():
    with pytest.raises(PartitionError, match="expected at least 12 samples for 4 clients, found 11"):
        Partition(minimum_samples=3).split(np.zeros(11, np.int64), 4, np.random.default_rng(0))


def test_exactly_enough_samples_are_dealt_evenly():
    shards = Partition("dirichlet", alpha=0.01, minimum_samples=3).split(
        np.zeros(12, np.int64), 4, np.random.default_rng(0)
    )

    assert [len(shard) for shard in shards] == [3, 3, 3, 3]


def test_an_unknown_name_is_a_mistake_and_an_error():
    with pytest.raises(UnknownNameError, match="did you mean 'dirichlet'"):
        Partition("dirichet").split(LABELS, 2, np.random.default_rng(0))
    assert len(Partition("dirichet", alpha=0, shards_per_client=0).mistakes()) == 3
    assert Partition().mistakes() == []
