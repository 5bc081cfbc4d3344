"""Which samples each virtual client owns. A million clients cost memory only where they differ. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hedgerow.batches import client_seed

__all__ = ["ClientIndex", "ClientSlices", "DrawnClients", "RepeatedClients"]

Indices = NDArray[np.int64]


class ClientIndex(Protocol):
    """Who owns what; clients are numbered from 0."""

    def __len__(self) -> int:
        """Return how many clients there are."""
        ...

    def size(self, client: int) -> int:
        """Return how many samples *client* owns."""
        ...

    def indices(self, client: int) -> Indices:
        """Return the positions of its samples in the data set, ``int64[size]``."""
        ...


@dataclass(frozen=True, slots=True)
class ClientSlices:
    """Shards of one data set, as one array and its cuts: 8 bytes a sample and a client.

    Attributes:
        order: Positions of samples, client after client.
        starts: Where each client's begin, and the end of the last: ``int64[clients + 1]``.
    """

    order: Indices
    starts: Indices

    @classmethod
    def of_shards(cls, shards: Sequence[Indices]) -> "ClientSlices":
        """Take what ``Partition.split`` returns."""
        starts = np.zeros(len(shards) + 1, dtype=np.int64)
        np.cumsum([len(shard) for shard in shards], out=starts[1:])
        return cls(np.concatenate(shards).astype(np.int64), starts)

    def __len__(self) -> int:
        return len(self.starts) - 1

    def size(self, client: int) -> int:
        """Return how many samples *client* owns."""
        return int(self.starts[client + 1] - self.starts[client])

    def indices(self, client: int) -> Indices:
        """Return a view of its positions."""
        return self.order[self.starts[client] : self.starts[client + 1]]


@dataclass(frozen=True, slots=True)
class RepeatedClients:
    """*clients* clients that share the shards of fewer: client i owns what i modulo ``len(shards)`` owns.

    They differ in their order of samples, which is seeded by their own number.
    """

    shards: ClientIndex
    clients: int

    def __len__(self) -> int:
        return self.clients

    def size(self, client: int) -> int:
        """Return how many samples *client* owns."""
        return self.shards.size(client % len(self.shards))

    def indices(self, client: int) -> Indices:
        """Return its positions."""
        return self.shards.indices(client % len(self.shards))


@dataclass(frozen=True, slots=True)
class DrawnClients:
    """Clients whose samples are drawn without replacement from the whole data set when they are asked for.

    Attributes:
        clients: How many.
        samples: The data set has so many.
        each: Samples of one client.
        seed: With the client's number it decides the draw.
    """

    clients: int
    samples: int
    each: int
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.each <= self.samples:
            raise ValueError(f"expected 1 to {self.samples} samples for a client, found {self.each}")

    def __len__(self) -> int:
        return self.clients

    def size(self, _client: int) -> int:
        """Return *each*."""
        return self.each

    def indices(self, client: int) -> Indices:
        """Draw its positions: always the same."""
        rng = np.random.default_rng(client_seed(self.seed, 0, f"shard {client}"))
        return np.sort(rng.choice(self.samples, self.each, replace=False))
