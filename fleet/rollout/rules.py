"""Rollout rules. No clock, no broker, no database: facts in, commands out.

``advance`` applies one event. Which event is legal in which state, and where it may lead, is :data:`TRANSITIONS`; a
pair in :data:`NO_EFFECT` is a repeat or comes too late and changes nothing; any other pair is an error of the caller.
Every event may be applied twice: an attempt is asked of a device once, and what it answers counts once.

A stage is over when every device in it came to an end (or its deadline passed) and the gate said GO. When too many
fail, the gate says ABORT, or the stage's patience ends without a GO, every device that was asked for the release is
asked for what it had before, the sleeping ones too, lest they install it when they wake.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from hedgerow.fleet.errors import InvalidTransitionError, PlanError
from hedgerow.fleet.rollout.events import (
    Approved,
    Assign,
    Canceled,
    DeviceCommand,
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
from hedgerow.fleet.rollout.executions import ExecutionRecord, canceled, expired, removed, reported, unanswered
from hedgerow.fleet.rollout.gates import Decision
from hedgerow.fleet.rollout.plan import ALL_FAILURES, FAILURES, RolloutPlan
from hedgerow.fleet.rollout.stages import DeviceFacts, StageState, assign_stages, joining_stage
from hedgerow.fleet.rollout.state import Rollout, RolloutState, exposed, waiting_for_gate
from hedgerow.fleet.rollout.table import NO_EFFECT, TRANSITIONS
from hedgerow.wire.execution import ExecutionState

__all__ = ["advance", "create_rollout"]


def create_rollout(
    id: str,  # noqa: A002 - the name of the field
    release: str,
    plan: RolloutPlan,
    devices: Sequence[DeviceFacts],
    now: float,
    *,
    draft: bool = False,
) -> Rollout:
    """Make a rollout and put every device into a stage.

    Args:
        id: Its identity.
        release: The release to bring.
        plan: How.
        devices: Each name once; those that the release fits.
        now: Unix time in seconds.
        draft: Leave it in DRAFT, to be approved or started by hand.

    Returns:
        A rollout that is READY, or AWAITING_APPROVAL when the plan asks for it.

    Raises:
        PlanError: The plan contradicts itself, or there is no device.
    """
    plan.check()
    if not devices:
        raise PlanError(f"rollout {id}", ["expected at least one device, found none; enrol devices or choose others"])
    stages = assign_stages(id, devices, plan.stages)
    executions = {
        device.name: ExecutionRecord(device.name, device.target, stages[device.name], previous=device.release)
        for device in sorted(devices, key=lambda device: device.name)
    }
    state = RolloutState.AWAITING_APPROVAL if plan.needs_approval else RolloutState.READY
    return Rollout(
        id=id,
        release=release,
        state=RolloutState.DRAFT if draft else state,
        plan=plan,
        stage=0,
        stages=(StageState.SCHEDULED,) * len(plan.stages),
        executions=executions,
        created_at=now,
    )


def advance(rollout: Rollout, event: RolloutEvent) -> tuple[Rollout, tuple[DeviceCommand, ...]]:
    """Apply *event* and say what to ask of devices.

    Save the new rollout before obeying the commands: a crash may then repeat a command, which is harmless, but lose
    none.

    Raises:
        InvalidTransitionError: The rollout's state does not allow the event. Nothing has changed.
    """
    pair = (rollout.state, type(event))
    if pair in NO_EFFECT:
        return rollout, ()
    if pair not in TRANSITIONS:
        allowed = {state.value for state, kind in (*TRANSITIONS, *NO_EFFECT) if kind is type(event)}
        raise InvalidTransitionError(rollout.id, rollout.state.value, type(event).__name__, allowed)
    match event:
        case Approved():
            return replace(rollout, state=RolloutState.READY), ()
        case Started(now):
            return _start(rollout, now)
        case Paused(_, reason):
            return replace(rollout, state=RolloutState.PAUSED, reason=reason, gate_since=None), ()
        case Resumed(now):
            return _resume(rollout, now)
        case Canceled(reason, now):
            return _stop(rollout, reason, now)
        case DeviceReported(device, message, now):
            record = rollout.executions.get(device)
            if record is None or message.rollout != rollout.id:
                return rollout, ()
            answered = _with(rollout, [reported(record, message, rollout.plan, now)])
            # Progress concludes nothing; deadlines are the ticks' business.
            is_progress = answered.executions[device].state is ExecutionState.IN_PROGRESS
            return (answered, ()) if answered is rollout or is_progress else _settle(answered, now)
        case GateJudged():
            return _judged(rollout, event)
        case DeviceJoined(facts, now):
            return _settle(_join(rollout, facts), now)
        case DeviceRemoved(device, now):
            gone = [removed(record, now) for record in (rollout.executions.get(device),) if record is not None]
            return _settle_if_begun(_with(rollout, gone), now)
        case Tick(now):
            running = (record for record in rollout.executions.values() if record.started_at is not None)
            return _settle(_with(rollout, [expired(record, rollout.plan, now) for record in running]), now)


def _with(rollout: Rollout, records: Iterable[ExecutionRecord]) -> Rollout:
    changed = {record.device: record for record in records if rollout.executions.get(record.device) is not record}
    return replace(rollout, executions={**rollout.executions, **changed}) if changed else rollout


def _start(rollout: Rollout, now: float) -> tuple[Rollout, tuple[DeviceCommand, ...]]:
    if rollout.state is RolloutState.DRAFT and rollout.plan.needs_approval:
        return replace(rollout, state=RolloutState.AWAITING_APPROVAL), ()
    return _settle(_begin_stage(replace(rollout, state=RolloutState.RUNNING), 0, now), now)


def _resume(rollout: Rollout, now: float) -> tuple[Rollout, tuple[DeviceCommand, ...]]:
    # Time on hold is nobody's fault: the stage gets its whole deadline again.
    deadline = now + rollout.plan.stage_deadline_s
    return _settle(replace(rollout, state=RolloutState.RUNNING, reason="", stage_deadline_at=deadline), now)


def _begin_stage(rollout: Rollout, stage: int, now: float) -> Rollout:
    states = (*rollout.stages[:stage], StageState.RUNNING, *rollout.stages[stage + 1 :])
    deadline = now + rollout.plan.stage_deadline_s
    return replace(rollout, stage=stage, stages=states, stage_started_at=now, stage_deadline_at=deadline)


def _join(rollout: Rollout, facts: DeviceFacts) -> Rollout:
    known = rollout.executions.get(facts.name)
    stage = joining_stage(rollout.stages)
    if known is None:
        return _with(rollout, [ExecutionRecord(facts.name, facts.target, stage, previous=facts.release)])
    attempt = known.attempt + (1 if known.assigned else 0)
    if known.state is not ExecutionState.REMOVED or attempt > rollout.plan.max_attempts:
        return rollout
    again = ExecutionRecord(
        facts.name, facts.target, stage, attempt=attempt, version=known.version + 1, previous=known.previous
    )
    return _with(rollout, [again])


def _judged(rollout: Rollout, event: GateJudged) -> tuple[Rollout, tuple[DeviceCommand, ...]]:
    verdict, now = event.verdict, event.now
    if rollout.plan.gate is None:
        return rollout, ()
    if verdict.decision is Decision.ABORT:
        return _stop(rollout, f"the gate stopped it: {verdict.reason}", now)
    if rollout.state is not RolloutState.RUNNING:
        return rollout, ()
    rollout = replace(rollout, reason=verdict.reason[:2048])
    if verdict.decision is Decision.GO and waiting_for_gate(rollout):
        return _settle(_finish_stage(rollout, now), now)
    return _settle(rollout, now)


def _settle_if_begun(rollout: Rollout, now: float) -> tuple[Rollout, tuple[DeviceCommand, ...]]:
    return _settle(rollout, now) if rollout.state in {RolloutState.RUNNING, RolloutState.PAUSED} else (rollout, ())


def _settle(rollout: Rollout, now: float) -> tuple[Rollout, tuple[DeviceCommand, ...]]:
    """Draw every conclusion from what is known now."""
    if rollout.state not in {RolloutState.RUNNING, RolloutState.PAUSED}:
        return rollout, ()
    counts = _counts(rollout)
    broken = _broken_rule(rollout, counts)
    if broken is not None:
        return _stop(rollout, broken, now)
    if rollout.state is RolloutState.PAUSED:
        return rollout, ()
    unasked = rollout
    rollout, commands = _assign(rollout)
    here = counts[rollout.stage]
    is_empty = not any(here.values())
    in_time = rollout.stage_deadline_at is None or now < rollout.stage_deadline_at
    if in_time and here[ExecutionState.QUEUED] + here[ExecutionState.IN_PROGRESS] > 0:
        return replace(rollout, gate_since=None), commands
    if not is_empty and here[ExecutionState.SUCCEEDED] == 0:
        name = rollout.plan.stages[rollout.stage].name
        reason = f"no device of the stage {name} succeeded, so nothing speaks for going on"
        # What earlier stages proved stays; a canary that nobody could judge goes back.
        return _stop(unasked, reason, now) if rollout.stage == 0 else (_hold(rollout, reason), commands)
    if not is_empty and rollout.plan.gate is not None:
        since = now if rollout.gate_since is None else rollout.gate_since
        if now - since >= rollout.plan.gate_timeout_s:
            return _stop(unasked, _undecided(rollout), now)
        return replace(rollout, gate_since=since), commands
    rollout, more = _settle(_finish_stage(rollout, now), now)
    return rollout, (*commands, *more)


def _assign(rollout: Rollout) -> tuple[Rollout, tuple[DeviceCommand, ...]]:
    """Ask for every queued attempt of a stage that has started and was not asked for yet."""
    waiting = [
        record
        for record in rollout.executions.values()
        if record.state is ExecutionState.QUEUED and not record.assigned and _has_started(rollout, record)
    ]
    commands = tuple(
        Assign(r.device, rollout.release, r.attempt, compare=r.previous not in {None, rollout.release})
        for r in sorted(waiting, key=lambda record: record.device)
    )
    return _with(rollout, [replace(record, assigned=True) for record in waiting]), commands


def _has_started(rollout: Rollout, record: ExecutionRecord) -> bool:
    return rollout.stages[record.stage] is not StageState.SCHEDULED


def _counts(rollout: Rollout) -> list[dict[ExecutionState, int]]:
    """Return the tally of every stage, in one pass."""
    counts = [dict.fromkeys(ExecutionState, 0) for _ in rollout.stages]
    for record in rollout.executions.values():
        counts[record.stage][record.state] += 1
    return counts


def _broken_rule(rollout: Rollout, tallies: Sequence[Mapping[ExecutionState, int]]) -> str | None:
    """Return which abort rule is broken in which stage, as a sentence; None: none is."""
    for index, stage in enumerate(rollout.stages):
        if stage is StageState.SCHEDULED:
            continue
        counts = tallies[index]
        failed = {state.value: counts[state] for state in FAILURES}
        executed = sum(failed.values()) + counts[ExecutionState.SUCCEEDED]
        total = executed + counts[ExecutionState.QUEUED] + counts[ExecutionState.IN_PROGRESS]
        of = executed if rollout.plan.denominator == "reported" else total
        for rule in rollout.plan.abort_rules:
            bad = sum(failed.values()) if rule.kind == ALL_FAILURES else failed[rule.kind]
            if bad and executed >= rule.minimum_executed and bad >= rule.share * of:
                kind = "failed" if rule.kind == ALL_FAILURES else rule.kind
                return (
                    f"{bad} of {of} devices in the stage {rollout.plan.stages[index].name} {kind}, "
                    f"and the plan stops at {rule.share:.0%}"
                )
    return None


def _hold(rollout: Rollout, reason: str) -> Rollout:
    return replace(rollout, state=RolloutState.PAUSED, reason=reason, gate_since=None)


def _undecided(rollout: Rollout) -> str:
    name, last = rollout.plan.stages[rollout.stage].name, rollout.reason or "it was never asked"
    return f"the gate of the stage {name} could not decide within {rollout.plan.gate_timeout_s:g} s: {last}"


def _finish_stage(rollout: Rollout, now: float) -> Rollout:
    """Go to the next stage, or finish."""
    states = list(rollout.stages)
    states[rollout.stage] = StageState.FINISHED
    done = replace(rollout, stages=tuple(states), gate_since=None)
    if rollout.stage + 1 < len(states):
        return _begin_stage(done, rollout.stage + 1, now)
    closed = _with(done, [unanswered(record, now) for record in done.executions.values()])
    return replace(closed, state=RolloutState.FINISHED)


def _stop(rollout: Rollout, reason: str, now: float) -> tuple[Rollout, tuple[DeviceCommand, ...]]:
    """End it for good: back to what was before, wherever the release was asked for."""
    affected = sorted(record.device for record in rollout.executions.values() if record.is_wanted)
    commands = tuple(RollBack(device, rollout.executions[device].previous) for device in affected)
    states = tuple(StageState.FAILED if state is StageState.RUNNING else state for state in rollout.stages)
    state = RolloutState.ROLLED_BACK if exposed(rollout) else RolloutState.ABORTED
    stopped = _with(rollout, [canceled(record, now) for record in rollout.executions.values()])
    return replace(stopped, state=state, stages=states, reason=reason[:4096], gate_since=None), commands
