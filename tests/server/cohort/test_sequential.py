"""Tests of hedgerow.server.cohort.sequential: the reference of the other engines, by hand."""

import numpy as np
import pytest
import torch
from torch import nn

from hedgerow.local_work import LocalWork
from hedgerow.server.cohort.clients import ClientSlices
from hedgerow.server.cohort.errors import ClientTrainingError
from hedgerow.server.cohort.sequential import SequentialEngine
from hedgerow.server.local_steps import LocalTrainer

pytestmark = pytest.mark.heavy

CLIENTS = ClientSlices(np.arange(60)[::-1].copy(), np.array([0, 10, 35, 60]))
WORK = LocalWork(round=2, seed=7, epochs=1, learning_rate=0.1, batch_size=8, epochs_of={1: 3})


def weights_of(task):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return {name: value.clone() for name, value in task.model().state_dict().items()}


def by_hand(task, weights, client):
    """Return what one client makes of *weights*."""
    shard = task.data().train.take(CLIENTS.indices(client))
    epochs = WORK.epochs_of.get(client, 1)
    work = LocalWork(epochs=epochs, learning_rate=0.1, batch_size=8, seed=7, round=2, client=str(client))
    return LocalTrainer(task).train({name: value.numpy() for name, value in weights.items()}, shard, work)


def test_each_brings_every_clients_own_weights(tiny_task):
    engine, weights = SequentialEngine(tiny_task, tiny_task.data().train, CLIENTS), weights_of(tiny_task)
    (update,) = engine.train(weights, [2, 1], WORK, each=True)
    assert update.clients == (2, 1)
    assert update.examples.tolist() == [25, 25]
    assert update.mean is None
    for row, client in enumerate(update.clients):
        wanted, loss = by_hand(tiny_task, weights, client)
        assert update.losses[row] == loss
        assert all(np.array_equal(update.each[name][row].numpy(), wanted[name]) for name in wanted)


def test_the_mean_weighs_clients_by_their_samples(tiny_task):
    engine, weights = SequentialEngine(tiny_task, tiny_task.data().train, CLIENTS), weights_of(tiny_task)
    (update,) = engine.train(weights, [0, 1], WORK, each=False)
    parts = [by_hand(tiny_task, weights, client)[0] for client in (0, 1)]
    assert update.each is None
    for name, value in update.mean.items():
        np.testing.assert_allclose(
            value.numpy(), (parts[0][name] * 10 + parts[1][name] * 25) / 35, rtol=1e-6, atol=1e-7
        )


def test_the_mean_of_counted_batches_is_not_rounded(make_task):
    task = make_task(model=lambda: nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 3)))
    engine = SequentialEngine(task, task.data().train, CLIENTS)
    (update,) = engine.train(weights_of(task), [0, 1], WORK, each=False)
    assert update.mean["0.num_batches_tracked"].item() == pytest.approx((2 * 10 + 12 * 25) / 35)


def test_an_unknown_optimizer_and_no_epochs_are_wrong_calls():
    settings = {"round": 1, "seed": 0, "epochs": 1, "learning_rate": 0.1, "batch_size": 1}
    with pytest.raises(ValueError, match="sgd or adam, found 'rmsprop'"):
        LocalWork(**settings, optimizer="rmsprop")
    with pytest.raises(ValueError, match="at least one epoch"):
        LocalWork(**settings, epochs_of={3: 0})


def test_a_task_whose_code_exits_ends_a_client_and_not_the_program(make_task):
    def loss(_logits, _labels):
        raise SystemExit(4)

    task = make_task(loss=loss)
    engine = SequentialEngine(task, task.data().train, CLIENTS)
    with pytest.raises(ClientTrainingError, match=r"client 1 .*it exited with 4"):
        list(engine.train(weights_of(task), [1, 2], WORK, each=True))
