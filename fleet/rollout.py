"""Rollout rules. No clock, no broker, no database: facts in, commands out.

``advance`` applies one event. Which event is legal in which state, and where it may lead, is :data:`TRANSITIONS`; a
pair in :data:`NO_EFFECT` is a repeat or comes too late and changes nothing; any other pair is an error of the caller.
Every event may be applied twice: an attempt is asked of a device once, and what it answers counts once.

A stage is over when every device in it came to an end (or its deadline passed) and the gate said GO. When too many
fail or the gate says ABORT, every device that was asked for the release is asked for what it had before, the sleeping
ones too, lest they install it when they wake.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from hedgerow.decode import Fields
from hedgerow.fleet.errors import InvalidTransitionError, PlanError
from hedgerow.fleet.executions import ExecutionRecord, canceled, expired, removed, reported, unanswered
from hedgerow.fleet.gates import Decision
from hedgerow.fleet.rollout_events import (
    Approved,
    Assign,
    Canceled,
    Command,
    DeviceJoined,
    DeviceRemoved,
    DeviceReported,
    Event,
    GateJudged,
    Paused,
    Resumed,
    RollBack,
    Started,
    Tick,
)
from hedgerow.fleet.rollout_plan import AbortRule, RolloutPlan
from hedgerow.fleet.stages import DeviceFacts, StagePlan, StageState, assign_stages, joining_stage
from hedgerow.manifest import RELEASE_ID
from hedgerow.wire import NAME, ExecutionState

__all__ = [
    "NO_EFFECT",
    "TRANSITIONS",
    "AbortRule",
    "Approved",
    "Assign",
    "Canceled",
    "Command",
    "DeviceFacts",
    "DeviceJoined",
    "DeviceRemoved",
    "DeviceReported",
    "Event",
    "ExecutionRecord",
    "GateJudged",
    "Paused",
    "Resumed",
    "RollBack",
    "Rollout",
    "RolloutPlan",
    "RolloutState",
    "StagePlan",
    "StageState",
    "Started",
    "Tick",
    "advance",
    "create_rollout",
    "exposed",
    "tally",
    "waiting_for_gate",
]


class RolloutState(StrEnum):
    """Where a rollout stands."""

    DRAFT = "DRAFT"
    AWAITING_APPROVAL = "AWAITING_APPROVAL"
    READY = "READY"
    RUNNING = "RUNNING"
    PAUSED = "PAUSED"
    FINISHED = "FINISHED"
    ABORTED = "ABORTED"
    ROLLED_BACK = "ROLLED_BACK"

    @property
    def is_terminal(self) -> bool:
        """Whether nothing follows."""
        return self in {RolloutState.FINISHED, RolloutState.ABORTED, RolloutState.ROLLED_BACK}


_S = RolloutState
_STOPPED = frozenset({_S.ABORTED, _S.ROLLED_BACK})
_IN_STAGES = frozenset({_S.RUNNING, _S.PAUSED, _S.FINISHED}) | _STOPPED
_HELD = frozenset({_S.PAUSED}) | _STOPPED

TRANSITIONS: Mapping[tuple[RolloutState, type[Event]], frozenset[RolloutState]] = {
    (_S.DRAFT, Approved): frozenset({_S.READY}),
    (_S.DRAFT, Started): frozenset({_S.AWAITING_APPROVAL, _S.RUNNING, _S.PAUSED}),
    (_S.DRAFT, Canceled): frozenset({_S.ABORTED}),
    (_S.DRAFT, DeviceJoined): frozenset({_S.DRAFT}),
    (_S.DRAFT, DeviceRemoved): frozenset({_S.DRAFT}),
    (_S.AWAITING_APPROVAL, Approved): frozenset({_S.READY}),
    (_S.AWAITING_APPROVAL, Canceled): frozenset({_S.ABORTED}),
    (_S.AWAITING_APPROVAL, DeviceJoined): frozenset({_S.AWAITING_APPROVAL}),
    (_S.AWAITING_APPROVAL, DeviceRemoved): frozenset({_S.AWAITING_APPROVAL}),
    (_S.READY, Started): frozenset({_S.RUNNING, _S.PAUSED}),
    (_S.READY, Canceled): frozenset({_S.ABORTED}),
    (_S.READY, DeviceJoined): frozenset({_S.READY}),
    (_S.READY, DeviceRemoved): frozenset({_S.READY}),
    (_S.RUNNING, Paused): frozenset({_S.PAUSED}),
    (_S.RUNNING, Canceled): _STOPPED,
    (_S.RUNNING, DeviceReported): _IN_STAGES,
    (_S.RUNNING, GateJudged): _IN_STAGES,
    (_S.RUNNING, DeviceJoined): _IN_STAGES,
    (_S.RUNNING, DeviceRemoved): _IN_STAGES,
    (_S.RUNNING, Tick): _IN_STAGES,
    (_S.PAUSED, Resumed): _IN_STAGES,
    (_S.PAUSED, Canceled): _STOPPED,
    (_S.PAUSED, DeviceReported): _HELD,
    (_S.PAUSED, GateJudged): _HELD,
    (_S.PAUSED, DeviceJoined): _HELD,
    (_S.PAUSED, DeviceRemoved): _HELD,
    (_S.PAUSED, Tick): _HELD,
}
"""(State, event) -> the states that it may lead to. The table is the specification; the tests walk every pair."""

NO_EFFECT: frozenset[tuple[RolloutState, type[Event]]] = frozenset(
    # An operator's command whose effect is there already.
    {
        (_S.AWAITING_APPROVAL, Started),
        (_S.READY, Approved),
        (_S.RUNNING, Started),
        (_S.RUNNING, Resumed),
        (_S.PAUSED, Paused),
        (_S.ABORTED, Canceled),
        (_S.ROLLED_BACK, Canceled),
    }
    # Time and devices do not ask; before the start and after the end they are not listened to.
    | {
        (state, event)
        for state in (_S.DRAFT, _S.AWAITING_APPROVAL, _S.READY)
        for event in (DeviceReported, GateJudged, Tick)
    }
    | {
        (state, event)
        for state in _S
        if state.is_terminal
        for event in (DeviceReported, GateJudged, DeviceJoined, DeviceRemoved, Tick)
    }
)
"""(State, event) pairs that are accepted and change nothing."""


@dataclass(frozen=True, slots=True)
class Rollout:
    """One rollout, whole.

    Attributes:
        id: Its identity; also the salt of the stages.
        release: The release that it brings, ``name@number``.
        state: Where it stands.
        plan: What it was told to do.
        stage: Index of the current stage.
        stages: State of every stage.
        executions: Device -> its part.
        created_at, stage_started_at: Unix seconds.
        reason: The gate's last words, or why it was held or stopped.
        stage_deadline_at: When the current stage stops waiting for devices that do not answer.
        gate_since: Since when the current stage waits for its gate; None: it does not.
    """

    id: str
    release: str
    state: RolloutState
    plan: RolloutPlan
    stage: int
    stages: tuple[StageState, ...]
    executions: Mapping[str, ExecutionRecord]
    created_at: float
    stage_started_at: float | None = None
    reason: str = ""
    stage_deadline_at: float | None = None
    gate_since: float | None = None

    def to_record(self) -> dict[str, Any]:
        """Return this as plain JSON values."""
        return {
            "id": self.id,
            "release": self.release,
            "state": self.state.value,
            "plan": self.plan.to_record(),
            "stage": self.stage,
            "stages": [state.value for state in self.stages],
            "executions": {name: record.to_record() for name, record in self.executions.items()},
            "created_at": self.created_at,
            "stage_started_at": self.stage_started_at,
            "reason": self.reason,
            "stage_deadline_at": self.stage_deadline_at,
            "gate_since": self.gate_since,
        }

    @classmethod
    def from_fields(cls, fields: Fields) -> "Rollout":
        """Decode a rollout.

        Raises:
            DecodeError: A field is absent, unknown or out of bounds.
        """
        plan = RolloutPlan.from_fields(fields.nested("plan"))
        names = {state.value: state for state in StageState}
        stages = fields.texts("stages", maximum_items=500)
        listed = Fields({str(index): name for index, name in enumerate(stages)}, f"{fields.where}.stages")
        rollout = cls(
            id=fields.text("id", pattern=NAME),
            release=fields.text("release", pattern=RELEASE_ID),
            state=fields.choice("state", {state.value: state for state in RolloutState}),
            plan=plan,
            stage=fields.integer("stage", maximum=max(0, len(stages) - 1)),
            stages=tuple(listed.choice(str(index), names) for index in range(len(stages))),
            executions=fields.mapping("executions", ExecutionRecord.from_fields, maximum_items=10_000_000),
            created_at=fields.number("created_at"),
            stage_started_at=fields.optional_number("stage_started_at"),
            reason=fields.text("reason", maximum_chars=4096),
            stage_deadline_at=fields.optional_number("stage_deadline_at"),
            gate_since=fields.optional_number("gate_since"),
        )
        fields.finish()
        return rollout


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
    state = _S.AWAITING_APPROVAL if plan.needs_approval else _S.READY
    return Rollout(
        id=id,
        release=release,
        state=_S.DRAFT if draft else state,
        plan=plan,
        stage=0,
        stages=(StageState.SCHEDULED,) * len(plan.stages),
        executions=executions,
        created_at=now,
    )


def exposed(rollout: Rollout, stage: int | None = None) -> tuple[str, ...]:
    """Return the devices that run or may run the release, sorted; of one stage when it is given."""
    return tuple(
        sorted(
            record.device
            for record in rollout.executions.values()
            if record.is_exposed and (stage is None or record.stage == stage)
        )
    )


def waiting_for_gate(rollout: Rollout) -> bool:
    """Return whether the current stage needs a verdict and nothing else to go on."""
    return rollout.state is _S.RUNNING and rollout.gate_since is not None


def tally(rollout: Rollout, stage: int | None = None) -> dict[ExecutionState, int]:
    """Return how many devices are in each state, all states named; of one stage when it is given."""
    counts = dict.fromkeys(ExecutionState, 0)
    for record in rollout.executions.values():
        if stage is None or record.stage == stage:
            counts[record.state] += 1
    return counts


def advance(rollout: Rollout, event: Event) -> tuple[Rollout, tuple[Command, ...]]:
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
            return replace(rollout, state=_S.READY), ()
        case Started(now):
            return _start(rollout, now)
        case Paused(_, reason):
            return replace(rollout, state=_S.PAUSED, reason=reason, gate_since=None), ()
        case Resumed(now):
            return _resume(rollout, now)
        case Canceled(reason, now):
            return _stop(rollout, reason, now)
        case DeviceReported(device, message, now):
            record = rollout.executions.get(device)
            if record is None or message.rollout != rollout.id:
                return rollout, ()
            return _settle(_with(rollout, [reported(record, message, rollout.plan, now)]), now)
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


def _start(rollout: Rollout, now: float) -> tuple[Rollout, tuple[Command, ...]]:
    if rollout.state is _S.DRAFT and rollout.plan.needs_approval:
        return replace(rollout, state=_S.AWAITING_APPROVAL), ()
    return _settle(_begin_stage(replace(rollout, state=_S.RUNNING), 0, now), now)


def _resume(rollout: Rollout, now: float) -> tuple[Rollout, tuple[Command, ...]]:
    # Time on hold is nobody's fault: the stage gets its whole deadline again.
    deadline = now + rollout.plan.stage_deadline_s
    return _settle(replace(rollout, state=_S.RUNNING, reason="", stage_deadline_at=deadline), now)


def _begin_stage(rollout: Rollout, stage: int, now: float) -> Rollout:
    states = (*rollout.stages[:stage], StageState.RUNNING, *rollout.stages[stage + 1 :])
    deadline = now + rollout.plan.stage_deadline_s
    return replace(
        rollout, stage=stage, stages=states, stage_started_at=now, stage_deadline_at=deadline, gate_since=None
    )


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


def _judged(rollout: Rollout, event: GateJudged) -> tuple[Rollout, tuple[Command, ...]]:
    verdict, now = event.verdict, event.now
    if rollout.plan.gate is None:
        return rollout, ()
    if verdict.decision is Decision.ABORT:
        return _stop(rollout, f"the gate stopped it: {verdict.reason}", now)
    if rollout.state is not _S.RUNNING:
        return rollout, ()
    rollout = replace(rollout, reason=verdict.reason[:2048])
    if verdict.decision is Decision.GO and waiting_for_gate(rollout):
        return _settle(_finish_stage(rollout, now), now)
    return _settle(rollout, now)


def _settle_if_begun(rollout: Rollout, now: float) -> tuple[Rollout, tuple[Command, ...]]:
    return _settle(rollout, now) if rollout.state in {_S.RUNNING, _S.PAUSED} else (rollout, ())


def _settle(rollout: Rollout, now: float) -> tuple[Rollout, tuple[Command, ...]]:
    """Draw every conclusion from what is known now."""
    if rollout.state not in {_S.RUNNING, _S.PAUSED}:
        return rollout, ()
    broken = _broken_rule(rollout)
    if broken is not None:
        return _stop(rollout, broken, now)
    if rollout.state is _S.PAUSED:
        return rollout, ()
    rollout, commands = _assign(rollout)
    records = [record for record in rollout.executions.values() if record.stage == rollout.stage]
    in_time = rollout.stage_deadline_at is None or now < rollout.stage_deadline_at
    if in_time and any(not record.state.is_terminal for record in records):
        return replace(rollout, gate_since=None), commands
    if records and not any(record.state is ExecutionState.SUCCEEDED for record in records):
        name = rollout.plan.stages[rollout.stage].name
        return _hold(rollout, f"no device of the stage {name} succeeded, so nothing speaks for going on"), commands
    if records and rollout.plan.gate is not None:
        return _await_gate(rollout, now), commands
    rollout, more = _settle(_finish_stage(rollout, now), now)
    return rollout, (*commands, *more)


def _assign(rollout: Rollout) -> tuple[Rollout, tuple[Command, ...]]:
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


def _broken_rule(rollout: Rollout) -> str | None:
    """Return which abort rule is broken in which stage, as a sentence; None: none is."""
    for index, stage in enumerate(rollout.stages):
        if stage is StageState.SCHEDULED:
            continue
        counts = tally(rollout, index)
        failed = {kind: counts[ExecutionState(kind)] for kind in ("FAILED", "REJECTED", "TIMED_OUT")}
        executed = sum(failed.values()) + counts[ExecutionState.SUCCEEDED]
        total = executed + counts[ExecutionState.QUEUED] + counts[ExecutionState.IN_PROGRESS]
        of = executed if rollout.plan.denominator == "reported" else total
        for rule in rollout.plan.abort_rules:
            bad = sum(failed.values()) if rule.kind == "ALL" else failed[rule.kind]
            if bad and executed >= rule.minimum_executed and bad >= rule.share * of:
                kind = "failed" if rule.kind == "ALL" else rule.kind
                return (
                    f"{bad} of {of} devices in the stage {rollout.plan.stages[index].name} {kind}, "
                    f"and the plan stops at {rule.share:.0%}"
                )
    return None


def _await_gate(rollout: Rollout, now: float) -> Rollout:
    since = now if rollout.gate_since is None else rollout.gate_since
    if now - since < rollout.plan.gate_timeout_s:
        return replace(rollout, gate_since=since)
    last = rollout.reason or "it was never asked"
    return _hold(rollout, f"the gate could not decide within {rollout.plan.gate_timeout_s:g} s: {last}")


def _hold(rollout: Rollout, reason: str) -> Rollout:
    return replace(rollout, state=_S.PAUSED, reason=reason, gate_since=None)


def _finish_stage(rollout: Rollout, now: float) -> Rollout:
    """Go to the next stage, or finish."""
    states = list(rollout.stages)
    states[rollout.stage] = StageState.FINISHED
    done = replace(rollout, stages=tuple(states), gate_since=None)
    if rollout.stage + 1 < len(states):
        return _begin_stage(done, rollout.stage + 1, now)
    closed = _with(done, [unanswered(record, now) for record in done.executions.values()])
    return replace(closed, state=_S.FINISHED)


def _stop(rollout: Rollout, reason: str, now: float) -> tuple[Rollout, tuple[Command, ...]]:
    """End it for good: back to what was before, wherever the release was asked for."""
    affected = sorted(record.device for record in rollout.executions.values() if record.is_wanted)
    commands = tuple(RollBack(device, rollout.executions[device].previous) for device in affected)
    states = tuple(StageState.FAILED if state is StageState.RUNNING else state for state in rollout.stages)
    state = _S.ROLLED_BACK if exposed(rollout) else _S.ABORTED
    stopped = _with(rollout, [canceled(record, now) for record in rollout.executions.values()])
    return replace(stopped, state=state, stages=states, reason=reason[:4096], gate_since=None), commands
