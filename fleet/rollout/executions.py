"""One device's part in one rollout: its record, what may follow what, its timers. Pure.

States and timers are those of AWS IoT Jobs: QUEUED leaves by the device's answer, by cancelling or by removal; the
in-progress timer is fixed when the device starts; the step timer is armed again by each answer and never goes past
it; a retry is a new attempt of the same record.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from hedgerow.decode import Fields
from hedgerow.fleet.rollout.plan import RolloutPlan
from hedgerow.manifest.release import RELEASE_ID
from hedgerow.wire.execution import Execution, ExecutionState
from hedgerow.wire.topics import NAME

__all__ = [
    "EXECUTION_TRANSITIONS",
    "ExecutionRecord",
    "canceled",
    "expired",
    "expires_at",
    "removed",
    "reported",
    "unanswered",
]

EXECUTION_TRANSITIONS: Mapping[ExecutionState, frozenset[ExecutionState]] = {
    ExecutionState.QUEUED: frozenset(set(ExecutionState) - {ExecutionState.QUEUED}),
    # Back to QUEUED: failed or timed out with attempts left.
    ExecutionState.IN_PROGRESS: frozenset(ExecutionState),
    **{state: frozenset() for state in ExecutionState if state.is_terminal},
    # The device had to give the release up after all.
    ExecutionState.SUCCEEDED: frozenset({ExecutionState.FAILED}),
    # A device that comes back into the fleet starts anew.
    ExecutionState.REMOVED: frozenset({ExecutionState.QUEUED}),
}
"""State -> the states that may follow. A terminal state is final, but for a success that the device takes back and a
removed device that joins again."""

_REPORTABLE = frozenset(
    {ExecutionState.IN_PROGRESS, ExecutionState.SUCCEEDED, ExecutionState.FAILED, ExecutionState.REJECTED}
)
_RETRIED = frozenset({ExecutionState.FAILED, ExecutionState.TIMED_OUT})
_STATES = {state.value: state for state in ExecutionState}


@dataclass(frozen=True, slots=True)
class ExecutionRecord:
    """One device's part.

    Attributes:
        device: Its name.
        target: Its hardware target.
        stage: Index of its stage.
        state: Where it stands.
        attempt: Which try, from 1.
        version: Rises by one with every change that was accepted.
        started_at: When this attempt's first progress was reported, Unix seconds; None: not yet.
        updated_at: When it last answered or changed; None: never.
        step: What the device was doing.
        reason: Why the last attempt failed.
        previous: The release that it had when it was taken into the rollout; None: none.
        assigned: Whether this attempt was asked of the device.
    """

    device: str
    target: str
    stage: int
    state: ExecutionState = ExecutionState.QUEUED
    attempt: int = 1
    version: int = 1
    started_at: float | None = None
    updated_at: float | None = None
    step: str = ""
    reason: str = ""
    previous: str | None = None
    assigned: bool = False

    @property
    def is_wanted(self) -> bool:
        """Whether the fleet has ever asked this device for the release, so that its desired state still names it."""
        return (self.assigned or self.attempt > 1) and self.state is not ExecutionState.REMOVED

    @property
    def is_exposed(self) -> bool:
        """Whether the device runs or may run the release: it began, and did not say that it kept the old one."""
        if self.state in {ExecutionState.IN_PROGRESS, ExecutionState.SUCCEEDED}:
            return True
        return self.started_at is not None and self.state in {ExecutionState.TIMED_OUT, ExecutionState.CANCELED}

    def to_record(self) -> dict[str, Any]:
        """Return this as plain JSON values."""
        return {
            "device": self.device,
            "target": self.target,
            "stage": self.stage,
            "state": self.state.value,
            "attempt": self.attempt,
            "version": self.version,
            "started_at": self.started_at,
            "updated_at": self.updated_at,
            "step": self.step,
            "reason": self.reason,
            "previous": self.previous,
            "assigned": self.assigned,
        }

    @classmethod
    def from_fields(cls, fields: Fields) -> "ExecutionRecord":
        """Decode a record.

        Raises:
            DecodeError: A field is absent, unknown or out of bounds.
        """
        record = cls(
            device=fields.text("device", pattern=NAME),
            target=fields.text("target", pattern=NAME),
            stage=fields.integer("stage"),
            state=fields.choice("state", _STATES),
            attempt=fields.integer("attempt", minimum=1),
            version=fields.integer("version", minimum=1),
            started_at=fields.optional_number("started_at"),
            updated_at=fields.optional_number("updated_at"),
            step=fields.text("step", maximum_chars=64),
            reason=fields.text("reason", maximum_chars=4096),
            previous=fields.optional_text("previous", pattern=RELEASE_ID),
            assigned=fields.boolean("assigned"),
        )
        fields.finish()
        return record


def reported(record: ExecutionRecord, message: Execution, plan: RolloutPlan, now: float) -> ExecutionRecord:
    """Apply a device's answer; late, repeated and foreign answers leave the record as it is.

    A device that says FAILED for the attempt that it said SUCCEEDED for gave the release up later. It is not asked
    again: the release would go the same way.
    """
    if message.attempt != record.attempt or message.state not in _REPORTABLE or not record.assigned:
        return record
    if record.state is ExecutionState.SUCCEEDED and message.state is ExecutionState.FAILED:
        failed = replace(record, state=ExecutionState.FAILED, step=message.step, reason=message.reason)
        return replace(failed, version=record.version + 1, updated_at=max(now, record.updated_at or now))
    if record.state.is_terminal:
        return record
    started_at = now if record.started_at is None else record.started_at
    if message.state is ExecutionState.IN_PROGRESS:
        alive = replace(record, started_at=started_at, updated_at=max(now, record.updated_at or now))
        if (record.state, record.step) == (ExecutionState.IN_PROGRESS, message.step):
            return alive  # a repeat: it shows life and changes nothing else
        return replace(alive, state=ExecutionState.IN_PROGRESS, step=message.step, version=record.version + 1)
    begun = replace(record, started_at=started_at, step=message.step)
    return _ended(begun, message.state, message.reason, plan, now)


def expires_at(record: ExecutionRecord, plan: RolloutPlan) -> float | None:
    """Return when a device in progress is given up, Unix seconds; None: it is not in progress."""
    if record.state is not ExecutionState.IN_PROGRESS or record.started_at is None:
        return None
    step_from = record.started_at if record.updated_at is None else record.updated_at
    return min(record.started_at + plan.in_progress_timeout_s, step_from + plan.step_timeout_s)


def expired(record: ExecutionRecord, plan: RolloutPlan, now: float) -> ExecutionRecord:
    """Give up a device whose time has passed."""
    bound = expires_at(record, plan)
    if bound is None or now < bound:
        return record
    step = f" in step {record.step}" if record.step else ""
    return _ended(record, ExecutionState.TIMED_OUT, f"no answer in time{step}", plan, now)


def canceled(record: ExecutionRecord, now: float) -> ExecutionRecord:
    """Close a record that is still open because the rollout stopped."""
    return _closed(record, ExecutionState.CANCELED, record.reason, now)


def removed(record: ExecutionRecord, now: float) -> ExecutionRecord:
    """Close a record that is still open because the device left."""
    return _closed(record, ExecutionState.REMOVED, record.reason, now)


def unanswered(record: ExecutionRecord, now: float) -> ExecutionRecord:
    """Close a record that is still open because the rollout finished without it."""
    return _closed(record, ExecutionState.TIMED_OUT, "the rollout finished before the device answered", now)


def _closed(record: ExecutionRecord, state: ExecutionState, reason: str, now: float) -> ExecutionRecord:
    if record.state.is_terminal:
        return record
    return replace(record, state=state, reason=reason, version=record.version + 1, updated_at=now)


def _ended(
    record: ExecutionRecord, state: ExecutionState, reason: str, plan: RolloutPlan, now: float
) -> ExecutionRecord:
    if state in _RETRIED and record.attempt < plan.max_attempts:
        return replace(
            record,
            state=ExecutionState.QUEUED,
            attempt=record.attempt + 1,
            version=record.version + 1,
            started_at=None,
            updated_at=now,
            step="",
            assigned=False,
            reason=f"attempt {record.attempt} {state.value}: {reason}",
        )
    kept = "" if state is ExecutionState.SUCCEEDED else reason
    return replace(record, state=state, reason=kept, version=record.version + 1, updated_at=now)
