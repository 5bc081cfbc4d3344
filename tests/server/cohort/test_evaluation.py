"""Tests of hedgerow.server.cohort.evaluation: many clients, one fill of the model."""

import numpy as np
import pytest

from hedgerow.server.cohort.clients import ClientSlices
from hedgerow.server.cohort.evaluation import CohortEvaluator
from hedgerow.server.evaluation import Evaluator
from hedgerow.server.training import initial_weights
from tests.output_tasks import STREAMING, TASKS

pytestmark = pytest.mark.heavy


@pytest.mark.parametrize("loss", ["cross_entropy", "bce", "mse"])
@pytest.mark.parametrize("samples", [40, 65536])  # 40: groups of clients, and one client larger than a group
def test_each_client_gets_what_measuring_it_alone_gives(loss, samples, make_task):
    import torch

    task = make_task(loss=loss)
    dataset = task.load_data().train
    clients = ClientSlices.of_shards([np.arange(10), np.arange(10, 30), np.arange(30, 130), np.arange(130, 200)])
    weights = initial_weights(task, 0)
    tensors = {name: torch.from_numpy(value) for name, value in weights.items()}
    found = list(CohortEvaluator(task, dataset, clients, gathered=samples).measure(tensors, [2, 0, 3]))
    for client, metrics in zip([2, 0, 3], found, strict=True):
        wanted = Evaluator(task, dataset.take(clients.indices(client))).measure(weights)
        assert metrics == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("name", sorted(TASKS))
@pytest.mark.parametrize("tasks", [TASKS, STREAMING], ids=["samples", "sequences"])
def test_clients_are_measured_on_every_kind_of_output(name, tasks):
    import torch

    task = tasks[name]
    dataset = task.load_data().train
    clients = ClientSlices.of_shards([np.arange(7), np.arange(7, 40), np.arange(40, 41), np.arange(41, 80)])
    weights = initial_weights(task, 0)
    tensors = {name: torch.from_numpy(value) for name, value in weights.items()}

    found = list(CohortEvaluator(task, dataset, clients, gathered=35).measure(tensors, [0, 1, 2, 3]))

    for client, metrics in enumerate(found):
        wanted = Evaluator(task, dataset.take(clients.indices(client))).measure(weights)
        assert metrics == pytest.approx(wanted, abs=1e-5)
    expected = {"loss"} if name == "reconstruction" else {"loss", task.answers.score_key}
    assert set(found[0]) == expected
