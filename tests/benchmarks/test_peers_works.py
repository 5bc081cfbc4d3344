"""Every simulator gets the same clients, weights and steps."""

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from benchmarks.peers.works import (  # noqa: E402 - needs torch
    NETWORKS,
    WORKS,
    Samples,
    accuracy,
    load_samples,
    make_network,
    owned_by,
    shards,
)

pytestmark = pytest.mark.heavy


def labels(count: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 10, count)


def test_the_cifar10_work_is_that_of_pfl_researchs_configuration():
    work = WORKS["cifar10"]

    # benchmarks/image_classification/configs/baseline.yaml and benchmarks/model/pytorch/cnn.py
    assert (work.clients, work.samples, work.cohort, work.batch_size, work.epochs) == (1000, 50, 50, 10, 1)
    assert work.learning_rate == 0.1
    network = make_network(work.network)
    assert sum(parameter.numel() for parameter in network.parameters()) == 1_626_442
    assert [layer.p for layer in network if isinstance(layer, torch.nn.Dropout)] == [0.25, 0.5]


@pytest.mark.parametrize("name", sorted(WORKS))
def test_every_batch_is_full(name):
    work = WORKS[name]
    assert work.samples % work.batch_size == 0
    assert work.steps == work.epochs * work.samples // work.batch_size


def test_the_overhead_work_has_a_thousand_parameters():
    assert sum(parameter.numel() for parameter in make_network("thousand").parameters()) == 1010


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_networks_take_their_samples_and_begin_with_the_same_weights(name):
    first, second = make_network(name), make_network(name)

    assert first(torch.zeros(2, *NETWORKS[name][1])).shape == (2, 10)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_an_iid_split_deals_every_sample_before_any_twice():
    work = replace(WORKS["cifar10"], clients=100)

    dealt = shards(work, labels(4000))

    assert dealt.shape == (100, 50)
    assert np.unique(dealt[:80]).size == 4000
    assert np.array_equal(dealt, shards(work, labels(4000)))


def test_a_split_by_labels_gives_each_client_about_two_of_them():
    work = replace(WORKS["lr-mnist"], clients=100)

    dealt = shards(work, labels(6000))

    assert np.unique(dealt).size == 6000
    kinds = [np.unique(labels(6000)[row]).size for row in dealt]
    assert np.mean(kinds) < 2.5
    # Mixed, so that a simulator that takes samples in order has the same batches in distribution.
    assert any(np.any(np.diff(labels(6000)[row]) != np.sort(np.diff(labels(6000)[row]))) for row in dealt)


def test_drawn_clients_are_always_the_same_and_are_not_dealt_to():
    work = WORKS["million"]

    owned = owned_by(work, labels(60_000))

    assert np.array_equal(owned(999_999), owned(999_999))
    assert not np.array_equal(owned(999_998), owned(999_999))
    assert np.unique(owned(5)).size == work.samples


def test_accuracy_is_the_share_of_samples_whose_highest_logit_is_the_label():
    network = torch.nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        network.weight.copy_(torch.eye(2))
    held_out = Samples(np.array([[1, 0], [0, 1], [1, 0], [1, 0]], np.float32), np.array([0, 1, 1, 0]))

    assert accuracy(network, held_out) == 0.75


def test_noise_needs_no_files():
    train, held_out = load_samples(WORKS["overhead"])

    assert train.inputs.shape == (4000, 100)
    assert len(held_out.labels) == 100
