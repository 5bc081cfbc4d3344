"""Tests of hedgerow.local_work: what clients do in a round, checked when it is made."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgerow.batches import client_seed
from hedgerow.local_work import OPTIMIZERS, LocalWork, train_task_of, work_of_train_task
from hedgerow.manifest.content import Blob
from hedgerow.task import LocalTraining
from hedgerow.wire.training import TrainTask

WORK = LocalWork(epochs=3, learning_rate=0.25, batch_size=8, seed=9, round=4, minimum_samples=16)
WEIGHTS = Blob("0" * 64, 100)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"optimizer": "lion"}, "expected the optimizer sgd or adam, found 'lion'"),
        ({"epochs": 0}, "at least one epoch"),
        ({"epochs_of": {3: 0}}, "at least one epoch"),
        ({"batch_size": 0}, "one sample in a batch"),
        ({"learning_rate": float("nan")}, "finite rates"),
        ({"learning_rate": float("inf")}, "finite rates"),
        ({"learning_rate": -0.1}, "finite rates"),
        ({"momentum": 1.0}, "a momentum below 1"),
        ({"momentum": -0.1}, "finite rates"),
        ({"weight_decay": float("nan")}, "finite rates"),
        ({"proximal_mu": -1.0}, "finite rates"),
        ({"clip_norm": 0.0}, "a norm above 0"),
        ({"clip_norm": float("nan")}, "a norm above 0"),
        ({"round": 0}, "a round from 1"),
        ({"seed": -1}, "a seed from 0"),
        ({"minimum_samples": -1}, "a minimum from 0"),
    ],
)
def test_what_no_client_can_do_is_refused_when_it_is_made(changes, said):
    with pytest.raises(ValueError, match=said):
        dataclasses.replace(WORK, **changes)


def test_each_bound_itself_can_be_done():
    least = LocalWork(epochs=1, learning_rate=0.0, batch_size=1, seed=0, round=1, minimum_samples=0, clip_norm=1e-9)
    assert (least.epochs, least.learning_rate, least.batch_size) == (1, 0.0, 1)


def test_a_task_asks_for_plain_sgd():
    work = LocalWork.of_training(LocalTraining(learning_rate=0.2, batch_size=4, epochs=5), seed=7, minimum_samples=2)
    assert work == LocalWork(epochs=5, learning_rate=0.2, batch_size=4, seed=7, minimum_samples=2)
    assert work.is_plain_sgd


@pytest.mark.parametrize(
    "term", [{"optimizer": "adam"}, {"momentum": 0.5}, {"weight_decay": 0.1}, {"proximal_mu": 0.1}]
)
def test_a_term_beside_the_loss_is_no_plain_sgd(term):
    assert not dataclasses.replace(WORK, **term).is_plain_sgd
    assert dataclasses.replace(WORK, clip_norm=1.0).is_plain_sgd


def test_the_order_of_samples_depends_on_seed_round_and_client():
    assert WORK.of_client(3).order_seed == client_seed(9, 4, "3")
    assert WORK.order_seed_of(3) == client_seed(9, 4, "3")


def test_a_client_does_its_own_number_of_epochs():
    work = dataclasses.replace(WORK, epochs_of={2: 1})
    assert [work.epochs_by(client) for client in (1, 2)] == [3, 1]
    assert work.of_client(2) == dataclasses.replace(WORK, epochs=1, client="2")
    assert work.of_client(1) == dataclasses.replace(WORK, client="1")


@pytest.mark.parametrize(("samples", "steps"), [(1, 3), (8, 3), (9, 6), (16, 6), (17, 9)])
def test_steps_are_epochs_times_batches_rounded_up(samples, steps):
    assert WORK.steps(samples) == steps


def test_the_names_of_optimizers_stand_here_alone():
    assert OPTIMIZERS == ("sgd", "adam")


@given(
    st.builds(
        LocalWork,
        epochs=st.integers(1, 1000),
        learning_rate=st.floats(0, 1000),
        batch_size=st.integers(1, 65536),
        seed=st.integers(0, 2**53 - 1),
        round=st.integers(1, 1000),
        client=st.just("dev-1"),
        minimum_samples=st.integers(0, 1000),
    )
)
def test_a_device_finds_in_its_message_what_the_round_asks(work):
    sent = train_task_of(work, run="run-1", release="toy@1", weights=WEIGHTS, token="t", deadline_s=30.0)
    came = TrainTask.decode(sent.encode())
    assert (came.run, came.round, came.release, came.weights) == ("run-1", work.round, "toy@1", WEIGHTS)
    assert (came.token, came.deadline_s, came.maximum_age_s) == ("t", 30.0, None)
    assert work_of_train_task(came, "dev-1", batch_size=work.batch_size) == work
