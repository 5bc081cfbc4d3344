"""Cut one labelled data set into clients' shards. Pure: the random generator is passed in."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hedgerow.errors import HedgerowError, UnknownNameError

__all__ = ["PARTITIONS", "Partition", "PartitionError"]

Indices = NDArray[np.int64]


class PartitionError(HedgerowError):
    """The data cannot be cut as asked."""


@dataclass(frozen=True, slots=True)
class Partition:
    """How client data is spread.

    Attributes:
        name: A key of :data:`PARTITIONS`.
        alpha: Dirichlet concentration; smaller is more uneven. Ignored by the others.
        shards_per_client: Label-sorted shards for each client. Ignored by the others.
        minimum_samples: Every client gets at least this many.
    """

    name: str = "iid"
    alpha: float = 0.5
    shards_per_client: int = 2
    minimum_samples: int = 1

    def mistakes(self) -> list[str]:
        """Return one sentence for everything that is wrong."""
        found = []
        if self.name not in PARTITIONS:
            found.append(str(UnknownNameError("partition", self.name, PARTITIONS)))
        if not self.alpha > 0:
            found.append(f"partition: alpha must be above 0, not {self.alpha}")
        if self.shards_per_client < 1 or self.minimum_samples < 0:
            found.append("partition: shards_per_client must be at least 1 and minimum_samples at least 0")
        return found

    def split(self, labels: NDArray[np.int64], clients: int, rng: np.random.Generator) -> list[Indices]:
        """Return each client's indices, sorted.

        Args:
            labels: Class of each sample, ``int64[n]``.
            clients: How many shards.
            rng: Decides everything random.

        Raises:
            UnknownNameError: No partition has this name.
            PartitionError: There are too few samples.
        """
        if self.name not in PARTITIONS:
            raise UnknownNameError("partition", self.name, PARTITIONS)
        need = clients * max(1, self.minimum_samples)
        if len(labels) < need:
            raise PartitionError(
                f"expected at least {need} samples for {clients} clients, found {len(labels)}; use fewer clients"
            )
        shards = PARTITIONS[self.name](self, labels, clients, rng)
        return [np.sort(shard) for shard in _topped_up(shards, max(1, self.minimum_samples))]


def _iid(_partition: Partition, labels: NDArray[np.int64], clients: int, rng: np.random.Generator) -> list[Indices]:
    return list(np.array_split(rng.permutation(len(labels)), clients))


def _dirichlet(
    partition: Partition, labels: NDArray[np.int64], clients: int, rng: np.random.Generator
) -> list[Indices]:
    """Label skew: each class is dealt by a Dirichlet draw (Hsu et al. 2019, arXiv 1909.06335)."""
    parts: list[list[Indices]] = [[] for _ in range(clients)]
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        shares = rng.dirichlet(np.full(clients, partition.alpha))
        cuts = (np.cumsum(shares)[:-1] * len(members)).astype(np.int64)
        for client, part in enumerate(np.split(members, cuts)):
            parts[client].append(part)
    return [np.concatenate(part) for part in parts]


def _shards(partition: Partition, labels: NDArray[np.int64], clients: int, rng: np.random.Generator) -> list[Indices]:
    """Sort by label, cut, deal (McMahan et al. 2017, section 3)."""
    pieces = np.array_split(np.argsort(labels, kind="stable"), clients * partition.shards_per_client)
    order = rng.permutation(len(pieces))
    k = partition.shards_per_client
    return [np.concatenate([pieces[i] for i in order[c * k : (c + 1) * k]]) for c in range(clients)]


def _topped_up(shards: list[Indices], minimum: int) -> list[Indices]:
    """Move samples from the largest shards to those below the minimum."""
    shards = list(shards)
    for index in range(len(shards)):
        while len(shards[index]) < minimum:
            giver = max(range(len(shards)), key=lambda i: len(shards[i]))
            shards[index] = np.append(shards[index], shards[giver][-1])
            shards[giver] = shards[giver][:-1]
    return shards


PARTITIONS: Mapping[str, Callable[[Partition, NDArray[np.int64], int, np.random.Generator], list[Indices]]] = {
    "iid": _iid,
    "dirichlet": _dirichlet,
    "shards": _shards,
}
