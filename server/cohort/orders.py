"""Which samples every client of a slice takes in every step, as one array. Pure."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hedgerow.batches import batch_indices, client_seed
from hedgerow.server.cohort.clients import ClientIndex
from hedgerow.server.cohort.seeding import seeded_generators
from hedgerow.server.cohort.work import CohortWork
from hedgerow.server.local_steps import LocalWork

__all__ = ["count_steps", "local_work", "sample_orders"]


def local_work(work: CohortWork, client: int) -> LocalWork:
    """Return what *client* does in the round that *work* describes."""
    return LocalWork(
        epochs=work.epochs_of.get(client, work.epochs),
        learning_rate=work.learning_rate,
        batch_size=work.batch_size,
        seed=client_seed(work.seed, work.round, str(client)),
        proximal_mu=work.proximal_mu,
        optimizer=work.optimizer,
        momentum=work.momentum,
        weight_decay=work.weight_decay,
        clip_norm=work.clip_norm,
    )


def count_steps(clients: ClientIndex, chosen: Sequence[int], work: CohortWork) -> NDArray[np.int64]:
    """Return how many steps each client takes, ``int64[K]``."""
    batches = [-(-clients.size(client) // work.batch_size) for client in chosen]
    epochs = [work.epochs_of.get(client, work.epochs) for client in chosen]
    return np.array(batches, dtype=np.int64) * np.array(epochs, dtype=np.int64)


def sample_orders(
    clients: ClientIndex, chosen: Sequence[int], work: CohortWork, *, steps: int, rows: int
) -> NDArray[np.int64]:
    """Return positions in the data set, ``int64[steps, rows, batch]``.

    Row k is that of ``chosen[k]``; where it takes no step, and in the rows behind the last client, stands some sample.

    Args:
        clients: Who owns which samples.
        chosen: The clients.
        work: Seeds the orders, as the plain loop does.
        steps: Of the longest of them.
        rows: At least as many as clients.
    """
    positions = np.zeros((steps, rows, work.batch_size), dtype=np.int64)
    seeds = [client_seed(work.seed, work.round, str(client)) for client in chosen]
    for row, (client, rng) in enumerate(zip(chosen, seeded_generators(seeds), strict=True)):
        owned, start = clients.indices(client), 0
        for _ in range(work.epochs_of.get(client, work.epochs)):
            order = owned[batch_indices(len(owned), work.batch_size, rng)]
            positions[start : start + len(order), row] = order
            start += len(order)
    return positions
