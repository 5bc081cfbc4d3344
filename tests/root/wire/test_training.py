"""A round of training on the wire."""

import json

import pytest

from hedgerow.errors import DecodeError
from hedgerow.wire.training import TrainTask, TrainUpdate
from tests.root.documents import BLOB, MESSAGES


@pytest.mark.parametrize(("state", "weights"), [("done", None), ("failed", BLOB), ("declined", BLOB)])
def test_an_update_has_weights_exactly_when_it_is_done(state, weights):
    with pytest.raises(DecodeError, match=r"update.weights: expected weights exactly when done"):
        TrainUpdate.decode(TrainUpdate(run="r", round=1, state=state, weights=weights).encode())


def test_a_training_token_is_not_shown():
    task = next(message for message in MESSAGES if isinstance(message, TrainTask))

    assert "secret" not in repr(task)


def test_an_update_has_few_metrics():
    update = TrainUpdate(run="r", round=1, state="failed", metrics={f"m{n}": 1.0 for n in range(65)})
    with pytest.raises(DecodeError, match="at most 64 metrics"):
        TrainUpdate.decode(update.encode())


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
