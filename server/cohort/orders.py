"""Which samples every client of a slice takes in every step, as one array. Pure."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hedgerow.batches import batch_indices
from hedgerow.local_work import LocalWork
from hedgerow.server.cohort.clients import ClientIndex
from hedgerow.server.cohort.seeding import seeded_generators

__all__ = ["count_steps", "sample_orders"]


def count_steps(clients: ClientIndex, chosen: Sequence[int], work: LocalWork) -> NDArray[np.int64]:
    """Return how many steps each client takes, ``int64[K]``."""
    batches = [-(-clients.size(client) // work.batch_size) for client in chosen]
    epochs = [work.epochs_by(client) for client in chosen]
    return np.array(batches, dtype=np.int64) * np.array(epochs, dtype=np.int64)


def sample_orders(
    clients: ClientIndex, chosen: Sequence[int], work: LocalWork, *, steps: int, rows: int
) -> NDArray[np.int64]:
    """Return positions in the data set, ``int64[steps, rows, batch]``.

    Row k is that of ``chosen[k]``; where it takes no step, and in the rows behind the last client, stands some sample.

    Args:
        clients: Who owns which samples.
        chosen: The clients.
        work: Seeds the orders, as the plain loop does.
        steps: The longest of them takes so many.
        rows: How many rows there are, at least as many as clients.
    """
    positions = np.zeros((steps, rows, work.batch_size), dtype=np.int64)
    seeds = [work.order_seed_of(client) for client in chosen]
    for row, (client, rng) in enumerate(zip(chosen, seeded_generators(seeds), strict=True)):
        owned, start = clients.indices(client), 0
        for _ in range(work.epochs_by(client)):
            order = owned[batch_indices(len(owned), work.batch_size, rng)]
            positions[start : start + len(order), row] = order
            start += len(order)
    return positions
