"""Tests of hedgerow.server.cohort.engines: which engine, and why."""

import numpy as np
import pytest

from hedgerow.errors import UnknownNameError
from hedgerow.server.cohort.clients import ClientSlices
from hedgerow.server.cohort.engines import ENGINES, StepFacts, build_engine, choose_engine, engine_and_reason


@pytest.mark.parametrize(
    ("facts", "device", "workers", "name"),
    [
        ({"step_flops": 1000}, "cpu", 4, "vectorized"),
        ({"step_flops": 2_000_000}, "cpu", 1, "vectorized"),
        ({"step_flops": 2_000_000}, "cpu", 4, "workers"),
        ({"step_flops": 10**9}, "cpu", 1, "workers"),
        ({"step_flops": 10**9}, "cuda:0", 1, "vectorized"),
        ({"step_flops": 1000, "random": True}, "cpu", 4, "workers"),
        ({"step_flops": 1000, "random": True}, "cuda", 4, "sequential"),
    ],
)
def test_the_choice_follows_from_shapes(facts, device, workers, name):
    choice = choose_engine(StepFacts(**facts), device=device, workers=workers)
    assert choice.name == name
    assert choice.name in ENGINES
    assert choice.reason


@pytest.fixture
def clients():
    return ClientSlices.of_shards([np.arange(10), np.arange(10, 30)])


@pytest.mark.heavy
@pytest.mark.parametrize("name", sorted(ENGINES))
def test_every_engine_is_made_by_its_name(name, tiny_task, clients):
    engine, choice = engine_and_reason(name, tiny_task, tiny_task.load_data().train, clients)
    engine.close()
    assert (engine.name, choice.name, choice.reason) == (name, name, "it was asked for")


@pytest.mark.heavy
def test_facts_are_counted_on_one_step(make_task):
    from torch import nn

    task = make_task(model=lambda: nn.Sequential(nn.Linear(2, 5), nn.Dropout(0.5), nn.Linear(5, 3)))
    facts = StepFacts.of(task, task.load_data().train)
    assert facts == StepFacts(step_flops=2 * 8 * (2 * 5 + 5 * 3), random=True)


@pytest.mark.heavy
@pytest.mark.parametrize(("kind", "gates"), [("RNN", 1), ("GRU", 3), ("LSTM", 4)])
def test_recurrent_layers_are_counted_at_every_time(kind, gates, make_task):
    from torch import nn

    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.cells = getattr(nn, kind)(1, 3, batch_first=True)

        def forward(self, points):
            return self.cells(points[:, :, None])[0][:, -1]

    task = make_task(model=Recurrent)
    facts = StepFacts.of(task, task.load_data().train)
    assert facts.step_flops == 2 * 8 * 2 * gates * 3 * (1 + 3)


@pytest.mark.heavy
def test_a_model_that_cannot_be_traced_is_trained_client_after_client(make_task, clients):
    from torch import nn

    class Branches(nn.Linear):
        def forward(self, points):
            return super().forward(points if points.sum().item() > 0 else -points)

    task = make_task(model=lambda: Branches(2, 3))
    engine, choice = engine_and_reason("auto", task, task.load_data().train, clients)
    engine.close()
    assert engine.name == choice.name == "workers"
    assert "data-dependent control flow" in choice.reason


@pytest.mark.heavy
def test_a_small_model_is_vectorized(tiny_task, clients):
    engine = build_engine("auto", tiny_task, tiny_task.load_data().train, clients)
    engine.close()
    assert engine.name == "vectorized"


@pytest.mark.heavy
def test_a_wrong_name_or_number_is_refused(tiny_task, clients):
    dataset = tiny_task.load_data().train
    with pytest.raises(UnknownNameError, match="did you mean 'workers'"):
        build_engine("worker", tiny_task, dataset, clients)
    with pytest.raises(ValueError, match="at least 1"):
        build_engine("auto", tiny_task, dataset, clients, workers=0)


@pytest.mark.heavy
def test_state_that_runs_through_sequences_is_trained_one_client_after_the_other(clients):
    from hedgerow.server.cohort.errors import UntraceableError
    from hedgerow.task import load_task

    task = load_task("hedgerow.examples.zoo.streaming:task")
    train = task.load_data().train.take(np.arange(30))
    with pytest.raises(UntraceableError, match="where state runs through sequences; use the engine workers or"):
        engine_and_reason("vectorized", task, train, clients)
    engine, choice = engine_and_reason("auto", task, train, clients)
    engine.close()

    assert engine.name == choice.name == "workers"
