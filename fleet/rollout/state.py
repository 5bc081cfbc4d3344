"""A rollout as it is stored, and what can be read off it. The rules are in :mod:`hedgerow.fleet.rollout.rules`."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from hedgerow.decode import Fields
from hedgerow.fleet.rollout.executions import ExecutionRecord
from hedgerow.fleet.rollout.plan import RolloutPlan
from hedgerow.fleet.rollout.stages import StageState
from hedgerow.manifest.release import RELEASE_ID
from hedgerow.wire.execution import ExecutionState
from hedgerow.wire.topics import NAME

__all__ = ["Rollout", "RolloutState", "exposed", "tally", "waiting_for_gate"]


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
    return rollout.state is RolloutState.RUNNING and rollout.gate_since is not None


def tally(rollout: Rollout, stage: int | None = None) -> dict[ExecutionState, int]:
    """Return how many devices are in each state, all states named; of one stage when it is given."""
    counts = dict.fromkeys(ExecutionState, 0)
    for record in rollout.executions.values():
        if stage is None or record.stage == stage:
            counts[record.state] += 1
    return counts
