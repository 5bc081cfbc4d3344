"""A round of training on the wire."""

import json
from dataclasses import replace

import pytest

from hedgerow.errors import DecodeError
from hedgerow.wire.training import TrainTask, TrainUpdate
from tests.root.documents import BLOB, MESSAGES


@pytest.mark.parametrize(("state", "weights"), [("done", None), ("failed", BLOB), ("declined", BLOB)])
def test_an_update_has_weights_exactly_when_it_is_done(state, weights):
    with pytest.raises(DecodeError) as caught:
        TrainUpdate.decode(TrainUpdate(run="r", round=1, state=state, weights=weights).encode())

    assert str(caught.value) == f"update.weights: expected weights exactly when done, found {state}"


def test_weights_of_a_gibibyte_pass_and_longer_ones_are_refused_both_ways():
    task = next(message for message in MESSAGES if isinstance(message, TrainTask))
    update = TrainUpdate(run="r", round=1, state="done", weights=BLOB)
    for message, kind in ((task, "train"), (update, "update")):
        longest = replace(message, weights=replace(BLOB, length_bytes=2**30))
        assert type(message).decode(longest.encode()) == longest
        with pytest.raises(DecodeError) as caught:
            type(message).decode(replace(message, weights=replace(BLOB, length_bytes=2**30 + 1)).encode())
        assert str(caught.value) == (f"{kind}.weights.length_bytes: expected at most {2**30} bytes, found {2**30 + 1}")


def test_an_update_that_says_no_more_than_its_state_has_nothing_else():
    update = TrainUpdate(run="r", round=3, state="failed")

    assert update.to_record() == {
        "run": "r", "round": 3, "state": "failed", "examples": 0, "metrics": {}, "weights": None, "reason": "",
    }  # fmt: skip
    assert TrainUpdate.decode(update.encode()) == update


def test_a_long_reason_is_cut_by_the_sender_and_is_one_line():
    update = TrainUpdate(run="r", round=3, state="failed", reason="a\nb" + "x" * 2000)

    assert TrainUpdate.decode(update.encode()).reason == "a b" + "x" * 1021


def test_a_training_token_is_not_shown():
    task = next(message for message in MESSAGES if isinstance(message, TrainTask))

    assert "secret" not in repr(task)


def test_an_update_has_few_metrics():
    update = TrainUpdate(run="r", round=1, state="failed", metrics={f"m{n}": 1.0 for n in range(65)})
    with pytest.raises(DecodeError) as caught:
        TrainUpdate.decode(update.encode())

    assert str(caught.value) == "update.metrics: expected at most 64 metrics, found 65"
    most = TrainUpdate(run="r", round=1, state="failed", metrics={f"m{n}": 1.0 for n in range(64)})
    assert TrainUpdate.decode(most.encode()) == most


def test_a_task_for_a_device_whose_world_held_reads_as_it_always_did():
    """Agents refuse fields that they do not know."""
    whole = next(m for m in MESSAGES if isinstance(m, TrainTask) and m.maximum_age_s is None)

    assert b"maximum_age_s" not in whole.encode()


@pytest.mark.parametrize("age_s", [-1, "60", True, float("1e999"), 10**12])
def test_an_age_that_is_none_refuses_the_task(age_s):
    task = next(m for m in MESSAGES if isinstance(m, TrainTask))
    document = json.loads(task.encode()) | {"maximum_age_s": age_s}

    with pytest.raises(DecodeError, match=r"maximum_age_s|finite"):
        TrainTask.decode(json.dumps(document).encode())
