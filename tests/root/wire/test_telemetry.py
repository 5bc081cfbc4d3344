"""A window on the wire."""

import json

import pytest

from hedgerow.errors import DecodeError
from hedgerow.wire.telemetry import Telemetry
from tests.root.documents import MESSAGES


@pytest.mark.parametrize(
    "counts",
    [
        {"correct": 7},
        {"labelled": 11},
        {"out_of_range": 11},
        {"latency": [0]},
        {"latency": [11] + [0] * 14},
        {"features": {"image.mean": {"counts": [3, 4, 2], "missing": 0}}},
        {
            "paired": {
                "agreed": 9,
                "disagreed": 2,
                "both_right": 0,
                "only_new_right": 0,
                "only_old_right": 0,
                "both_wrong": 0,
            }
        },
        {
            "paired": {
                "agreed": 1,
                "disagreed": 1,
                "both_right": 2,
                "only_new_right": 0,
                "only_old_right": 1,
                "both_wrong": 0,
            }
        },
        {"labelled": 0, "correct": 0},
        {"labelled": 3, "correct": 2},
        {"labelled": 9, "correct": 0},
        {"labelled": 9, "correct": 9},
    ],
)
def test_counts_that_contradict_each_other_are_refused(counts):
    (telemetry,) = (message for message in MESSAGES if isinstance(message, Telemetry))
    record = json.loads(telemetry.encode())
    record["window"].update(counts)

    with pytest.raises(DecodeError, match=r"telemetry.window"):
        Telemetry.decode(json.dumps(record).encode())


@pytest.mark.parametrize(
    ("counts", "sentence"),
    [
        (
            {"labelled": 4, "correct": 3},
            "telemetry.window.paired: expected at most 3 samples on which the new model is right, found 5",
        ),
        (
            {"labelled": 5, "correct": 5},
            "telemetry.window.paired: expected at most 0 samples on which the new model is wrong, found 1",
        ),
    ],
)
def test_a_comparison_that_saw_more_than_the_window_is_refused_in_words(counts, sentence):
    (telemetry,) = (message for message in MESSAGES if isinstance(message, Telemetry))
    record = json.loads(telemetry.encode())
    record["window"].update(counts)

    with pytest.raises(DecodeError) as caught:
        Telemetry.decode(json.dumps(record).encode())

    assert str(caught.value) == sentence


def test_a_comparison_that_saw_as_much_as_the_window_is_taken():
    (telemetry,) = (message for message in MESSAGES if isinstance(message, Telemetry))

    assert telemetry.window.correct == telemetry.window.paired.both_right + telemetry.window.paired.only_new_right
    assert Telemetry.decode(telemetry.encode()) == telemetry
