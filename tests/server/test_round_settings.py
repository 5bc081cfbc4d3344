"""Tests of hedgerow.server.round_settings: a message's configuration and the clients' work."""

from dataclasses import replace

import pytest

from hedgerow.local_work import LocalWork
from hedgerow.server.round_settings import message_settings, settings_of, work_of

pytestmark = pytest.mark.heavy

WORK = LocalWork(
    epochs=2,
    learning_rate=0.5,
    batch_size=8,
    seed=3,
    round=7,
    optimizer="adam",
    momentum=0.9,
    weight_decay=0.01,
    proximal_mu=0.2,
    clip_norm=1.5,
    minimum_samples=4,
)


def test_an_empty_configuration_leaves_the_work_as_it_is():
    assert work_of({}, WORK) == WORK


def test_what_a_strategy_is_told_comes_back_as_the_same_work():
    other = LocalWork(epochs=1, learning_rate=0.1, batch_size=16)
    # What strategies set themselves is no part of what they are told.
    assert work_of(settings_of(WORK), other) == replace(WORK, round=1, proximal_mu=0.0, clip_norm=None)


@pytest.mark.parametrize(
    ("key", "value", "changes"),
    [
        ("server-round", 9, {"round": 9}),
        ("seed", 1, {"seed": 1}),
        ("epochs", 5, {"epochs": 5}),
        ("learning-rate", 0.25, {"learning_rate": 0.25}),
        ("batch-size", 2, {"batch_size": 2}),
        ("optimizer", "sgd", {"optimizer": "sgd"}),
        ("momentum", 0.5, {"momentum": 0.5}),
        ("weight-decay", 0.5, {"weight_decay": 0.5}),
        ("proximal-mu", 1.0, {"proximal_mu": 1.0}),
        ("clipping_norm", 2.0, {"clip_norm": 2.0}),
        ("minimum-samples", 6, {"minimum_samples": 6}),
    ],
)
def test_each_key_changes_its_own_number_alone(key, value, changes):
    assert work_of({key: value}, WORK) == replace(WORK, **changes)


@pytest.mark.parametrize("settings", [{"epochs": "many"}, {"epochs": 0}, {"optimizer": "lion"}, {"momentum": 1.0}])
def test_what_no_client_can_follow_is_refused(settings):
    with pytest.raises(ValueError, match=r"expected|invalid literal"):
        work_of(settings, WORK)


@pytest.mark.parametrize("value", [float("inf"), [3], None])
@pytest.mark.parametrize("key", ["server-round", "seed", "epochs", "batch-size", "minimum-samples"])
def test_what_is_no_whole_number_is_named_with_its_key(key, value):
    with pytest.raises(ValueError, match=f"^expected a number as {key}, found "):
        work_of({key: value}, WORK)


def test_of_two_records_with_one_key_the_later_counts():
    from flwr.app import ConfigRecord, Message, RecordDict

    from hedgerow.server.flower import adopt_flower

    adopt_flower()
    records = {"a": ConfigRecord({"epochs": 1, "seed": 5}), "b": ConfigRecord({"epochs": 2})}
    assert message_settings(Message(RecordDict(records), 1, "train")) == {"epochs": 2, "seed": 5}
