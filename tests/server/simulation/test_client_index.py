"""Every client has samples, also where there are more clients than samples."""

import numpy as np
import pytest

from hedgerow.errors import PartitionError
from hedgerow.partition import Partition, parse_partition
from hedgerow.server.simulation.client_index import register_clients
from hedgerow.task import Dataset

DATA = Dataset(
    {"x": np.zeros((200, 1), np.float32)},
    np.arange(200, dtype=np.int64) % 4,
    {"user": np.arange(200) // 20},
)


def test_enough_samples_are_cut_as_training_cuts_them():
    partition = Partition("dirichlet", alpha=0.3)
    registered = register_clients(DATA, DATA.target_values, partition, 20, seed=3)

    shards = partition.split(DATA.target_values, 20, np.random.default_rng(3))
    assert registered.note == ""
    assert [registered.index.indices(client).tolist() for client in range(20)] == [s.tolist() for s in shards]


def test_a_million_clients_draw_their_samples_when_they_are_asked():
    registered = register_clients(DATA, DATA.target_values, Partition(), 1_000_000, seed=0, shared_samples=8)

    assert len(registered.index) == 1_000_000
    assert registered.index.size(999_999) == 8
    first, second = (registered.index.indices(client).tolist() for client in (5, 999_999))
    assert first != second
    assert registered.index.indices(5).tolist() == first
    assert registered.note == "1,000,000 clients share 200 samples: each draws 8 of them"


def test_a_million_skewed_clients_share_shards():
    registered = register_clients(
        DATA, DATA.target_values, parse_partition("shards:1"), 1_000_000, seed=0, shared_samples=8
    )

    assert registered.note == "1,000,000 clients share 200 samples: 25 shards of about 8 each"
    assert registered.index.indices(3).tolist() == registered.index.indices(28).tolist()
    assert len(set(DATA.target_values[registered.index.indices(3)])) <= 2


def test_a_minimum_that_does_not_fit_makes_clients_share():
    registered = register_clients(DATA, DATA.target_values, Partition("dirichlet", minimum_samples=32), 20, seed=0)

    assert min(registered.index.size(client) for client in range(20)) >= 32
    assert "6 shards of about 32 each" in registered.note


def test_asked_samples_are_had_on_average():
    few = register_clients(DATA, DATA.target_values, Partition(), 4, seed=0, samples=10)
    many = register_clients(DATA, DATA.target_values, Partition("dirichlet", alpha=10), 50, seed=0, samples=10)

    assert [few.index.size(client) for client in range(4)] == [10] * 4
    assert np.mean([many.index.size(client) for client in range(20)]) == 10


def test_a_column_says_how_many_clients_there_are():
    partition = parse_partition("column:user")

    assert len(register_clients(DATA, DATA.target_values, partition, None, seed=0).index) == 10
    assert len(register_clients(DATA, DATA.target_values, partition, 3, seed=0).index) == 3
    more = register_clients(DATA, DATA.target_values, partition, 25, seed=0)
    assert more.index.indices(24).tolist() == more.index.indices(4).tolist()
    assert more.note == "25 clients share the samples of the 10 values of 'user'"


@pytest.mark.parametrize(
    ("partition", "samples"), [("iid", 201), ("iid", 0), ("column:user", 5), ("column:site", None)]
)
def test_what_cannot_be_cut_is_refused(partition, samples):
    with pytest.raises(PartitionError, match="expected"):
        register_clients(DATA, DATA.target_values, parse_partition(partition), 3, seed=0, samples=samples)
