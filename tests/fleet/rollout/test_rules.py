"""The rollout's rules: the whole table, and what holds in any order of events."""

import json
import math
from dataclasses import replace
from itertools import product
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from hedgerow.decode import Fields
from hedgerow.fleet.errors import InvalidTransitionError, PlanError
from hedgerow.fleet.rollout.events import (
    Approved,
    Assign,
    Canceled,
    DeviceJoined,
    DeviceRemoved,
    DeviceReported,
    GateJudged,
    Paused,
    Resumed,
    RollBack,
    RolloutEvent,
    Started,
    Tick,
)
from hedgerow.fleet.rollout.executions import EXECUTION_TRANSITIONS, ExecutionRecord, expires_at
from hedgerow.fleet.rollout.gates import Decision, GatePlan, GateVerdict
from hedgerow.fleet.rollout.plan import AbortRule, RolloutPlan
from hedgerow.fleet.rollout.rules import advance, create_rollout
from hedgerow.fleet.rollout.stages import DeviceFacts, StagePlan, StageState
from hedgerow.fleet.rollout.state import Rollout, RolloutState, exposed, tally, waiting_for_gate
from hedgerow.fleet.rollout.table import NO_EFFECT, TRANSITIONS
from hedgerow.wire.execution import Execution, ExecutionState

S, X = RolloutState, ExecutionState
GO, WAIT, ABORT = (GateVerdict(decision, f"the gate says {decision}") for decision in Decision)
DEVICES = [DeviceFacts(f"d{i}", "pi" if i % 2 else "phone", "digits@1" if i < 6 else None) for i in range(8)]
PLAN = RolloutPlan()
UNGATED = RolloutPlan(gate=None)


def started(plan: RolloutPlan = PLAN, devices=DEVICES):
    return advance(create_rollout("r1", "digits@2", plan, devices, 0.0), Started(now=0.0))


def report(rollout: Rollout, device: str, state: ExecutionState, now: float = 1.0, **more) -> DeviceReported:
    attempt = more.pop("attempt", rollout.executions[device].attempt)
    return DeviceReported(device, Execution(rollout=rollout.id, attempt=attempt, state=state, **more), now)


def all_report(rollout: Rollout, devices, state: ExecutionState = X.SUCCEEDED, now: float = 1.0):
    commands = []
    for device in devices:
        rollout, more = advance(rollout, report(rollout, device, state, now))
        commands += more
    return rollout, commands


def names(rollout: Rollout, stage: int) -> list[str]:
    return [record.device for record in rollout.executions.values() if record.stage == stage]


def at_gate() -> Rollout:
    rollout, _ = started()
    rollout, _ = all_report(rollout, names(rollout, 0))
    assert waiting_for_gate(rollout)
    return rollout


def finished(plan: RolloutPlan = UNGATED) -> Rollout:
    rollout, _ = started(plan)
    rollout, _ = all_report(rollout, names(rollout, 0))
    rollout, _ = all_report(rollout, names(rollout, 1))
    assert rollout.state is S.FINISHED
    return rollout


def in_state(state: RolloutState) -> Rollout:
    if state is S.DRAFT:
        return create_rollout("r1", "digits@2", PLAN, DEVICES, 0.0, draft=True)
    if state is S.AWAITING_APPROVAL:
        return create_rollout("r1", "digits@2", RolloutPlan(needs_approval=True), DEVICES, 0.0)
    if state is S.READY:
        return create_rollout("r1", "digits@2", PLAN, DEVICES, 0.0)
    if state is S.PAUSED:
        return advance(in_state(S.RUNNING), Paused(now=0.5))[0]
    if state is S.FINISHED:
        return finished()
    if state is S.ABORTED:
        return advance(in_state(S.READY), Canceled("no", now=0.5))[0]
    if state is S.ROLLED_BACK:
        return advance(at_gate(), GateJudged(ABORT, now=2.0))[0]
    return started()[0]


def event_of(kind: type, rollout: Rollout):
    return {
        Approved: Approved(now=1.0),
        Started: Started(now=1.0),
        Paused: Paused(now=1.0),
        Resumed: Resumed(now=1.0),
        Canceled: Canceled("stop", now=1.0),
        DeviceReported: report(rollout, "d0", X.SUCCEEDED),
        GateJudged: GateJudged(GO, now=1.0),
        DeviceJoined: DeviceJoined(DeviceFacts("new", "pi", None), now=1.0),
        DeviceRemoved: DeviceRemoved("d0", now=1.0),
        Tick: Tick(now=1.0),
    }[kind]


@pytest.mark.parametrize(("state", "kind"), list(product(RolloutState, get_args(RolloutEvent))))
def test_every_pair_of_state_and_event_does_what_the_tables_say(state, kind):
    rollout = in_state(state)
    assert rollout.state is state
    pair = (state, kind)
    assert not (pair in NO_EFFECT and pair in TRANSITIONS)
    if pair in NO_EFFECT:
        assert advance(rollout, event_of(kind, rollout)) == (rollout, ())
    elif pair in TRANSITIONS:
        assert advance(rollout, event_of(kind, rollout))[0].state in TRANSITIONS[pair]
    else:
        with pytest.raises(InvalidTransitionError) as caught:
            advance(rollout, event_of(kind, rollout))
        able = sorted(allowed.value for allowed, event in {*TRANSITIONS, *NO_EFFECT} if event is kind)
        assert str(caught.value) == (
            f"{kind.__name__} needs the rollout r1 to be {' or '.join(able)}, and it is {state.value}; "
            "look at its status and choose another action"
        )
        assert caught.value.state == state


def test_a_finished_rollout_can_be_neither_cancelled_nor_started():
    assert {(S.FINISHED, kind) for kind in (Canceled, Started, Paused, Resumed, Approved)}.isdisjoint(
        set(TRANSITIONS) | NO_EFFECT
    )


def test_starting_asks_the_canary_only_and_compares_where_there_is_a_model_before():
    rollout, commands = started()
    assert [command.device for command in commands] == sorted(names(rollout, 0))
    assert len(commands) == 2  # ceil(0.2 * 8)
    for command in commands:
        assert command == Assign(
            command.device, "digits@2", 1, compare=rollout.executions[command.device].previous is not None
        )
    assert rollout.stages == (StageState.RUNNING, StageState.SCHEDULED)


def test_a_device_that_already_has_the_release_has_nothing_to_compare():
    _, commands = started(devices=[DeviceFacts("a", "pi", "digits@2")])
    assert commands == (Assign("a", "digits@2", 1, compare=False),)


def test_approval_comes_before_the_start():
    rollout = in_state(S.AWAITING_APPROVAL)
    assert advance(rollout, Started(now=1.0)) == (rollout, ())
    rollout, commands = advance(rollout, Approved(now=1.0))
    assert (rollout.state, commands) == (S.READY, ())
    assert advance(rollout, Started(now=2.0))[0].state is S.RUNNING


def test_a_whole_rollout_finishes_through_its_gates():
    rollout = at_gate()
    rollout, commands = advance(rollout, GateJudged(GO, now=2.0))
    assert sorted(command.device for command in commands) == sorted(names(rollout, 1))
    rollout, commands = all_report(rollout, names(rollout, 1), now=3.0)
    assert (rollout.state, commands) == (S.RUNNING, [])
    rollout, commands = advance(rollout, GateJudged(GO, now=4.0))
    assert (rollout.state, commands) == (S.FINISHED, ())
    assert tally(rollout)[X.SUCCEEDED] == 8
    assert rollout.stages == (StageState.FINISHED, StageState.FINISHED)


def test_without_a_gate_install_results_decide():
    assert tally(finished())[X.SUCCEEDED] == 8


def test_a_gate_that_aborts_sends_the_canary_back_and_nobody_else_is_touched():
    rollout = at_gate()
    canaries = names(rollout, 0)
    after, commands = advance(rollout, GateJudged(ABORT, now=2.0))
    assert after.state is S.ROLLED_BACK
    assert commands == tuple(RollBack(d, rollout.executions[d].previous) for d in sorted(canaries))
    assert exposed(after) == tuple(sorted(canaries))
    assert after.stages == (StageState.FAILED, StageState.SCHEDULED)
    assert tally(after, 1)[X.CANCELED] == 6
    assert after.reason == "the gate stopped it: the gate says ABORT"


def test_a_gate_may_abort_before_the_stage_is_over():
    rollout, _ = started()
    first, second = sorted(names(rollout, 0))
    rollout, _ = advance(rollout, report(rollout, first, X.SUCCEEDED))
    after, commands = advance(rollout, GateJudged(ABORT, now=2.0))
    assert after.state is S.ROLLED_BACK
    # The second sleeps, but its desired state names the bad release: it must not wake up to it.
    assert {command.device for command in commands} == {first, second}
    assert exposed(after) == (first,)


def test_go_before_the_stage_is_over_is_not_enough():
    rollout, _ = started()
    assert advance(rollout, GateJudged(GO, now=1.0))[0].stage == 0


def test_an_undecided_canary_goes_back_when_its_patience_ends_and_the_reason_says_what_was_missing():
    rollout = at_gate()
    canaries = names(rollout, 0)
    rollout, _ = advance(rollout, GateJudged(WAIT, now=2.0))
    assert advance(rollout, Tick(now=0.9 + PLAN.gate_timeout_s))[0].state is S.RUNNING
    after, commands = advance(rollout, Tick(now=1.0 + PLAN.gate_timeout_s))
    assert after.state is S.ROLLED_BACK
    assert commands == tuple(RollBack(d, rollout.executions[d].previous) for d in sorted(canaries))
    assert after.reason == "the gate of the stage canary could not decide within 3600 s: the gate says WAIT"
    assert advance(after, GateJudged(GO, now=5000.0)) == (after, ())


def test_an_undecided_later_stage_goes_back_with_all_that_have_the_release():
    rollout, _ = advance(at_gate(), GateJudged(GO, now=2.0))
    rollout, _ = all_report(rollout, names(rollout, 1), now=3.0)
    after, commands = advance(rollout, Tick(now=3.0 + PLAN.gate_timeout_s))
    assert after.state is S.ROLLED_BACK
    assert [command.device for command in commands] == sorted(rollout.executions)


def test_patience_does_not_run_while_an_operator_holds_the_rollout():
    rollout, _ = advance(at_gate(), Paused(now=2.0))
    rollout, _ = advance(rollout, Tick(now=9000.0))
    assert rollout.state is S.PAUSED
    rollout, _ = advance(rollout, Resumed(now=9000.0))
    assert waiting_for_gate(rollout)
    assert advance(rollout, Tick(now=9001.0))[0].state is S.RUNNING
    assert advance(rollout, GateJudged(GO, now=9002.0))[0].stage == 1


def test_half_of_the_canary_failing_stops_by_the_default_rule():
    rollout, _ = started(replace(PLAN, max_attempts=1))
    first, second = sorted(names(rollout, 0))
    rollout, _ = advance(rollout, report(rollout, first, X.SUCCEEDED))
    after, commands = advance(rollout, report(rollout, second, X.FAILED, reason="golden samples differ"))
    assert after.state is S.ROLLED_BACK
    assert {command.device for command in commands} == {first, second}
    assert after.reason == "1 of 2 devices in the stage canary failed, and the plan stops at 50%"


def test_a_rollout_that_reached_nobody_is_aborted():
    rollout, _ = started()
    rollout, _ = all_report(rollout, names(rollout, 0), X.REJECTED)
    assert rollout.state is S.ABORTED
    assert exposed(rollout) == ()


@pytest.mark.parametrize(("denominator", "state"), [("total", S.RUNNING), ("reported", S.ABORTED)])
def test_the_share_of_an_abort_rule_is_of_the_total_or_of_those_that_reported(denominator, state):
    plan = RolloutPlan((StagePlan("all", 1.0),), (AbortRule("REJECTED", 0.5, 1),), None, denominator=denominator)
    rollout, _ = started(plan)
    assert advance(rollout, report(rollout, "d0", X.REJECTED))[0].state is state


def test_an_abort_rule_counts_its_kind_only_and_not_before_the_minimum():
    rules = (AbortRule("REJECTED", 0.25, 3), AbortRule("TIMED_OUT", 0.5, 1))
    plan = RolloutPlan((StagePlan("all", 1.0),), rules, None, max_attempts=1)
    rollout, _ = started(plan)
    rollout, _ = all_report(rollout, ["d0", "d1"], X.REJECTED)
    assert rollout.state is S.RUNNING
    rollout, _ = advance(rollout, report(rollout, "d2", X.FAILED))
    assert rollout.state is S.ABORTED


def test_a_failure_is_tried_again_as_a_new_attempt_of_the_same_execution():
    rollout, _ = started()
    device = names(rollout, 0)[0]
    event = report(rollout, device, X.FAILED, reason="disk full")
    rollout, commands = advance(rollout, event)
    record = rollout.executions[device]
    assert commands == (Assign(device, "digits@2", 2, compare=record.previous is not None),)
    assert (record.state, record.attempt) == (X.QUEUED, 2)
    assert "disk full" in record.reason
    assert advance(rollout, event) == (rollout, ())  # the first attempt's message again
    rollout, commands = advance(rollout, report(rollout, device, X.FAILED))
    assert rollout.executions[device].state is X.FAILED
    assert not any(isinstance(command, Assign) for command in commands)


def test_a_success_that_the_device_takes_back_is_a_failure_that_counts_and_is_not_tried_again():
    rollout, _ = started()
    first, second = sorted(names(rollout, 0))
    rollout, _ = all_report(rollout, [first, second])
    assert waiting_for_gate(rollout)
    event = report(rollout, first, X.FAILED, 5.0, reason="it crashed 3 times")
    after, commands = advance(rollout, event)
    record = after.executions[first]
    assert (record.state, record.attempt, record.reason) == (X.FAILED, 1, "it crashed 3 times")
    assert record.version == rollout.executions[first].version + 1
    assert after.state is S.ROLLED_BACK, "one of two failed, and the plan stops at half"
    assert commands == tuple(RollBack(d, rollout.executions[d].previous) for d in (first, second))
    assert advance(after, event) == (after, ())


def test_a_success_taken_back_below_the_abort_rule_leaves_the_rollout_running():
    rollout, _ = started(replace(PLAN, abort_rules=()))
    first, second = sorted(names(rollout, 0))
    rollout, _ = all_report(rollout, [first, second])
    after, commands = advance(rollout, report(rollout, first, X.FAILED))
    assert (after.state, commands, tally(after)[X.FAILED]) == (S.RUNNING, (), 1)
    assert waiting_for_gate(after)
    assert exposed(after) == (second,)


@pytest.mark.parametrize("state", [X.IN_PROGRESS, X.SUCCEEDED, X.REJECTED, X.TIMED_OUT])
def test_nothing_but_a_failure_of_the_same_attempt_takes_a_success_back(state):
    rollout, _ = started(replace(PLAN, abort_rules=()))
    device = names(rollout, 0)[0]
    rollout, _ = advance(rollout, report(rollout, device, X.SUCCEEDED))
    assert advance(rollout, report(rollout, device, state))[0].executions[device].state is X.SUCCEEDED
    assert advance(rollout, report(rollout, device, X.FAILED, attempt=2)) == (rollout, ())


def test_a_finished_rollout_stays_finished_and_its_record_tells_the_failure():
    rollout = finished()
    after, commands = advance(rollout, report(rollout, "d3", X.FAILED, 9.0, reason="it crashed 3 times"))
    assert (after.state, commands) == (S.FINISHED, ())
    assert (after.executions["d3"].state, after.executions["d3"].updated_at) == (X.FAILED, 9.0)
    assert {n: r for n, r in after.executions.items() if n != "d3"} == {
        n: r for n, r in rollout.executions.items() if n != "d3"
    }


def test_a_rejection_is_never_tried_again():
    rollout, _ = started(replace(PLAN, max_attempts=9, abort_rules=()))
    device = names(rollout, 0)[0]
    rollout, commands = advance(rollout, report(rollout, device, X.REJECTED, reason="missing runtime"))
    assert (rollout.executions[device].state, commands) == (X.REJECTED, ())


def test_a_paused_rollout_assigns_nobody_and_catches_up_when_resumed():
    rollout, _ = started()
    first, second = sorted(names(rollout, 0))
    rollout, _ = advance(rollout, Paused(now=1.0))
    rollout, commands = advance(rollout, report(rollout, first, X.FAILED))
    assert (rollout.executions[first].attempt, commands) == (2, ())
    rollout, commands = advance(rollout, report(rollout, second, X.SUCCEEDED))
    assert (rollout.state, rollout.stage, commands) == (S.PAUSED, 0, ())
    rollout, commands = advance(rollout, Resumed(now=9.0))
    assert [(command.device, command.attempt) for command in commands] == [(first, 2)]
    assert rollout.stage_deadline_at == 9.0 + PLAN.stage_deadline_s


def test_a_late_success_after_a_rollback_does_not_resurrect():
    rollout, _ = started()
    device = names(rollout, 0)[0]
    rollout, _ = advance(rollout, report(rollout, device, X.IN_PROGRESS, step="download"))
    late = report(rollout, device, X.SUCCEEDED)
    rollout, commands = advance(rollout, GateJudged(ABORT, now=2.0))
    assert RollBack(device, rollout.executions[device].previous) in commands
    assert rollout.executions[device].state is X.CANCELED
    assert advance(rollout, late) == (rollout, ())


def test_reports_of_other_rollouts_attempts_devices_and_stages_are_ignored():
    rollout, _ = started()
    canary, later = names(rollout, 0)[0], names(rollout, 1)[0]
    other = DeviceReported(canary, Execution(rollout="r0", attempt=1, state=X.SUCCEEDED), 1.0)
    unknown = DeviceReported("nobody", Execution(rollout="r1", attempt=1, state=X.SUCCEEDED), 1.0)
    invented = DeviceReported(canary, Execution(rollout="r1", attempt=1, state=X.REMOVED), 1.0)
    early, future = report(rollout, later, X.SUCCEEDED), report(rollout, canary, X.SUCCEEDED, attempt=2)
    for event in (other, unknown, invented, early, future):
        assert advance(rollout, event) == (rollout, ())


def test_the_step_timer_is_armed_by_each_answer_and_never_passes_the_absolute_one():
    plan = replace(PLAN, in_progress_timeout_s=100, step_timeout_s=40, max_attempts=1, abort_rules=())
    rollout, _ = started(plan)
    device = names(rollout, 0)[0]
    for now, bound in ((10.0, 50.0), (45.0, 85.0), (80.0, 110.0), (105.0, 110.0)):
        rollout, _ = advance(rollout, report(rollout, device, X.IN_PROGRESS, now, step=f"at {now}"))
        assert expires_at(rollout.executions[device], plan) == bound
    assert advance(rollout, Tick(now=109.9))[0].executions[device].state is X.IN_PROGRESS
    assert advance(rollout, Tick(now=110.0))[0].executions[device].state is X.TIMED_OUT


def test_a_time_out_is_tried_again_with_fresh_timers():
    rollout, _ = started()
    device = names(rollout, 0)[0]
    rollout, _ = advance(rollout, report(rollout, device, X.IN_PROGRESS, step="load"))
    rollout, commands = advance(rollout, Tick(now=1.0 + PLAN.step_timeout_s))
    record = rollout.executions[device]
    assert [(command.device, command.attempt) for command in commands] == [(device, 2)]
    assert (record.state, record.started_at) == (X.QUEUED, None)
    assert record.reason == "attempt 1 TIMED_OUT: no answer in time in step load"


def test_a_success_counts_although_the_progress_before_was_lost():
    rollout, _ = started()
    device = names(rollout, 0)[0]
    rollout, _ = advance(rollout, report(rollout, device, X.SUCCEEDED))
    assert rollout.executions[device].state is X.SUCCEEDED
    assert device in exposed(rollout)


def test_sleeping_devices_do_not_stall_a_stage_beyond_its_deadline():
    rollout, _ = started()
    awake, asleep = sorted(names(rollout, 0))
    rollout, _ = advance(rollout, report(rollout, awake, X.SUCCEEDED))
    assert not waiting_for_gate(rollout)
    rollout, _ = advance(rollout, Tick(now=PLAN.stage_deadline_s))
    assert waiting_for_gate(rollout)
    rollout, _ = advance(rollout, GateJudged(GO, now=PLAN.stage_deadline_s + 1))
    assert rollout.stage == 1
    woken, _ = advance(rollout, report(rollout, asleep, X.SUCCEEDED, now=5000.0))
    assert woken.executions[asleep].state is X.SUCCEEDED
    rollout, _ = all_report(rollout, names(rollout, 1), now=5001.0)
    rollout, _ = advance(rollout, GateJudged(GO, now=5002.0))
    assert rollout.state is S.FINISHED
    closed = rollout.executions[asleep]
    assert (closed.state, closed.updated_at) == (X.TIMED_OUT, 5002.0)
    assert closed.reason == "the rollout finished before the device answered"


@pytest.mark.parametrize("plan", [UNGATED, PLAN])
def test_a_canary_that_never_answers_is_not_asked_any_longer(plan):
    rollout, _ = started(plan)
    after, commands = advance(rollout, Tick(now=PLAN.stage_deadline_s))
    assert after.state is S.ABORTED
    assert after.reason == "no device of the stage canary succeeded, so nothing speaks for going on"
    assert commands == tuple(RollBack(d, rollout.executions[d].previous) for d in sorted(names(rollout, 0)))


def test_a_canary_that_fails_at_its_deadline_is_not_asked_again_in_the_same_breath():
    rollout, _ = started(replace(PLAN, abort_rules=(), in_progress_timeout_s=9000, step_timeout_s=9000))
    device = names(rollout, 0)[0]
    rollout, _ = advance(rollout, report(rollout, device, X.IN_PROGRESS, now=1.0))
    after, commands = advance(rollout, report(rollout, device, X.FAILED, now=PLAN.stage_deadline_s))
    assert after.state.is_terminal
    assert {type(command) for command in commands} == {RollBack}
    assert {command.device for command in commands} == set(names(rollout, 0))


def test_a_later_stage_that_nobody_answers_is_held_and_the_proven_canary_stays():
    rollout, _ = advance(at_gate(), GateJudged(GO, now=2.0))
    rollout, commands = advance(rollout, Tick(now=2.0 + PLAN.stage_deadline_s))
    assert (rollout.state, commands) == (S.PAUSED, ())
    assert rollout.reason == "no device of the stage fleet succeeded, so nothing speaks for going on"
    assert (rollout.gate_since, rollout.stage) == (None, 1)


def test_a_new_device_joins_through_the_last_stage_that_has_not_started():
    plan = RolloutPlan((StagePlan("a", 0.1), StagePlan("b", 0.5), StagePlan("c", 1.0)), gate=None)
    rollout, _ = started(plan)
    event = DeviceJoined(DeviceFacts("new", "pi", None), now=1.0)
    rollout, commands = advance(rollout, event)
    assert (rollout.executions["new"].stage, commands) == (2, ())
    assert advance(rollout, event) == (rollout, ())


def test_a_new_device_joins_the_current_stage_when_all_have_started():
    rollout, _ = advance(at_gate(), GateJudged(GO, now=2.0))
    rollout, commands = advance(rollout, DeviceJoined(DeviceFacts("new", "pi", "digits@1"), now=3.0))
    assert commands == (Assign("new", "digits@2", 1, compare=True),)
    rollout, _ = all_report(rollout, [d for d in names(rollout, 1) if d != "new"], now=4.0)
    assert not waiting_for_gate(rollout)


def test_a_removed_device_is_not_waited_for_and_starts_anew_when_it_returns():
    rollout, _ = started()
    gone, stays = sorted(names(rollout, 0))
    rollout, _ = advance(rollout, report(rollout, stays, X.SUCCEEDED))
    rollout, _ = advance(rollout, DeviceRemoved(gone, now=2.0))
    assert rollout.executions[gone].state is X.REMOVED
    assert waiting_for_gate(rollout)
    before = rollout.executions[gone]
    again, commands = advance(rollout, DeviceJoined(DeviceFacts(gone, "other", None), now=3.0))
    assert commands == ()
    assert again.executions[gone] == ExecutionRecord(
        gone, "other", 1, X.QUEUED, attempt=2, version=before.version + 1, previous=before.previous
    )
    stopped, commands = advance(rollout, Canceled("enough", now=3.0))
    assert [command.device for command in commands] == [stays]
    assert stopped.state is S.ROLLED_BACK


def test_a_device_that_left_before_it_was_asked_comes_back_with_its_first_attempt():
    rollout, _ = started()
    device = names(rollout, 1)[0]
    rollout, _ = advance(rollout, DeviceRemoved(device, now=2.0))
    again, _ = advance(rollout, DeviceJoined(DeviceFacts(device, "pi", None), now=3.0))
    assert (again.executions[device].state, again.executions[device].attempt) == (X.QUEUED, 1)


def test_the_patience_of_a_gate_begins_anew_when_a_device_joins_its_stage():
    rollout, _ = advance(at_gate(), GateJudged(GO, now=2.0))
    rollout, _ = all_report(rollout, names(rollout, 1), now=3.0)
    assert rollout.gate_since == 3.0
    joined, _ = advance(rollout, DeviceJoined(DeviceFacts("new", "pi", "digits@1"), now=4.0))
    assert joined.gate_since is None
    judged, _ = advance(joined, report(joined, "new", X.SUCCEEDED, now=9.0))
    assert judged.gate_since == 9.0
    assert advance(judged, Tick(now=8.9 + PLAN.gate_timeout_s))[0].state is S.RUNNING
    assert advance(judged, Tick(now=9.0 + PLAN.gate_timeout_s))[0].state is S.ROLLED_BACK


def test_what_a_gate_says_is_kept_up_to_2048_characters():
    rollout, _ = advance(at_gate(), GateJudged(GateVerdict(Decision.WAIT, "x" * 2049), now=2.0))
    assert rollout.reason == "x" * 2048


def test_a_rollout_needs_devices_and_a_plan_that_holds_together():
    with pytest.raises(PlanError) as caught:
        create_rollout("r", "digits@2", PLAN, [], 0.0)
    assert str(caught.value) == (
        "the rollout r cannot be used: expected at least one device, found none; enrol devices or choose others"
    )
    wrong = RolloutPlan(
        (StagePlan("a", 0.5),), (AbortRule("ODD", 2, 0),), GatePlan(alpha=2), False, 0, 0, 0, 0, 0, "guess"
    )
    with pytest.raises(PlanError, match="last stage") as caught:
        create_rollout("r", "digits@2", wrong, DEVICES, 0.0)
    assert len(caught.value.mistakes) == 9


def restored(rollout: Rollout) -> Rollout:
    return Rollout.from_fields(Fields(json.loads(json.dumps(rollout.to_record())), "rollout"))


@pytest.mark.parametrize("state", list(RolloutState))
def test_a_rollout_survives_storage(state):
    assert restored(in_state(state)) == in_state(state)


class AnyOrder(RuleBasedStateMachine):
    """Whatever happens in whatever order, twice, late, or after a restart."""

    @initialize(
        gate=st.sampled_from([None, GatePlan()]), attempts=st.integers(1, 3), rules=st.booleans(), n=st.integers(1, 7)
    )
    def begin(self, gate, attempts, rules, n):
        self.plan = RolloutPlan(
            stages=(StagePlan("a", 0.3), StagePlan("b", 0.6), StagePlan("c", 1.0)),
            abort_rules=(AbortRule("ALL", 0.6, 2),) if rules else (),
            gate=gate,
            max_attempts=attempts,
            in_progress_timeout_s=30,
            step_timeout_s=15,
            stage_deadline_s=60,
            gate_timeout_s=50,
        )
        self.now, self.past, self.assigned = 0.0, [], set()
        self.rollout = create_rollout("r1", "digits@2", self.plan, DEVICES[:n], 0.0)
        self.apply(Started(now=0.0))

    def apply(self, event):
        before = self.rollout
        try:
            after, commands = advance(before, event)
        except InvalidTransitionError:
            assert (before.state, type(event)) not in set(TRANSITIONS) | NO_EFFECT
            return
        self.past.append(event)
        pair = (before.state, type(event))
        assert after.state in TRANSITIONS.get(pair, {before.state})
        for name, old in before.executions.items():
            new = after.executions[name]
            assert (new.version, new.attempt) >= (old.version, old.attempt)
            assert new.attempt <= self.plan.max_attempts
            if new.state is not old.state:
                assert new.version > old.version
                assert new.state in EXECUTION_TRANSITIONS[old.state]
        if after.state.is_terminal:
            assert all(record.state.is_terminal for record in after.executions.values())
            assert all(isinstance(command, RollBack) for command in commands if after.state is not S.FINISHED)
            assert not any(isinstance(command, RollBack) for command in commands if after.state is S.FINISHED)
        else:
            assert all(isinstance(command, Assign) for command in commands)
        if before.state.is_terminal:
            assert commands == ()
            taken_back = {n: before.executions[n].state for n, r in after.executions.items() if r.state is X.FAILED}
            assert replace(after, executions={}) == replace(before, executions={})
            assert after == before or (before.state is S.FINISHED and X.SUCCEEDED in taken_back.values())
        if after.state is S.PAUSED and before.state is S.PAUSED:
            assert commands == ()
        for command in commands:
            if isinstance(command, Assign):
                key = (command.device, command.attempt)
                assert key not in self.assigned, "one attempt is asked for once"
                self.assigned.add(key)
                assert after.stages[after.executions[command.device].stage] is not StageState.SCHEDULED
        if after.state in {S.ROLLED_BACK, S.ABORTED} and not before.state.is_terminal:
            told = {command.device for command in commands}
            assert set(exposed(before)) <= told
        again, repeated = (
            advance(after, event) if (after.state, type(event)) in set(TRANSITIONS) | NO_EFFECT else (after, ())
        )
        if not isinstance(event, GateJudged):  # a second GO may be for the next stage, if that is empty
            assert repeated == ()
            assert {n: (r.state, r.attempt) for n, r in again.executions.items()} == {
                n: (r.state, r.attempt) for n, r in after.executions.items()
            } or isinstance(event, DeviceJoined | DeviceRemoved)
        self.rollout = restored(after)
        assert self.rollout == after

    @rule(seconds=st.floats(0, 25))
    def time_passes(self, seconds):
        self.now += seconds
        self.apply(Tick(now=self.now))

    @rule(
        device=st.integers(0, 8), attempt=st.integers(1, 3), state=st.sampled_from(list(X)), step=st.sampled_from("ab")
    )
    def device_reports(self, device, attempt, state, step):
        message = Execution(rollout="r1", attempt=attempt, state=state, step=step)
        self.apply(DeviceReported(f"d{device}", message, self.now))

    @rule(pick=st.integers(0, 100), state=st.sampled_from([X.IN_PROGRESS, X.SUCCEEDED, X.SUCCEEDED, X.FAILED]))
    def an_assigned_device_answers(self, pick, state):
        open_ones = [r for r in self.rollout.executions.values() if r.assigned and not r.state.is_terminal]
        if open_ones:
            record = open_ones[pick % len(open_ones)]
            self.apply(report(self.rollout, record.device, state, self.now))

    @rule(verdict=st.sampled_from([GO, GO, GO, WAIT, ABORT]))
    def gate(self, verdict):
        self.apply(GateJudged(verdict, now=self.now))

    @rule(device=st.integers(0, 9), known=st.booleans())
    def membership(self, device, known):
        name = f"d{device}"
        self.apply(DeviceRemoved(name, self.now) if known else DeviceJoined(DeviceFacts(name, "pi", None), self.now))

    @rule(kind=st.sampled_from([Paused, Resumed, Started, Approved]))
    def operator(self, kind):
        self.apply(kind(now=self.now))

    @rule(really=st.integers(0, 9))
    def cancel(self, really):
        if really == 0:
            self.apply(Canceled("enough", now=self.now))

    @rule(pick=st.integers(0, 10_000))
    def replay(self, pick):
        if self.past:
            self.apply(self.past[pick % len(self.past)])

    @invariant()
    def the_stages_are_in_order(self):
        if not hasattr(self, "rollout"):
            return
        rollout = self.rollout
        for index, state in enumerate(rollout.stages):
            if index < rollout.stage:
                assert state is StageState.FINISHED
            if index > rollout.stage:
                assert state is StageState.SCHEDULED


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=60, stateful_step_count=40, deadline=None, derandomize=True)


@given(order=st.permutations(range(8)), failing=st.sets(st.integers(0, 7), max_size=3))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_every_order_of_answers_ends_in_one_terminal_state_each(order, failing):
    plan = RolloutPlan((StagePlan("all", 1.0),), (), None)
    rollout, _ = started(plan)
    for i in order:
        rollout, _ = advance(rollout, report(rollout, f"d{i}", X.FAILED if i in failing else X.SUCCEEDED))
    for i in sorted(failing):
        rollout, _ = advance(rollout, report(rollout, f"d{i}", X.FAILED))
    assert rollout.state is S.FINISHED
    assert tally(rollout)[X.FAILED] == len(failing)


@pytest.mark.parametrize(
    ("plan", "where"),
    [
        (RolloutPlan(stages=(StagePlan("my canary", 0.5), StagePlan("fleet", 1.0))), r"plan.stages\[0\].name"),
        (RolloutPlan(stages=(StagePlan("", 1.0),)), r"plan.stages\[0\].name"),
        (RolloutPlan(stages=tuple(StagePlan(f"s{n}", n / 501) for n in range(1, 502))), r"plan.stages"),
        (RolloutPlan(abort_rules=(AbortRule("ALL", 0.5, 2**53),)), r"plan.abort_rules\[0\].minimum_executed"),
        (RolloutPlan(abort_rules=(AbortRule("ALL", 0.5, 1),) * 17), r"plan.abort_rules"),
        (RolloutPlan(gate=GatePlan(minimum_samples=2**53)), r"plan.gate.minimum_samples"),
        (RolloutPlan(stage_deadline_s=math.inf), r"plan.stage_deadline_s"),
    ],
)
def test_a_plan_that_could_not_be_read_again_is_refused_before_it_is_saved(plan, where):
    with pytest.raises(PlanError, match=where):
        plan.check()


# The state after a decision, and what the next events make of it


def test_a_failed_device_keeps_its_reason_in_the_rollout_until_the_end():
    plan = RolloutPlan(gate=None, max_attempts=1, abort_rules=(), stages=(StagePlan("fleet", 1.0),))
    rollout, _ = started(plan)
    rollout, _ = advance(rollout, report(rollout, "d0", X.FAILED, step="verify", reason="the disk is full"))
    rollout, _ = all_report(rollout, [name for name in rollout.executions if name != "d0"], now=5.0)
    assert rollout.state is S.FINISHED
    record = rollout.executions["d0"]
    assert (record.state, record.step, record.reason, record.updated_at) == (
        X.FAILED,
        "verify",
        "the disk is full",
        1.0,
    )
    assert tally(rollout)[X.FAILED] == 1


def test_what_a_rollout_was_held_for_is_forgotten_when_it_goes_on_and_its_deadline_begins_anew():
    rollout, _ = started()
    held, commands = advance(rollout, Paused(now=10.0, reason="a look at the logs"))
    assert (held.reason, held.gate_since, commands) == ("a look at the logs", None, ())
    going, _ = advance(held, Resumed(now=5000.0))
    assert (going.state, going.reason, going.stage_deadline_at) == (S.RUNNING, "", 5000.0 + PLAN.stage_deadline_s)
    assert going.stage_started_at == rollout.stage_started_at


def test_what_a_rollout_is_stopped_for_is_kept_up_to_4096_characters():
    rollout, _ = started()
    stopped, _ = advance(rollout, Canceled("x" * 4097, now=10.0))
    assert stopped.reason == "x" * 4096


def test_a_rule_counts_failures_of_its_kind_alone_and_says_which_broke():
    plan = RolloutPlan(
        gate=None, max_attempts=1, stages=(StagePlan("all", 1.0),), abort_rules=(AbortRule("REJECTED", 0.25, 2),)
    )
    rollout, _ = started(plan)
    for device in ("d5", "d6"):
        rollout, _ = advance(rollout, report(rollout, device, X.IN_PROGRESS))
    for device in ("d0", "d1", "d2"):
        rollout, _ = advance(rollout, report(rollout, device, X.FAILED))
    assert rollout.state is S.RUNNING
    rollout, _ = advance(rollout, report(rollout, "d3", X.REJECTED))
    assert rollout.state is S.RUNNING, "one of eight is less than a quarter"
    rollout, _ = advance(rollout, report(rollout, "d4", X.REJECTED))
    assert rollout.reason == "2 of 8 devices in the stage all REJECTED, and the plan stops at 25%"


def test_a_rule_waits_for_the_devices_that_it_asks_for_and_can_count_those_that_reported():
    plan = RolloutPlan(
        gate=None, max_attempts=1, stages=(StagePlan("all", 1.0),), abort_rules=(AbortRule("ALL", 0.5, 3),),
        denominator="reported",
    )  # fmt: skip
    rollout, _ = started(plan)
    for device in ("d0", "d1"):
        rollout, _ = advance(rollout, report(rollout, device, X.FAILED))
        assert rollout.state is S.RUNNING
    stopped, commands = advance(rollout, report(rollout, "d2", X.SUCCEEDED))
    assert stopped.reason == "2 of 3 devices in the stage all failed, and the plan stops at 50%"
    assert stopped.state is S.ROLLED_BACK
    assert {command.device for command in commands} == set(rollout.executions)
    assert {command.device: command.release for command in commands}["d7"] is None
    assert stopped.stages == (StageState.FAILED,)


def test_a_device_that_leaves_a_running_rollout_is_not_waited_for_nor_asked_to_go_back():
    rollout, _ = started(RolloutPlan(gate=None, stages=(StagePlan("all", 1.0),)))
    rollout, _ = all_report(rollout, [f"d{index}" for index in range(7)])
    assert rollout.state is S.RUNNING
    rollout, _ = advance(rollout, DeviceRemoved("d7", now=3.0))
    assert (rollout.state, rollout.executions["d7"].state, rollout.executions["d7"].updated_at) == (
        S.FINISHED, X.REMOVED, 3.0
    )  # fmt: skip
