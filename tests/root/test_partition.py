"""However data is cut, every sample goes to exactly one client and every client gets enough."""

import hashlib
import re
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgerow.errors import DecodeError, PartitionError, PluginError, UnknownNameError
from hedgerow.partition import PARTITIONS, Partition, parse_partition
from tests.distributions import install_distribution

LABELS = np.repeat(np.arange(5), 40)
USERS = {"user": np.array([f"user {number % 12}" for number in range(200)])}
BY_LABEL = sorted(set(PARTITIONS) - {"column"})


@given(
    name=st.sampled_from(BY_LABEL),
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
    partition = Partition(name, column="user")
    first, second = (partition.split(LABELS, 4, np.random.default_rng(3), USERS) for _ in range(2))

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
    with pytest.raises(
        PartitionError, match=r"^expected at least 12 samples for 4 clients, found 11; use fewer clients$"
    ):
        Partition(minimum_samples=3).split(np.zeros(11, np.int64), 4, np.random.default_rng(0))


def test_exactly_enough_samples_are_dealt_evenly():
    shards = Partition("dirichlet", alpha=0.01, minimum_samples=3).split(
        np.zeros(12, np.int64), 4, np.random.default_rng(0)
    )

    assert [len(shard) for shard in shards] == [3, 3, 3, 3]


@pytest.mark.parametrize("minimum", [0, 1])
def test_as_many_samples_as_clients_are_one_for_each(minimum):
    for name in BY_LABEL:
        shards = Partition(name, alpha=0.01, minimum_samples=minimum, shards_per_client=1).split(
            np.zeros(4, np.int64), 4, np.random.default_rng(0)
        )
        assert [len(shard) for shard in shards] == [1, 1, 1, 1], name


def test_clients_of_a_column_keep_what_is_theirs_however_little_it_is():
    users = {"user": np.array(["a", "b", "b", "b", "b", "c"])}
    partition = Partition("column", column="user", minimum_samples=3)

    shards = partition.split(np.zeros(6, np.int64), 3, np.random.default_rng(0), users)

    assert [shard.tolist() for shard in shards] == [[0], [1, 2, 3, 4], [5]]


def test_a_partition_of_which_nothing_is_said_is_even():
    assert Partition() == Partition("iid", alpha=0.5, shards_per_client=2, minimum_samples=1, column="")


def test_an_unknown_name_is_a_mistake_and_an_error():
    with pytest.raises(UnknownNameError, match=r"^no partition is called 'dirichet'; did you mean 'dirichlet'\?$"):
        Partition("dirichet").split(LABELS, 2, np.random.default_rng(0))
    assert Partition().mistakes() == []


@pytest.mark.parametrize(
    ("partition", "mistakes"),
    [
        (Partition("dirichlet", alpha=0), ["partition: alpha must be above 0, found 0"]),
        (Partition("dirichlet", alpha=5e-324), []),
        (
            Partition("shards", shards_per_client=0),
            ["partition: shards_per_client must be at least 1, found 0"],
        ),
        (
            Partition(minimum_samples=-1),
            ["partition: minimum_samples must be at least 0, found -1"],
        ),
        (Partition("shards", shards_per_client=1, minimum_samples=0), []),
        (
            Partition("column"),
            ["partition: expected the name of the column whose values are the clients, found none"],
        ),
        (Partition("column", column="user"), []),
    ],
    ids=str,
)
def test_each_setting_out_of_range_is_one_sentence(partition, mistakes):
    assert partition.mistakes() == mistakes


@pytest.mark.parametrize(
    ("partition", "expected"),
    [
        (Partition(), "a01ee6b05dfe7624"),
        (Partition("dirichlet", alpha=0.1, minimum_samples=3), "1880b0e115f65706"),
        (Partition("shards", shards_per_client=3), "75ce63610df02da2"),
        (Partition("quantity", alpha=0.3, minimum_samples=2), "83b3ad2b648ffd69"),
    ],
    ids=str,
)
def test_what_was_cut_before_is_cut_the_same(partition, expected):
    """Runs and releases name data that was cut by these seeds."""
    labels = np.random.default_rng(5).integers(0, 7, 500)

    shards = partition.split(labels, 40, np.random.default_rng(11))

    digest = hashlib.sha256(b"".join(shard.astype("<i8").tobytes() + b"/" for shard in shards)).hexdigest()
    assert digest[:16] == expected


@pytest.mark.parametrize("name", BY_LABEL)
def test_a_hundred_thousand_clients_are_cut_in_a_second_or_two(name):
    labels = np.random.default_rng(0).integers(0, 10, 300_000)
    started = time.process_time()

    order, starts = Partition(name, alpha=0.1).cut(labels, 100_000, np.random.default_rng(0))

    assert time.process_time() - started < 3
    assert len(starts) == 100_001
    assert np.diff(starts).min() >= 1
    assert np.array_equal(np.sort(order), np.arange(300_000))


def test_quantity_skew_makes_sizes_unequal_and_leaves_labels_mixed():
    labels = np.random.default_rng(0).integers(0, 5, 5000)
    even, skewed = (
        Partition("quantity", alpha=alpha).split(labels, 10, np.random.default_rng(0)) for alpha in (1000, 0.3)
    )

    assert max(map(len, even)) < 2 * min(map(len, even))
    assert max(map(len, skewed)) > 10 * min(map(len, skewed))
    largest = max(skewed, key=len)
    assert np.bincount(labels[largest]).min() / len(largest) > 0.15


def test_each_value_of_a_column_is_a_client():
    partition = parse_partition("column:user")

    assert partition.natural_clients(USERS) == 12
    shards = partition.split(LABELS, 12, np.random.default_rng(0), USERS)

    assert [set(USERS["user"][shard]) for shard in shards] == [{user} for user in np.unique(USERS["user"])]


def test_fewer_clients_than_values_share_whole_values():
    shards = parse_partition("column:user").split(LABELS, 5, np.random.default_rng(0), USERS)

    held = [set(USERS["user"][shard]) for shard in shards]
    assert sorted(user for users in held for user in users) == sorted(set(USERS["user"]))
    assert sorted(len(users) for users in held) == [2, 2, 2, 3, 3]
    assert sum(map(len, shards)) == len(LABELS)


def test_more_clients_than_values_and_an_absent_column_are_refused():
    partition = parse_partition("column:user")

    with pytest.raises(
        PartitionError,
        match=r"^expected at most 12 clients, one for each value of the column 'user', found 13; use fewer clients$",
    ):
        partition.split(LABELS, 13, np.random.default_rng(0), USERS)
    for columns, found in (
        ({"year": LABELS, "site": LABELS}, "site, year; name one of them, or add it"),
        ({}, "none; add it"),
    ):
        with pytest.raises(PartitionError) as caught:
            partition.natural_clients(columns)
        assert str(caught.value) == f"expected a column 'user' in the data, found {found} to the data set's columns"
    with pytest.raises(PartitionError, match=r"found none; add it to the data set's columns$"):
        partition.split(LABELS, 2, np.random.default_rng(0))
    assert Partition("dirichlet").natural_clients({}) is None


@pytest.mark.parametrize("text", ["iid", "dirichlet:0.1", "shards:3", "quantity:0.5", "column:user"])
def test_a_partition_is_read_from_what_it_shows(text):
    assert str(parse_partition(text)) == text


def test_numbers_may_be_left_out():
    assert parse_partition(" dirichlet ") == Partition("dirichlet")
    assert parse_partition("shards") == Partition("shards")


FORMS = {
    "iid": "iid alone",
    "dirichlet": "dirichlet:ALPHA with a number above 0, such as dirichlet:0.1",
    "shards": "shards:N with a whole number of shards for each client, such as shards:2",
    "quantity": "quantity:ALPHA with a number above 0, such as quantity:0.5",
    "column": "column:NAME with the name of a column of the data, such as column:user",
}


@pytest.mark.parametrize(
    "text", ["iid:2", "dirichlet:", "dirichlet:0", "dirichlet:nan", "quantity:inf", "shards:0", "shards:1.5", "column"]
)
def test_a_malformed_partition_is_answered_with_its_form(text):
    with pytest.raises(PartitionError) as caught:
        parse_partition(text)

    form = FORMS[text.partition(":")[0]]
    assert str(caught.value) == f"expected the partition as {form}, found {text!r}; correct it"


def test_an_unknown_partition_is_answered_with_the_nearest():
    with pytest.raises(UnknownNameError, match=r"^no partition is called 'dirchlet'; did you mean 'dirichlet'\?$"):
        parse_partition("dirchlet:0.1")


DEALT = """
import numpy as np

def by_turns(labels, clients, rng, columns):
    \"\"\"Deal samples like cards, after a shuffle.\"\"\"
    order = rng.permutation(len(labels))
    return [order[client::clients] for client in range(clients)]

def by_user(labels, clients, rng, columns):
    return [np.flatnonzero(columns["user"] == f"user {client}") for client in range(clients)]

def too_few(labels, clients, rng, columns):
    return [np.arange(3)] * (clients - 1)

def twice(labels, clients, rng, columns):
    return [np.arange(3) for _ in range(clients)]

def beyond(labels, clients, rng, columns):
    return [np.array([len(labels) + client]) for client in range(clients)]

def negative(labels, clients, rng, columns):
    return [np.array([-1 - client]) for client in range(clients)]

def halves(labels, clients, rng, columns):
    return [np.array([client + 0.5]) for client in range(clients)]

def empty(labels, clients, rng, columns):
    return [np.arange(client, dtype=np.int64) + 10 * client for client in range(clients)]

def table(labels, clients, rng, columns):
    return rng.permutation(len(labels))[: clients * 5].reshape(clients, 5)

def yielded(labels, clients, rng, columns):
    yield np.arange(3)

def words(labels, clients, rng, columns):
    return "abc"[:clients]

def nothing(labels, clients, rng, columns):
    return None

def wrong(labels, clients, rng, columns):
    return columns["nowhere"]

def refusing(labels, clients, rng, columns):
    from hedgerow.errors import DecodeError
    raise DecodeError("dealt", "a column", "none")

def spoiling(labels, clients, rng, columns):
    order = [np.flatnonzero(labels % clients == client) for client in range(clients)]
    labels[:] = 0
    columns["user"][:] = 0
    columns.pop("user")
    return order

def ragged(labels, clients, rng, columns):
    return [[0, 1], [2, [3, 4]], [5]][:clients]

class Refusing:
    def __array__(self, *_args, **_settings):
        raise KeyError("mine")

def unreadable(labels, clients, rng, columns):
    return [Refusing()] * clients

number = 7
"""


@pytest.fixture
def dealt(tmp_path):
    (tmp_path / "dealt.py").write_text(DEALT)
    return f"{tmp_path}/dealt.py"


def test_a_users_own_partition_deals_the_samples(dealt):
    partition = parse_partition(f"{dealt}:by_turns")
    shards = partition.split(LABELS, 3, np.random.default_rng(5))

    order = np.random.default_rng(5).permutation(200)
    assert [shard.tolist() for shard in shards] == [sorted(order[client::3].tolist()) for client in range(3)]
    assert str(partition) == f"{dealt}:by_turns"
    assert parse_partition(str(partition)) == partition
    assert partition.mistakes() == []


def test_a_users_own_partition_may_deal_a_table(dealt):
    shards = Partition(f"{dealt}:table").split(LABELS, 3, np.random.default_rng(1))
    rows = np.random.default_rng(1).permutation(200)[:15].reshape(3, 5)
    assert [shard.tolist() for shard in shards] == [sorted(row) for row in rows.tolist()]


def test_a_users_own_partition_sees_the_columns_and_may_leave_samples_out(dealt):
    shards = Partition(f"{dealt}:by_user").split(LABELS, 2, np.random.default_rng(0), USERS)
    assert [shard.tolist() for shard in shards] == [list(range(client, 200, 12)) for client in range(2)]


def test_a_partition_of_a_distribution_is_found_by_its_name(tmp_path, monkeypatch):
    install_distribution(tmp_path, "deals_cards", DEALT, {"hedgerow.partitions": {"cards": "deals_cards:by_turns"}})
    assert Partition("cards").mistakes()
    monkeypatch.syspath_prepend(tmp_path)

    assert Partition("cards").mistakes() == []
    assert [len(shard) for shard in parse_partition("cards").split(LABELS, 3, np.random.default_rng(0))] == [67, 67, 66]
    with pytest.raises(UnknownNameError, match=r"^no partition is called 'card'; did you mean 'cards'\?$"):
        parse_partition("card")
    with pytest.raises(UnknownNameError, match=r"^no partition is called 'cards:3'; did you mean 'cards'\?$"):
        parse_partition("cards:3")


def test_a_partition_of_a_distribution_may_have_a_colon_in_its_name(tmp_path, monkeypatch):
    install_distribution(tmp_path, "deals_colons", DEALT, {"hedgerow.partitions": {"my:part": "deals_colons:by_turns"}})
    with pytest.raises(UnknownNameError):
        parse_partition("my:part")
    monkeypatch.syspath_prepend(tmp_path)

    assert parse_partition("my:part") == Partition("my:part")
    assert [len(s) for s in Partition("my:part").split(LABELS, 3, np.random.default_rng(0))] == [67, 67, 66]
    with pytest.raises(UnknownNameError, match="my:part"):
        parse_partition("my:parts")


@pytest.mark.parametrize(
    ("function", "found"),
    [
        ("too_few", "found 2 of them"),
        ("twice", "found one position twice"),
        ("beyond", "found 200 to 202"),
        ("negative", "found -3 to -1"),
        ("halves", "found float64(1,) for client 0"),
        ("empty", "found int64(0,) for client 0"),
        ("yielded", "found generator"),
        ("words", "found <U1() for client 0"),
        ("nothing", "found NoneType"),
        ("ragged", "found a list that is no array for client 1"),
        ("unreadable", "found a Refusing that is no array for client 0"),
    ],
)
def test_what_a_users_own_partition_deals_is_judged(dealt, function, found):
    with pytest.raises(PartitionError) as caught:
        Partition(f"{dealt}:{function}").split(LABELS, 3, np.random.default_rng(0))
    assert str(caught.value) == (
        f"expected of the partition '{dealt}:{function}' for each of 3 clients an array of 1 or more different "
        f"positions below 200, {found}; correct it"
    )


def test_a_users_own_partition_cannot_change_the_data(dealt):
    labels = np.arange(200) % 4
    columns = {"user": np.arange(200) % 12}
    shards = Partition(f"{dealt}:spoiling").split(labels, 4, np.random.default_rng(0), columns)

    assert [shard.tolist() for shard in shards] == [list(range(client, 200, 4)) for client in range(4)]
    assert labels.tolist() == (np.arange(200) % 4).tolist()
    assert columns["user"].tolist() == (np.arange(200) % 12).tolist()


def test_a_users_own_partition_must_give_the_minimum(dealt):
    said = "an array of 18 or more different positions below 200, found int64(17,) for client 0"
    with pytest.raises(PartitionError, match=re.escape(said)):
        Partition(f"{dealt}:by_user", minimum_samples=18).split(LABELS, 3, np.random.default_rng(0), USERS)


def test_what_a_users_own_partition_raises_is_blamed_on_it(dealt):
    with pytest.raises(PluginError, match=r"it raised KeyError: 'nowhere'; correct it$"):
        Partition(f"{dealt}:wrong").split(LABELS, 3, np.random.default_rng(0))
    with pytest.raises(
        PluginError, match=r"expected a function \(labels, clients, rng, columns\), found int; name another$"
    ):
        parse_partition(f"{dealt}:number")


def test_an_error_of_the_tree_from_a_users_own_partition_passes_as_it_is(dealt):
    with pytest.raises(DecodeError, match=r"^dealt: expected a column, found none$"):
        Partition(f"{dealt}:refusing").split(LABELS, 2, np.random.default_rng(0))


def test_a_task_with_a_users_own_partition_runs_no_code_of_theirs(tmp_path):
    assert Partition(f"{tmp_path}/no_such_file.py:mine").mistakes() == []
    assert "no partition is called 'mine:5'" in Partition("mine:5").mistakes()[0]
