"""A window on the wire."""

import json

import pytest

from hedgerow.errors import DecodeError
from hedgerow.score_counts import ScoreCounts
from hedgerow.wire.telemetry import Telemetry
from tests.root.documents import MESSAGES
from tests.scores import pairs, scored


def weights(scores: ScoreCounts) -> list[int]:
    return list(scores.weights)


@pytest.mark.parametrize(
    "counts",
    [
        {"scores": weights(scored(5, 11))},
        {"scores": [2048, *weights(scored(5, 6))[1:]]},
        {"scores": weights(scored(5, 6))[:-1]},
        {"out_of_range": 11},
        {"latency": [0]},
        {"latency": [11] + [0] * 14},
        {"features": {"image.mean": {"counts": [3, 4, 2], "missing": 0}}},
        {"paired": pairs(9, 2).to_record()},
        {"paired": pairs(1, 1, both_right=2, only_old_right=1).to_record()},
        {"scores": weights(scored(0, 0))},
        {"scores": weights(scored(2, 3))},
        {"scores": weights(scored(0, 9))},
        {"scores": weights(scored(9, 9))},
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
            {"scores": weights(scored(0, 6))},
            "telemetry.window.paired.change: expected gains of at most 0 in all, by the window's scores, found 1",
        ),
        (
            {"scores": weights(scored(6, 6))},
            "telemetry.window.paired.change: expected losses of at most 0 in all, by the window's scores, found 1",
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

    assert telemetry.window.scores.samples == telemetry.window.paired.change.samples
    assert Telemetry.decode(telemetry.encode()) == telemetry
