"""Cut one labelled data set into clients' shards. Pure: the random generator is passed in.

A partition of a user's own is a function ``(labels, clients, rng, columns) -> positions of each client's samples``,
named as ``file.py:function``, ``module:function``, or by an entry point of the group ``hedgerow.partitions``. Where the
outputs have no classes, its labels are all 0.
"""

import heapq
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hedgerow.errors import HedgerowError, PartitionError, PluginError, UnknownNameError
from hedgerow.field_types import number_mistakes
from hedgerow.plugins import is_reference, load_user_plugin, offered_names

__all__ = ["PARTITIONS", "PARTITION_GROUP", "Partition", "parse_partition"]

Indices = NDArray[np.int64]
Columns = Mapping[str, NDArray[Any]]
Cut = tuple[Indices, Indices]
"""Positions of samples, client after client, and how many each client has."""


PARTITION_GROUP = "hedgerow.partitions"
"""The group of entry points under which distributions offer partitions."""


@dataclass(frozen=True, slots=True)
class Partition:
    """How client data is spread.

    Attributes:
        name: A key of :data:`PARTITIONS`, or the name of a user's own.
        alpha: Dirichlet concentration; smaller is more uneven. Of ``dirichlet`` and ``quantity``.
        shards_per_client: Label-sorted shards for each client. Of ``shards``.
        minimum_samples: Every client gets at least this many; ``column`` moves no sample to another client for it,
            and a user's own partition must give so many.
        column: The data set's column whose values are the clients, such as ``user``. Of ``column``.
    """

    name: str = "iid"
    alpha: float = 0.5
    shards_per_client: int = 2
    minimum_samples: int = 1
    column: str = ""

    def __str__(self) -> str:
        """Return what :func:`parse_partition` reads."""
        argument = {
            "dirichlet": f":{self.alpha:g}",
            "quantity": f":{self.alpha:g}",
            "shards": f":{self.shards_per_client}",
            "column": f":{self.column}",
        }
        return self.name + argument.get(self.name, "")

    def mistakes(self) -> list[str]:
        """Return one sentence for everything that is wrong."""
        found = []
        # Only looked up: a task that is made runs no code of its user's.
        texts: tuple[object, ...] = (self.name, self.column)
        if not all(isinstance(text, str) for text in texts):
            found.append(f"partition: name and column must be text, found {self.name!r} and {self.column!r}")
        elif self.name not in PARTITIONS and not is_reference(self.name):
            offered = offered_names(PARTITION_GROUP)
            if self.name not in offered:
                found.append(str(UnknownNameError("partition", self.name, {*PARTITIONS, *offered})))
        found += number_mistakes("partition: alpha", self.alpha, above=0)
        found += number_mistakes("partition: shards_per_client", self.shards_per_client, least=1, whole=True)
        found += number_mistakes("partition: minimum_samples", self.minimum_samples, least=0, whole=True)
        if self.name == "column" and not self.column:
            found.append("partition: expected the name of the column whose values are the clients, found none")
        return found

    def split(
        self, labels: NDArray[np.int64] | int, clients: int, rng: np.random.Generator, columns: Columns | None = None
    ) -> list[Indices]:
        """Return each client's indices, sorted.

        Args:
            labels: Class of each sample, ``int64[n]``; where the outputs have no classes, the number of samples.
            clients: How many shards.
            rng: Decides everything random.
            columns: The data set's columns, for ``column``.

        Raises:
            UnknownNameError: No partition has this name.
            PluginError: A user's own cannot be imported, or raised something.
            PartitionError: There are too few samples, or no classes to cut by; the column is absent or has too few
                values; or a user's own does not give each client samples that are in the data.
        """
        order, starts = self.cut(labels, clients, rng, columns)
        return np.split(order, starts[1:-1])

    def cut(
        self, labels: NDArray[np.int64] | int, clients: int, rng: np.random.Generator, columns: Columns | None = None
    ) -> tuple[Indices, Indices]:
        """Return what :meth:`split` does as one array and its cuts, which is cheap for very many clients.

        Returns:
            Positions of samples ``int64[n]``, client after client and sorted within each, and where each client's
            begin, with the end of the last: ``int64[clients + 1]``.

        Raises:
            UnknownNameError: No partition has this name.
            PluginError: A user's own cannot be imported, or raised something.
            PartitionError: There are too few samples, or no classes to cut by; the column is absent or has too few
                values; or a user's own does not give each client samples that are in the data.
        """
        cutter = _cutter(self.name)
        if isinstance(labels, int):
            if self.name in _BY_CLASS:
                raise PartitionError(
                    f"expected an output with classes, by which the partition {self} cuts, found none; use iid, "
                    "quantity:ALPHA or column:NAME"
                )
            labels = np.zeros(labels, dtype=np.int64)
        minimum = max(1, self.minimum_samples)
        need = clients * (1 if self.name == "column" else minimum)
        if len(labels) < need:
            raise PartitionError(
                f"expected at least {need} samples for {clients} clients, found {len(labels)}; use fewer clients"
            )
        order, sizes = cutter(self, labels, clients, rng, columns or {})
        if self.name != "column" and self.name in PARTITIONS:
            order, sizes = _topped_up(order, sizes, minimum)
        starts = np.zeros(clients + 1, dtype=np.int64)
        np.cumsum(sizes, out=starts[1:])
        owner = np.repeat(np.arange(clients), sizes)
        return order[np.lexsort((order, owner))], starts

    def natural_clients(self, columns: Columns) -> int | None:
        """Return how many clients the data itself says there are, or None where any number will do.

        Raises:
            PartitionError: The column is absent.
        """
        return len(np.unique(self._values(columns))) if self.name == "column" else None

    def _values(self, columns: Columns) -> NDArray[Any]:
        if self.column not in columns:
            there = ", ".join(sorted(columns)) or "none"
            advice = "name one of them, or add it" if columns else "add it"
            raise PartitionError(
                f"expected a column {self.column!r} in the data, found {there}; {advice} to the data set's columns"
            )
        return columns[self.column]


def parse_partition(text: str) -> Partition:
    """Read a partition from one word.

    Args:
        text: ``iid``, ``dirichlet:ALPHA``, ``shards:SHARDS_PER_CLIENT``, ``quantity:ALPHA`` or ``column:NAME``; a
            number may be left out. Or the name of a user's own, which is imported.

    Raises:
        UnknownNameError: No partition has this name.
        PluginError: A user's own cannot be imported.
        PartitionError: What follows the name is not what it needs.
    """
    name, separator, argument = text.strip().partition(":")
    if name not in PARTITIONS:
        whole = text.strip()
        offered = offered_names(PARTITION_GROUP)
        if separator and whole not in offered and not is_reference(whole):
            # A user's own takes nothing after its name.
            unknown = whole if name in offered else name
            raise UnknownNameError("partition", unknown, {*PARTITIONS, *offered})
        _cutter(whole)
        return Partition(whole)
    expected = _FORMS[name]
    try:
        if name == "column":
            partition = Partition(name, column=argument)
        elif name == "iid" or not separator:
            partition = Partition(name)
        elif name == "shards":
            partition = Partition(name, shards_per_client=int(argument))
        else:
            partition = Partition(name, alpha=float(argument))
    except ValueError:
        raise _wrong_form(text, expected) from None
    if partition.mistakes() or (name == "iid" and separator):
        raise _wrong_form(text, expected)
    return partition


_FORMS: Mapping[str, str] = {
    "iid": "iid alone",
    "dirichlet": "dirichlet:ALPHA with a number above 0, such as dirichlet:0.1",
    "shards": "shards:N with a whole number of shards for each client, such as shards:2",
    "quantity": "quantity:ALPHA with a number above 0, such as quantity:0.5",
    "column": "column:NAME with the name of a column of the data, such as column:user",
}


def _wrong_form(text: str, expected: str) -> PartitionError:
    return PartitionError(f"expected the partition as {expected}, found {text!r}; correct it")


def _cutter(name: str) -> "Cutter":
    """Return the function that cuts, of ours or a user's."""
    ours = PARTITIONS.get(name)
    if ours is not None:
        return ours
    theirs = load_user_plugin("partition", name, group=PARTITION_GROUP, known=PARTITIONS)
    if not callable(theirs):
        found = f"expected a function (labels, clients, rng, columns), found {type(theirs).__name__}; name another"
        raise PluginError("partition", name, found)

    def cut(
        partition: Partition, labels: NDArray[np.int64], clients: int, rng: np.random.Generator, columns: Columns
    ) -> Cut:
        # Copies: what the function does to its arguments must not change what is trained on.
        given = {name: np.array(values) for name, values in columns.items()}
        try:
            shards = theirs(np.array(labels), clients, rng, given)
        except HedgerowError:
            raise
        # The user's code may raise anything; the report must name it all the same.
        except (Exception, SystemExit) as exc:
            raised = " ".join(f"{type(exc).__name__}: {exc}".split())
            raise PluginError("partition", name, f"it raised {raised}; correct it") from exc
        return _judged(partition, shards, len(labels), clients)

    return cut


def _judged(partition: Partition, shards: object, samples: int, clients: int) -> Cut:
    """Return what a user's own partition gave, as one array and its sizes."""
    minimum = max(1, partition.minimum_samples)

    def wrong(found: str) -> PartitionError:
        return PartitionError(
            f"expected of the partition {partition.name!r} for each of {clients} clients an array of {minimum} or more "
            f"different positions below {samples}, found {found}; correct it"
        )

    if isinstance(shards, np.ndarray) and shards.ndim:
        shards = list(shards)  # as many for each
    if not isinstance(shards, Sequence) or len(shards) != clients:
        raise wrong(f"{len(shards)} of them" if isinstance(shards, Sequence) else type(shards).__name__)
    arrays = []
    for client, shard in enumerate(shards):
        try:
            arrays.append(np.asarray(shard))
        # What is in a list may refuse to become an array, each thing in its own way.
        except (Exception, SystemExit) as exc:
            raise wrong(f"a {type(shard).__name__} that is no array for client {client}") from exc
    for client, array in enumerate(arrays):
        if array.ndim != 1 or array.size < minimum or array.dtype.kind not in "iu":
            raise wrong(f"{array.dtype}{array.shape} for client {client}")
    order = np.concatenate([array.astype(np.int64) for array in arrays])
    if not 0 <= order.min() <= order.max() < samples:
        raise wrong(f"{order.min()} to {order.max()}")
    if len(np.unique(order)) != len(order):
        raise wrong("one position twice")
    return order, np.array([len(array) for array in arrays], dtype=np.int64)


def _iid(
    _partition: Partition, labels: NDArray[np.int64], clients: int, rng: np.random.Generator, _columns: Columns
) -> Cut:
    return rng.permutation(len(labels)), _even_sizes(len(labels), clients)


def _dirichlet(
    partition: Partition, labels: NDArray[np.int64], clients: int, rng: np.random.Generator, _columns: Columns
) -> Cut:
    """Label skew: each class is dealt by a Dirichlet draw (Hsu et al. 2019, arXiv 1909.06335)."""
    by_label = np.argsort(labels, kind="stable")
    bounds = np.flatnonzero(np.diff(labels[by_label])) + 1
    owners, orders = [], []
    for group in np.split(by_label, bounds):
        members = rng.permutation(group)
        owners.append(np.repeat(np.arange(clients), _drawn_sizes(len(members), clients, partition.alpha, rng)))
        orders.append(members)
    owner = np.concatenate(owners)
    return np.concatenate(orders)[np.argsort(owner, kind="stable")], np.bincount(owner, minlength=clients)


def _shards(
    partition: Partition, labels: NDArray[np.int64], clients: int, rng: np.random.Generator, _columns: Columns
) -> Cut:
    """Sort by label, cut, deal (McMahan et al. 2017, section 3)."""
    by_label = np.argsort(labels, kind="stable")
    pieces = clients * partition.shards_per_client
    sizes = _even_sizes(len(labels), pieces)
    starts = np.cumsum(sizes) - sizes
    dealt = rng.permutation(pieces)
    lengths = sizes[dealt]
    # Each dealt piece as a run of positions: its start, and how far the position is from the piece's own beginning.
    within = np.arange(len(labels)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    order = by_label[np.repeat(starts[dealt], lengths) + within]
    return order, lengths.reshape(clients, partition.shards_per_client).sum(axis=1)


def _quantity(
    partition: Partition, labels: NDArray[np.int64], clients: int, rng: np.random.Generator, _columns: Columns
) -> Cut:
    """Quantity skew: equal mixtures of unequal sizes, by one Dirichlet draw (Li et al. 2022, arXiv 2102.02079)."""
    order = rng.permutation(len(labels))
    return order, _drawn_sizes(len(labels), clients, partition.alpha, rng)


def _column(
    partition: Partition, _labels: NDArray[np.int64], clients: int, rng: np.random.Generator, columns: Columns
) -> Cut:
    """Each value of a column is a client; where fewer clients are wanted, whole values are dealt to them at random."""
    values, owner = np.unique(partition._values(columns), return_inverse=True)  # noqa: SLF001
    if clients > len(values):
        raise PartitionError(
            f"expected at most {len(values)} clients, one for each value of the column {partition.column!r}, found "
            f"{clients}; use fewer clients"
        )
    if clients < len(values):
        owner = (rng.permutation(len(values)) % clients)[owner]
    # None is left out: there are as many values as clients, or more.
    return np.argsort(owner), np.bincount(owner)


def _even_sizes(samples: int, parts: int) -> Indices:
    """Return the sizes that ``np.array_split`` makes."""
    return np.full(parts, samples // parts) + (np.arange(parts) < samples % parts)


def _drawn_sizes(samples: int, clients: int, alpha: float, rng: np.random.Generator) -> Indices:
    shares = rng.dirichlet(np.full(clients, alpha))
    cuts = np.minimum((np.cumsum(shares)[:-1] * samples).astype(np.int64), samples)
    return np.diff(cuts, prepend=0, append=samples)


def _topped_up(order: Indices, sizes: Indices, minimum: int) -> Cut:
    """Move samples to clients below the minimum: each the last one of whoever has most then."""
    poor = np.flatnonzero(sizes < minimum)
    if not len(poor):
        return order, sizes
    starts = np.cumsum(sizes) - sizes
    owner = np.repeat(np.arange(len(sizes)), sizes)
    # Nobody who receives ever has to give, because somebody then still has more than the minimum.
    rich = [(-int(sizes[client]), int(client)) for client in np.flatnonzero(sizes > minimum)]
    heapq.heapify(rich)
    for taker in np.repeat(poor, minimum - sizes[poor]):
        left, giver = rich[0]
        owner[starts[giver] - left - 1] = taker
        heapq.heapreplace(rich, (left + 1, giver))
    # None is left out: each has the minimum by now, which is 1 or more.
    return order[np.argsort(owner)], np.bincount(owner)


Cutter = Callable[[Partition, NDArray[np.int64], int, np.random.Generator, Columns], Cut]
"""(partition, labels, clients, generator, columns) -> cut."""

PARTITIONS: Mapping[str, Cutter] = {
    "iid": _iid,
    "dirichlet": _dirichlet,
    "shards": _shards,
    "quantity": _quantity,
    "column": _column,
}
_BY_CLASS = {"dirichlet", "shards"}
