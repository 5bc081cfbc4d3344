"""Tests of hedgerow.server.local_steps: plain SGD, checked against torch's own optimizer."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from hedgerow.batches import batch_indices
from hedgerow.local_work import LocalWork
from hedgerow.server.local_steps import LocalTrainer, draws_random_numbers, torch_threads
from hedgerow.server.training import initial_weights

pytestmark = [pytest.mark.heavy, pytest.mark.usefixtures("one_thread")]


WORK = LocalWork(epochs=2, learning_rate=0.2, batch_size=8, seed=5)


def by_the_optimizer(task, weights, dataset, work):
    """Return what torch.optim.SGD makes of the same batches."""
    model = task.model()
    model.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in weights.items()})
    optimizer = torch.optim.SGD(model.parameters(), lr=work.learning_rate)
    rng, losses = np.random.default_rng(work.order_seed), []
    start = [p.detach().clone() for p in model.parameters()]
    for _ in range(work.epochs):
        for batch in batch_indices(len(dataset), work.batch_size, rng):
            inputs = torch.from_numpy(dataset.inputs["point"][batch])
            loss = nn.functional.cross_entropy(model(inputs), torch.from_numpy(dataset.target_values[batch]))
            losses.append(loss.item())
            pull = sum(((p - s) ** 2).sum() for p, s in zip(model.parameters(), start, strict=True))
            optimizer.zero_grad()
            (loss + work.proximal_mu / 2 * pull).backward()
            optimizer.step()
    return {name: value.numpy() for name, value in model.state_dict().items()}, float(np.mean(losses))


@pytest.mark.parametrize("samples", [3, 8, 21])
@pytest.mark.parametrize("mu", [0.0, 0.5])
def test_steps_are_those_of_sgd(tiny_task, samples, mu):
    work = LocalWork(epochs=2, learning_rate=0.2, batch_size=8, seed=5, proximal_mu=mu)
    weights = initial_weights(tiny_task, 0)
    dataset = tiny_task.data().train.take(range(samples))
    found, loss = LocalTrainer(tiny_task).train(weights, dataset, work)
    wanted, wanted_loss = by_the_optimizer(tiny_task, weights, dataset, work)

    assert loss == pytest.approx(wanted_loss, rel=1e-6)
    for name in wanted:
        np.testing.assert_allclose(found[name], wanted[name], rtol=1e-5, atol=1e-7)


RULES = {
    "momentum": (lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01),
                 {"momentum": 0.9, "weight_decay": 0.01, "learning_rate": 0.1}),
    "adam": (lambda p: torch.optim.Adam(p, lr=0.01, weight_decay=0.01),
             {"optimizer": "adam", "weight_decay": 0.01, "learning_rate": 0.01}),
}  # fmt: skip


@pytest.mark.parametrize("rule", RULES)
def test_optimizers_are_those_of_torch(tiny_task, rule):
    optimizer_of, settings = RULES[rule]
    work = replace(WORK, epochs=3, **settings)
    weights, dataset = initial_weights(tiny_task, 0), tiny_task.data().train.take(range(21))
    model = tiny_task.model()
    model.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in weights.items()})
    optimizer, rng = optimizer_of(model.parameters()), np.random.default_rng(work.order_seed)
    for _ in range(work.epochs):
        for batch in batch_indices(len(dataset), work.batch_size, rng):
            optimizer.zero_grad()
            logits = model(torch.from_numpy(dataset.inputs["point"][batch]))
            nn.functional.cross_entropy(logits, torch.from_numpy(dataset.target_values[batch])).backward()
            optimizer.step()
    found, _loss = LocalTrainer(tiny_task).train(weights, dataset, work)

    for name, value in model.state_dict().items():
        np.testing.assert_allclose(found[name], value.numpy(), rtol=1e-5, atol=1e-6)


def taken(task, work, **settings):
    """Return what a trainer's steps come to, and the weights it leaves."""
    dataset, trainer = task.data().train.take(range(21)), LocalTrainer(task)
    weights = {name: torch.from_numpy(value) for name, value in initial_weights(task, 0).items()}
    inputs, labels = [torch.from_numpy(dataset.inputs["point"])], torch.from_numpy(dataset.target_values)
    steps = trainer.take_steps(weights, inputs, labels, work, **settings)
    return steps, weights, {name: value.clone() for name, value in trainer.tensors.items()}


def test_a_long_update_is_scaled_down_to_the_norm_and_a_short_one_is_left(tiny_task):
    free, sent, new = taken(tiny_task, WORK)
    length = torch.cat([(new[name] - sent[name]).flatten() for name in sent]).norm().item()
    assert free.norm == pytest.approx(length, rel=1e-6)

    clipped, _sent, short = taken(tiny_task, replace(WORK, clip_norm=length / 4))
    assert clipped == free
    for name, value in sent.items():
        torch.testing.assert_close(short[name] - value, (new[name] - value) / 4, rtol=1e-4, atol=1e-6)

    _steps, _sent, same = taken(tiny_task, replace(WORK, clip_norm=length * 2))
    assert all(torch.equal(same[name], new[name]) for name in new)


def test_corrections_are_added_to_every_gradient(tiny_task):
    one_step = replace(WORK, epochs=1, batch_size=21)
    _steps, _sent, free = taken(tiny_task, one_step)
    correction = {"bias": torch.tensor([1.0, 2.0, 3.0])}
    _steps, _sent, corrected = taken(tiny_task, one_step, corrections=correction)
    torch.testing.assert_close(corrected["bias"], free["bias"] - 0.2 * correction["bias"])
    assert torch.equal(corrected["weight"], free["weight"])


def test_positions_choose_the_samples_of_a_client(tiny_task):
    steps, _sent, new = taken(tiny_task, WORK, positions=torch.tensor([3, 1, 20, 7]))
    weights, chosen = initial_weights(tiny_task, 0), tiny_task.data().train.take([3, 1, 20, 7])
    wanted, loss = LocalTrainer(tiny_task).train(weights, chosen, WORK)
    assert steps.loss == loss
    assert all(np.array_equal(new[name].numpy(), wanted[name]) for name in wanted)


def test_one_trainer_serves_many_clients_without_memory(tiny_task):
    weights, dataset = initial_weights(tiny_task, 0), tiny_task.data().train
    trainer = LocalTrainer(tiny_task)
    first, _loss = trainer.train(weights, dataset, WORK)
    trainer.train(first, dataset.take(range(50)), WORK)
    again, _loss = trainer.train(weights, dataset, WORK)
    assert all(np.array_equal(first[name], again[name]) for name in first)


def test_float64_weights_are_taken_and_float32_come_back(tiny_task):
    weights = {name: value.astype(np.float64) for name, value in initial_weights(tiny_task, 0).items()}
    found, _loss = LocalTrainer(tiny_task).train(weights, tiny_task.data().train, WORK)
    assert {value.dtype for value in found.values()} == {np.dtype(np.float32)}


@pytest.mark.parametrize("bad", [{"weight": np.zeros((3, 2))}, {"weight": np.zeros((3, 9)), "bias": np.zeros(3)}])
def test_weights_of_another_model_are_a_wrong_call(tiny_task, bad):
    with pytest.raises(ValueError, match="model"):
        LocalTrainer(tiny_task).train(bad, tiny_task.data().train, WORK)


def test_dropout_is_noticed(make_task, tiny_task):
    noisy = make_task(model=lambda: nn.Sequential(nn.Dropout(0.1), nn.Linear(2, 3)))
    assert draws_random_numbers(noisy, noisy.data().train)
    assert not draws_random_numbers(tiny_task, tiny_task.data().train)


def test_the_number_of_threads_is_restored():
    before = torch.get_num_threads()
    with torch_threads(1):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before
