"""Tests of hedgerow.server.cohort.vectorized: every result equals that of the plain loop."""

import logging
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from hedgerow.examples.zoo import ZOO
from hedgerow.local_work import LocalWork
from hedgerow.schema import TensorSpec
from hedgerow.server.cohort.clients import ClientSlices
from hedgerow.server.cohort.errors import UntraceableError
from hedgerow.server.cohort.sequential import SequentialEngine
from hedgerow.server.cohort.vectorized import VectorizedEngine
from hedgerow.task import Dataset, LocalTraining, Task, load_task

pytestmark = [pytest.mark.heavy, pytest.mark.usefixtures("one_thread")]

SIZES = (20, 9, 16, 3, 33)
CLIENTS = ClientSlices(np.arange(sum(SIZES)), np.concatenate([[0], np.cumsum(SIZES)]))
ASKED = (3, 1, 0, 4)


def made_task(model, **changes):
    """Return a task of 8 x 4 numbers and three classes."""

    def seeded():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(5)
            return model()

    settings = {
        "name": "numbers",
        "inputs": [TensorSpec("x", (8, 4))],
        "labels": list("abc"),
        "model": seeded,
        "data": lambda: None,
        "local": LocalTraining(batch_size=8),
    }
    return Task(**{**settings, **changes})


def samples():
    rng = np.random.default_rng(0)
    return Dataset({"x": rng.normal(size=(81, 8, 4)).astype(np.float32)}, rng.integers(0, 3, 81))


def dense():
    return nn.Sequential(nn.Flatten(), nn.Linear(32, 7), nn.ReLU(), nn.Linear(7, 3))


def start(task):
    return {name: value.clone() for name, value in task.model().state_dict().items()}


def made_work(**changes):
    return LocalWork(**{"round": 2, "seed": 3, "epochs": 1, "learning_rate": 0.05, "batch_size": 8, **changes})


def merged(updates):
    """Return the updates of all slices as one: losses, norms, and each client's weights."""
    updates = list(updates)
    each = {name: torch.cat([update.each[name] for update in updates]) for name in updates[0].each}
    return np.concatenate([u.losses for u in updates]), np.concatenate([u.norms for u in updates]), each


def check_equal(task, dataset, work, *, corrections=None, clients=CLIENTS, asked=ASKED, rtol=1e-5, **settings):
    """Compare both engines, each client's weights and their mean."""
    loop = SequentialEngine(task, dataset, clients)
    with VectorizedEngine(task, dataset, clients, **settings) as engine:
        for each in (True, False):
            wanted = list(loop.train(start(task), asked, work, each=each, corrections=corrections))
            found = list(engine.train(start(task), asked, work, each=each, corrections=corrections))
            assert tuple(client for update in found for client in update.clients) == asked
            if each:
                losses, norms, weights = merged(wanted)
                found_losses, found_norms, found_weights = merged(found)
                np.testing.assert_allclose(found_losses, losses, rtol=1e-5, atol=1e-6)
                np.testing.assert_allclose(found_norms, norms, rtol=1e-4, atol=1e-6)
            else:
                assert len(found) == len(wanted) == 1
                weights, found_weights = wanted[0].mean, found[0].mean
            assert list(found_weights) == list(weights)
            for name, value in weights.items():
                assert found_weights[name].dtype == value.dtype, name
                torch.testing.assert_close(
                    found_weights[name], value, rtol=rtol, atol=rtol, msg=lambda m, n=name: n + m
                )
        return engine


RULES = {
    "plain": {},
    "partial work": {"epochs": 2, "epochs_of": {1: 1, 3: 4}},
    "momentum": {"momentum": 0.9},
    "weight decay": {"weight_decay": 0.01},
    "proximal": {"proximal_mu": 0.5, "epochs": 2},
    "adam": {"optimizer": "adam", "learning_rate": 0.001, "weight_decay": 0.01},
    "clipped": {"clip_norm": 0.05},
    "everything": {"momentum": 0.5, "weight_decay": 0.01, "proximal_mu": 0.1, "clip_norm": 0.05, "epochs": 2},
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("corrected", [False, True])
def test_every_rule_of_a_step_is_that_of_the_plain_loop(rule, corrected):
    task = made_task(dense)
    corrections = None
    if corrected:
        generator = torch.Generator().manual_seed(1)
        named = task.model().named_parameters()
        corrections = {name: torch.randn(4, *p.shape, generator=generator) * 0.01 for name, p in named}
    check_equal(task, samples(), made_work(**RULES[rule]), corrections=corrections)


DROPOUT = ("lstm", "mobilenet_v3_small")
"""Models of the zoo that draw random numbers in training."""


@pytest.mark.parametrize("name", DROPOUT)
def test_a_model_of_the_zoo_with_dropout_is_refused(name):
    task = load_task(ZOO[name].task)
    with pytest.raises(UntraceableError, match="draw its own random numbers"):
        VectorizedEngine(task, task.load_data().train.take(range(8)), ClientSlices(np.arange(8), np.array([0, 4, 8])))


# A model with state is refused by this engine: see test_engines.py.
@pytest.mark.parametrize("name", sorted(set(ZOO) - set(DROPOUT) - {"streaming"}))
def test_each_model_of_the_zoo_trains_as_in_the_plain_loop(name):
    single = load_task(ZOO[name].task)
    data = single.load_data().train.take(range(26))

    # In double precision, for a step of a network with BatchNorm on few samples makes rounding errors large.
    def model():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(5)
            return single.model().double()

    def preprocess(*inputs):
        doubled = [value.double() if value.is_floating_point() else value for value in inputs]
        return single.preprocess(*doubled) if single.preprocess is not None else tuple(doubled)

    task = replace(single, model=model, preprocess=preprocess, local=LocalTraining(batch_size=4))
    clients = ClientSlices(np.arange(26), np.array([0, 4, 10, 26]))
    work = made_work(batch_size=4, learning_rate=0.02, epochs_of={1: 2})
    check_equal(task, data, work, clients=clients, asked=(1, 0), rtol=1e-7)


class Recurrent(nn.Module):
    def __init__(self, kind=nn.GRU):
        super().__init__()
        self.layer, self.head = kind(4, 6, batch_first=True), nn.Linear(6, 3)

    def forward(self, x):
        return self.head(self.layer(x)[0][:, -1])


class Words(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.head = nn.Embedding(5, 6), nn.Linear(6, 3)

    def forward(self, x):
        return self.head(self.embedding((x * 2).long().clamp(0, 4)).mean((1, 2)))


class Attending(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention, self.head = nn.MultiheadAttention(4, 2, batch_first=True), nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.attention(x, x, x)[0].mean(1))


class Odd(nn.Module):
    """Tied weights, a frozen parameter, one that is never used, buffers in and outside of the state."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(32, 32, bias=False), nn.Linear(32, 32)
        self.second.weight = self.first.weight
        self.head = nn.Linear(32, 3)
        self.head.bias.requires_grad_(requires_grad=False)
        self.unused = nn.Parameter(torch.ones(3))
        self.register_buffer("constant", torch.full((32,), 0.5))
        self.register_buffer("hidden", torch.full((32,), 2.0), persistent=False)
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def forward(self, x):
        self.seen += len(x)
        return self.head((self.second(torch.relu(self.first(x.flatten(1)))) + self.constant) * self.hidden)


def convolutions():
    return nn.Sequential(
        nn.Unflatten(1, (1, 8)), nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(),
        nn.Conv2d(4, 4, (3, 2), stride=(2, 1), padding=(2, 1), dilation=(2, 1), groups=4, bias=False),
        nn.GroupNorm(2, 4), nn.MaxPool2d(2), nn.Flatten(1, 2), nn.Conv1d(8, 5, 3, padding="same"),
        nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(5, 3),
    )  # fmt: skip


def test_both_ways_of_convolution_give_the_same():
    grouped = check_equal(made_task(convolutions), samples(), made_work(), convolution="grouped")
    unfolded = check_equal(made_task(convolutions), samples(), made_work(), convolution="unfolded")
    assert set(grouped.choices) == set(unfolded.choices)
    assert grouped.choices["convolution 1->4 3x3 stride 1x1 of 8x4"] == "grouped"
    assert unfolded.choices["convolution 4->4 3x2 stride 2x1 groups 4 of 8x4"] == "unfolded"
    assert unfolded.choices["convolution 8->5 3 stride 1 of 2"] == "unfolded"


class Factored(nn.Module):
    """Weights times weights: a gradient is read from what another step changes."""

    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Parameter(torch.randn(32, 4) * 0.1), nn.Parameter(torch.randn(4, 3) * 0.1)
        self.scale, self.shift = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
        self.pair, self.turn = nn.Parameter(torch.randn(6, 3) * 0.5), nn.Parameter(torch.randn(3, 3) * 0.5)

    def forward(self, x):
        first, second = self.pair.chunk(2)
        turned = x.flatten(1) @ (self.left @ self.right) @ (first @ self.turn @ second)
        return turned * self.scale + self.shift * self.scale


MODELS = {
    "products of weights": Factored,
    "recurrent, gated": Recurrent,
    "recurrent, long short-term": lambda: Recurrent(nn.LSTM),
    "embedding": Words,
    "attention": Attending,
    "odd parts": Odd,
    "BatchNorm that is frozen": lambda: nn.Sequential(nn.BatchNorm1d(8).eval(), dense()),
    "BatchNorm without statistics": lambda: nn.Sequential(nn.BatchNorm1d(8, track_running_stats=False), dense()),
    "transposed convolution": lambda: nn.Sequential(nn.ConvTranspose1d(8, 4, 3), nn.Flatten(), nn.Linear(24, 3)),
    "LayerNorm": lambda: nn.Sequential(nn.LayerNorm(4), nn.GELU(), dense()),
}


@pytest.mark.parametrize("name", MODELS)
def test_other_layers_train_as_in_the_plain_loop(name):
    check_equal(made_task(MODELS[name]), samples(), made_work(epochs=2))


@pytest.mark.parametrize("loss", ["cross_entropy", "bce", "mse"])
def test_every_loss_of_a_task_is_taken(loss):
    check_equal(made_task(dense, loss=loss), samples(), made_work())


class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(32, 3)

    def forward(self, x):
        return self.head(x.flatten(1) if x.sum() > 0 else -x.flatten(1))


class Counting(Branching):
    def forward(self, x):
        return self.head(x.flatten(1) + torch.histc(x.detach(), 32))


REFUSED = {
    "random numbers": (lambda: nn.Sequential(nn.Dropout(0.1), dense()), "draw its own random numbers"),
    "a branch on data": (Branching, "data-dependent control f"),
    "no rule for many clients": (Counting, "batching rule for aten::histc"),
    "hidden statistics": (
        lambda: nn.Sequential(nn.InstanceNorm1d(8, track_running_stats=True), dense()),
        "instance_norm changes its running statistics",
    ),
    "BatchNorm's running average of all batches": (
        lambda: nn.Sequential(nn.BatchNorm1d(8, momentum=None), dense()),
        r"calling \.item",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_traced_is_refused_when_the_engine_is_made(name):
    model, reason = REFUSED[name]
    with pytest.raises(UntraceableError, match=reason):
        VectorizedEngine(made_task(model), samples(), CLIENTS)


def test_a_row_that_is_done_keeps_its_weights_to_the_bit():
    """What runs on in its row, even to infinity, changes nothing that was taken."""
    task, dataset = made_task(dense), samples()
    engine = VectorizedEngine(task, dataset, CLIENTS)
    short = made_work(learning_rate=3.0)
    # The others go on for so long that they diverge.
    long = made_work(learning_rate=3.0, epochs=40, epochs_of={1: 1})
    (alone,) = engine.train(start(task), ASKED, replace(short, epochs_of={0: 1}), each=True)
    (beside,) = engine.train(start(task), ASKED, long, each=True)
    for name, stack in alone.each.items():
        assert torch.equal(stack[1], beside.each[name][1])


def test_the_same_call_gives_the_same_bits_and_leaves_the_weights_alone():
    task = made_task(dense)
    weights, before = start(task), start(task)
    engine = VectorizedEngine(task, samples(), CLIENTS)
    (first,) = engine.train(weights, ASKED, made_work(), each=True)
    list(engine.train(weights, (0, 1, 2, 3, 4, 0), made_work(momentum=0.9, epochs=2), each=False))
    (again,) = engine.train(weights, ASKED, made_work(), each=True)
    assert all(torch.equal(first.each[name], again.each[name]) for name in weights)
    assert all(torch.equal(before[name], weights[name]) for name in weights)


def test_slices_bring_the_same_weights():
    task = made_task(dense)
    corrections = {"1.bias": torch.ones(4, 7) * 0.1}
    corrections |= {n: torch.zeros(4, *p.shape) for n, p in task.model().named_parameters() if n != "1.bias"}
    loop = SequentialEngine(task, samples(), CLIENTS)
    engine = VectorizedEngine(task, samples(), CLIENTS, slice_clients=3)
    found = list(engine.train(start(task), ASKED, made_work(), each=True, corrections=corrections))
    assert [update.clients for update in found] == [(3, 1, 0), (4,)]
    _losses, _norms, wanted = merged(loop.train(start(task), ASKED, made_work(), each=True, corrections=corrections))
    _losses, _norms, weights = merged(found)
    for name, value in wanted.items():
        torch.testing.assert_close(weights[name], value, rtol=1e-5, atol=1e-6)


class Hungry(nn.Module):
    """Passes its input on, and once fails as an allocator does."""

    def __init__(self, script):
        super().__init__()
        self.script = script

    def forward(self, x):
        if next(self.script, "enough") == "none":
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes.")
        return x


def test_memory_that_runs_out_halves_the_slice_and_the_run_goes_on(caplog):
    # The model runs when it is looked at, when it is traced for two clients, and when it is traced for all four.
    script = iter(["enough", "enough", "none"])
    hungry, task = (
        made_task(lambda layer=layer: nn.Sequential(layer, nn.Flatten(), nn.Linear(32, 3)))
        for layer in (Hungry(script), nn.Identity())
    )
    engine = VectorizedEngine(hungry, samples(), CLIENTS)
    with caplog.at_level(logging.WARNING):
        found = list(engine.train(start(hungry), ASKED, made_work(), each=True))
    assert [update.clients for update in found] == [(3, 1), (0, 4)]
    assert "did not hold 4 clients; going on with 2" in caplog.text
    loop = SequentialEngine(task, samples(), CLIENTS)
    _losses, _norms, wanted = merged(loop.train(start(task), ASKED, made_work(), each=True))
    _losses, _norms, weights = merged(found)
    torch.testing.assert_close(weights["2.weight"], wanted["2.weight"], rtol=1e-5, atol=1e-6)


def test_weights_of_another_model_are_a_wrong_call():
    task = made_task(dense)
    engine = VectorizedEngine(task, samples(), CLIENTS)
    with pytest.raises(ValueError, match="another model"):
        list(engine.train({"other": torch.zeros(1)}, ASKED, made_work(), each=True))
    wrong = {**start(task), "1.bias": torch.zeros(9)}
    with pytest.raises(ValueError, match=r"1\.bias has the shape"):
        list(engine.train(wrong, ASKED, made_work(), each=True))


# torch's compiler imports what torch itself deprecates.
@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler is installed")
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_a_compiled_step_gives_the_same():
    """Slow: it calls the C++ compiler."""
    engine = check_equal(
        made_task(lambda: nn.Sequential(nn.Flatten(), nn.Linear(32, 3))), samples(), made_work(), compiled=True
    )
    assert engine.choices["compiled"] == "yes"
