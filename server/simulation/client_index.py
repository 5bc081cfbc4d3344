"""Who owns which samples in a simulation, also where there are far more clients than samples. Pure."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hedgerow.errors import PartitionError
from hedgerow.partition import Partition
from hedgerow.server.cohort.clients import ClientIndex, ClientSlices, DrawnClients, RepeatedClients
from hedgerow.task import Dataset

__all__ = ["ExchangedClients", "RegisteredClients", "register_clients"]


class ExchangedClients:
    """Clients whose samples can be exchanged between two runs, for engines in this process that outlive a run.

    Attributes:
        now: Who owns what in the present run.
    """

    def __init__(self, now: ClientIndex) -> None:
        self.now = now

    def __len__(self) -> int:
        return len(self.now)

    def size(self, client: int) -> int:
        """Return how many samples *client* owns."""
        return self.now.size(client)

    def indices(self, client: int) -> NDArray[np.int64]:
        """Return their positions."""
        return self.now.indices(client)


@dataclass(frozen=True, slots=True)
class RegisteredClients:
    """Clients with their samples.

    Attributes:
        index: Who owns what.
        note: One sentence when clients share samples, else empty.
    """

    index: ClientIndex
    note: str = ""


def register_clients(
    dataset: Dataset,
    labels: NDArray[np.int64] | int,
    partition: Partition,
    clients: int | None,
    *,
    seed: int,
    samples: int | None = None,
    shared_samples: int = 16,
) -> RegisteredClients:
    """Give each client its samples.

    Every sample belongs to one client, cut as ``hedgerow train`` does with the same seed, if there are enough. Else
    clients share: under ``iid`` each draws its own from all, else several own the same shard, in another order.

    Args:
        dataset: The training samples.
        labels: What :meth:`hedgerow.task.Task.strata_or_count` says of them.
        partition: How they are spread.
        clients: How many; None: as many as the column of the partition has values.
        seed: Decides the cut.
        samples: Each client has so many, on average; None: all there are, divided.
        shared_samples: Each client has so many where they share and *samples* is None.

    Raises:
        PartitionError: The data cannot be cut as asked.
    """
    rng, total = np.random.default_rng(seed), len(dataset)
    natural = partition.natural_clients(dataset.columns)
    if natural is not None:
        if samples is not None:
            raise PartitionError(
                f"expected the clients' numbers of samples from the column {partition.column!r} alone, found {samples} "
                "asked for; leave one of both out"
            )
        wanted = natural if clients is None else clients
        cut = min(wanted, natural)
        index = ClientSlices(*partition.cut(labels, cut, rng, dataset.columns))
        if wanted <= natural:
            return RegisteredClients(index)
        note = f"{wanted:,} clients share the samples of the {natural:,} values of {partition.column!r}"
        return RegisteredClients(RepeatedClients(index, wanted), note)
    if clients is None:
        raise ValueError(f"the partition {partition} needs a number of clients")
    minimum = max(1, partition.minimum_samples)
    if samples is None and clients * minimum <= total:
        return RegisteredClients(ClientSlices(*partition.cut(labels, clients, rng, dataset.columns)))
    each = max(minimum, min(shared_samples, total)) if samples is None else samples
    if each > total or each < minimum:
        raise PartitionError(
            f"expected {minimum} to {total} samples for each client, found {each} asked for; choose a number between"
        )
    shards = total // each
    if clients <= shards:
        index = ClientSlices(*partition.cut(labels, shards, rng, dataset.columns))
        return RegisteredClients(RepeatedClients(index, clients))
    if partition.name == "iid":
        note = f"{clients:,} clients share {total:,} samples: each draws {each:,} of them"
        return RegisteredClients(DrawnClients(clients, total, each, seed), note)
    index = ClientSlices(*partition.cut(labels, shards, rng, dataset.columns))
    note = f"{clients:,} clients share {total:,} samples: {shards:,} shards of about {each:,} each"
    return RegisteredClients(RepeatedClients(index, clients), note)
