"""Tests of hedgerow.server.cohort.orders: the samples that the plain loop would take."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hedgerow.batches import batch_indices, client_seed
from hedgerow.local_work import LocalWork
from hedgerow.server.cohort.clients import ClientSlices
from hedgerow.server.cohort.orders import count_steps, sample_orders

# The module describes what local_steps, which needs torch, does.
pytestmark = pytest.mark.heavy


@settings(max_examples=30)
@given(
    st.lists(st.integers(1, 25), min_size=1, max_size=6), st.integers(1, 9), st.integers(1, 3), st.integers(0, 2**31)
)
def test_each_row_holds_its_clients_batches_in_order(sizes, batch, epochs, seed):
    starts = np.concatenate([[0], np.cumsum(sizes)])
    clients = ClientSlices(np.random.default_rng(0).permutation(starts[-1]), starts)
    work = LocalWork(round=4, seed=seed, epochs=epochs, learning_rate=0.1, batch_size=batch, epochs_of={0: 2})
    chosen = list(range(len(sizes)))[::-1]
    steps = count_steps(clients, chosen, work)
    orders = sample_orders(clients, chosen, work, steps=int(steps.max()), rows=len(sizes) + 2)

    assert orders.shape == (steps.max(), len(sizes) + 2, batch)
    assert orders.min() >= 0
    assert orders.max() < starts[-1]
    for row, client in enumerate(chosen):
        rng = np.random.default_rng(client_seed(seed, 4, str(client)))
        own_epochs = 2 if client == 0 else epochs
        positions = np.concatenate([batch_indices(sizes[client], batch, rng) for _ in range(own_epochs)])
        assert np.array_equal(orders[: steps[row], row], clients.indices(client)[positions])
