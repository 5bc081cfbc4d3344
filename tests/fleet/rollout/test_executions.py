"""One device's part in a rollout: what each answer makes of it, and what the next answer makes of that."""

from dataclasses import replace

import pytest

from hedgerow.decode import Fields
from hedgerow.errors import DecodeError
from hedgerow.fleet.rollout.executions import (
    EXECUTION_TRANSITIONS,
    ExecutionRecord,
    canceled,
    expired,
    expires_at,
    removed,
    reported,
    unanswered,
)
from hedgerow.fleet.rollout.plan import RolloutPlan
from hedgerow.wire.execution import Execution, ExecutionState

S = ExecutionState
PLAN = RolloutPlan(max_attempts=2, in_progress_timeout_s=600, step_timeout_s=120)
ASKED = ExecutionRecord("a", "pi", 0, assigned=True, previous="toy@1")
RUNNING = replace(ASKED, state=S.IN_PROGRESS, step="download", started_at=100.0, updated_at=100.0, version=2)


def word(state, *, attempt=1, step="install", reason=""):
    return Execution(rollout="r", attempt=attempt, state=state, step=step, reason=reason)


def hear(record, state, now, **message):
    return reported(record, word(state, **message), PLAN, now)


def test_progress_starts_the_clock_once_and_a_repeat_only_shows_life():
    first = hear(ASKED, S.IN_PROGRESS, 100.0, step="download")
    assert first == RUNNING
    again = hear(first, S.IN_PROGRESS, 130.0, step="download")
    assert again == replace(first, updated_at=130.0)
    on = hear(again, S.IN_PROGRESS, 150.0, step="verify")
    assert on == replace(first, updated_at=150.0, step="verify", version=3)


def test_a_clock_that_was_set_back_moves_no_time_back():
    assert hear(RUNNING, S.IN_PROGRESS, 50.0, step="download") == RUNNING
    done = hear(RUNNING, S.SUCCEEDED, 100.0)
    assert hear(done, S.FAILED, 50.0, reason="crashed").updated_at == 100.0


def test_a_failure_with_attempts_left_is_a_new_attempt_that_says_why():
    retried = hear(RUNNING, S.FAILED, 200.0, reason="the disk is full")
    assert retried == ExecutionRecord(
        "a", "pi", 0, S.QUEUED, attempt=2, version=3, updated_at=200.0, previous="toy@1",
        reason="attempt 1 FAILED: the disk is full",
    )  # fmt: skip
    assert (retried.is_wanted, retried.is_exposed) == (True, False)
    # What comes late of the first attempt is not taken for the second, nor anything before that was asked for.
    assert hear(retried, S.SUCCEEDED, 210.0) is retried
    assert hear(retried, S.SUCCEEDED, 210.0, attempt=2) is retried
    asked = replace(retried, assigned=True)
    begun = hear(asked, S.IN_PROGRESS, 220.0, attempt=2)
    assert (begun.state, begun.started_at, begun.reason) == (S.IN_PROGRESS, 220.0, retried.reason)
    failed = hear(begun, S.FAILED, 230.0, attempt=2, reason="still full")
    assert (failed.state, failed.attempt, failed.reason, failed.updated_at) == (S.FAILED, 2, "still full", 230.0)
    assert hear(failed, S.SUCCEEDED, 240.0, attempt=2) is failed


def test_a_refusal_is_never_tried_again_and_keeps_its_reason():
    refused = hear(RUNNING, S.REJECTED, 200.0, reason="it does not fit")
    assert (refused.state, refused.attempt, refused.reason, refused.version) == (S.REJECTED, 1, "it does not fit", 3)
    assert (refused.step, refused.started_at, refused.updated_at) == ("install", 100.0, 200.0)


def test_a_success_forgets_why_the_attempt_before_failed():
    retried = replace(hear(RUNNING, S.FAILED, 200.0, reason="full"), assigned=True)
    done = hear(retried, S.SUCCEEDED, 250.0, attempt=2, reason="a word too many", step="commit")
    assert (done.state, done.reason, done.step) == (S.SUCCEEDED, "", "commit")
    assert (done.started_at, done.updated_at, done.version) == (250.0, 250.0, 4)


def test_a_success_that_is_taken_back_is_a_failure_that_is_final():
    done = hear(RUNNING, S.SUCCEEDED, 200.0)
    back = hear(done, S.FAILED, 300.0, step="serve", reason="it crashed")
    assert back == replace(done, state=S.FAILED, step="serve", reason="it crashed", version=4, updated_at=300.0)
    assert hear(back, S.SUCCEEDED, 310.0) is back
    assert hear(done, S.IN_PROGRESS, 300.0) is done
    assert hear(done, S.REJECTED, 300.0) is done


@pytest.mark.parametrize("state", [S.QUEUED, S.CANCELED, S.REMOVED, S.TIMED_OUT])
def test_a_device_cannot_say_what_only_the_fleet_decides(state):
    assert hear(RUNNING, state, 200.0) is RUNNING


def test_time_is_up_at_the_earlier_of_two_bounds_and_not_before():
    assert expires_at(ASKED, PLAN) is None
    assert expires_at(RUNNING, PLAN) == 220.0
    assert expires_at(replace(RUNNING, updated_at=None), PLAN) == 220.0
    late = replace(RUNNING, updated_at=650.0)
    assert expires_at(late, PLAN) == 700.0
    assert expires_at(replace(RUNNING, started_at=None), PLAN) is None
    assert expired(RUNNING, PLAN, 219.9) is RUNNING
    over = expired(RUNNING, PLAN, 220.0)
    assert (over.state, over.attempt, over.reason) == (
        S.QUEUED, 2, "attempt 1 TIMED_OUT: no answer in time in step download"
    )  # fmt: skip
    last = expired(replace(RUNNING, attempt=2, step=""), PLAN, 220.0)
    assert (last.state, last.reason, last.started_at, last.is_exposed) == (
        S.TIMED_OUT,
        "no answer in time",
        100.0,
        True,
    )


def test_what_is_open_can_be_closed_and_what_is_over_cannot():
    failed_once = replace(ASKED, attempt=2, reason="attempt 1 FAILED: full", updated_at=5.0)
    for close, state in ((canceled, S.CANCELED), (removed, S.REMOVED)):
        assert close(failed_once, 9.0) == replace(failed_once, state=state, version=2, updated_at=9.0)
    closed = unanswered(failed_once, 9.0)
    assert (closed.state, closed.reason) == (S.TIMED_OUT, "the rollout finished before the device answered")
    for state in S:
        if state.is_terminal:
            over = replace(RUNNING, state=state)
            assert canceled(over, 9.0) is removed(over, 9.0) is unanswered(over, 9.0) is over


@pytest.mark.parametrize("state", list(S))
@pytest.mark.parametrize("started_at", [None, 5.0])
def test_who_may_run_the_release_is_exposed(state, started_at):
    record = replace(ASKED, state=state, started_at=started_at)
    began = started_at is not None
    assert record.is_exposed == (
        state in {S.IN_PROGRESS, S.SUCCEEDED} or (began and state in {S.TIMED_OUT, S.CANCELED})
    )


@pytest.mark.parametrize(
    ("assigned", "attempt", "state", "wanted"),
    [
        (True, 1, S.QUEUED, True),
        (False, 1, S.QUEUED, False),
        (False, 2, S.QUEUED, True),
        (True, 1, S.FAILED, True),
        (True, 2, S.REMOVED, False),
    ],
)
def test_a_device_that_was_ever_asked_still_has_the_release_in_what_is_wanted_of_it(assigned, attempt, state, wanted):
    assert replace(ASKED, assigned=assigned, attempt=attempt, state=state).is_wanted == wanted


def test_the_table_says_what_may_follow():
    for state in S:
        allowed = EXECUTION_TRANSITIONS[state]
        if state is S.QUEUED:
            assert allowed == set(S) - {S.QUEUED}
        elif state is S.IN_PROGRESS:
            assert allowed == set(S)
        else:
            assert allowed == {S.SUCCEEDED: {S.FAILED}, S.REMOVED: {S.QUEUED}}.get(state, set())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("attempt", 0),
        ("version", 0),
        ("stage", -1),
        ("state", "DONE"),
        ("device", "a b"),
        ("target", ""),
        ("step", "x" * 65),
        ("reason", "x" * 4097),
        ("previous", "toy"),
        ("started_at", "soon"),
        ("assigned", 1),
        ("more", 1),
    ],
)
def test_a_record_out_of_bounds_is_refused_and_one_at_its_bounds_is_not(name, value):
    edge = replace(RUNNING, step="x" * 64, reason="x" * 4096, attempt=1, version=1, stage=0)
    assert ExecutionRecord.from_fields(Fields(edge.to_record(), "record")) == edge
    with pytest.raises(DecodeError, match=name):
        ExecutionRecord.from_fields(Fields({**edge.to_record(), name: value}, "record"))
