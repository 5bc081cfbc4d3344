"""What a rollout is told to do: stages, abort rules, gate, timers. Data only; it knows nothing of devices."""

from dataclasses import dataclass, field
from typing import Any

from hedgerow.decode import Fields
from hedgerow.errors import DecodeError
from hedgerow.fleet.errors import PlanError
from hedgerow.fleet.rollout.gates import GatePlan
from hedgerow.fleet.rollout.stages import StagePlan, stage_mistakes
from hedgerow.wire.execution import ExecutionState

__all__ = ["ABORT_KINDS", "ALL_FAILURES", "DENOMINATORS", "FAILURES", "AbortRule", "RolloutPlan"]

FAILURES = (ExecutionState.FAILED, ExecutionState.REJECTED, ExecutionState.TIMED_OUT)
"""The ends of a device's part that an abort rule can count."""

ALL_FAILURES = "ALL"
ABORT_KINDS = (*(state.value for state in FAILURES), ALL_FAILURES)
DENOMINATORS = ("total", "reported")
_MAX_ATTEMPTS = 100  # what the wire carries


@dataclass(frozen=True, slots=True)
class AbortRule:
    """When failures stop a rollout (AWS IoT Jobs' abort criteria, for each stage that has started).

    Attributes:
        kind: FAILED, REJECTED, TIMED_OUT, or ALL of them.
        share: The rollout stops when this share of the stage's devices, or more, failed so; in (0, 1].
        minimum_executed: It does not stop before so many of the stage's devices came to an end.
    """

    kind: str
    share: float
    minimum_executed: int

    def to_record(self) -> dict[str, Any]:
        """Return this as plain JSON values."""
        return {"kind": self.kind, "share": self.share, "minimum_executed": self.minimum_executed}

    @classmethod
    def from_fields(cls, fields: Fields) -> "AbortRule":
        """Decode a rule.

        Raises:
            DecodeError: A field is absent, unknown or out of bounds.
        """
        rule = cls(
            kind=fields.choice("kind", {kind: kind for kind in ABORT_KINDS}),
            share=fields.number("share", minimum=0, maximum=1),
            minimum_executed=fields.integer("minimum_executed", minimum=1),
        )
        fields.finish()
        return rule


@dataclass(frozen=True, slots=True)
class RolloutPlan:
    """How a rollout goes.

    Attributes:
        stages: The steps, in order; their shares are cumulative and end at 1.
        abort_rules: Any of them stops the rollout and rolls exposed devices back.
        gate: What the models must show after each stage; None: install results alone decide, whatever the quality.
        needs_approval: Whether a second person must approve before it starts.
        max_attempts: Tries of one device, the first included. REJECTED is never tried again.
        in_progress_timeout_s: Longest time from a device's first progress to its end; it is fixed when it starts.
        step_timeout_s: Longest time from one progress report to the next; it never moves the bound above.
        stage_deadline_s: A stage no longer waits for devices that have not answered by then.
        gate_timeout_s: A stage's patience: how long an undecided gate may keep it waiting before everything goes back.
        denominator: What an abort rule's share is taken of: ``total`` devices of the stage, or those that
            ``reported`` an end.
    """

    stages: tuple[StagePlan, ...] = (StagePlan("canary", 0.2), StagePlan("fleet", 1.0))
    abort_rules: tuple[AbortRule, ...] = (AbortRule(ALL_FAILURES, 0.5, 1),)
    gate: GatePlan | None = field(default_factory=GatePlan)
    needs_approval: bool = False
    max_attempts: int = 2
    in_progress_timeout_s: float = 600
    step_timeout_s: float = 120
    stage_deadline_s: float = 3600
    gate_timeout_s: float = 3600
    denominator: str = "total"

    def mistakes(self) -> list[str]:
        """Return one sentence for everything that is wrong."""
        found = stage_mistakes(self.stages)
        for rule in self.abort_rules:
            if rule.kind not in ABORT_KINDS or not 0 < rule.share <= 1 or rule.minimum_executed < 1:
                found.append(
                    f"an abort rule needs a kind out of {', '.join(ABORT_KINDS)}, a share in (0, 1] and at least 1 "
                    f"executed, not {rule.kind}, {rule.share:g} and {rule.minimum_executed}"
                )
        if self.gate is not None:
            found += self.gate.mistakes()
        if not 1 <= self.max_attempts <= _MAX_ATTEMPTS:
            found.append(f"max_attempts must lie between 1 and {_MAX_ATTEMPTS}, not {self.max_attempts}")
        for name in ("in_progress_timeout_s", "step_timeout_s", "stage_deadline_s", "gate_timeout_s"):
            if not getattr(self, name) > 0:
                found.append(f"{name} must be above 0, not {getattr(self, name):g}")
        if self.denominator not in DENOMINATORS:
            found.append(f"denominator must be {' or '.join(DENOMINATORS)}, not {self.denominator!r}")
        return found or self._unreadable()

    def _unreadable(self) -> list[str]:
        """Return what would be refused when the plan is read again: a rollout that was saved must be found again."""
        try:
            RolloutPlan.from_fields(Fields(self.to_record(), "plan"))
        except DecodeError as exc:
            return [str(exc)]
        return []

    def check(self) -> None:
        """Refuse a plan that contradicts itself.

        Raises:
            PlanError: It does; all mistakes are listed.
        """
        mistakes = self.mistakes()
        if mistakes:
            raise PlanError("rollout plan", mistakes)

    def to_record(self) -> dict[str, Any]:
        """Return this as plain JSON values."""
        return {
            "stages": [stage.to_record() for stage in self.stages],
            "abort_rules": [rule.to_record() for rule in self.abort_rules],
            "gate": None if self.gate is None else self.gate.to_record(),
            "needs_approval": self.needs_approval,
            "max_attempts": self.max_attempts,
            "in_progress_timeout_s": self.in_progress_timeout_s,
            "step_timeout_s": self.step_timeout_s,
            "stage_deadline_s": self.stage_deadline_s,
            "gate_timeout_s": self.gate_timeout_s,
            "denominator": self.denominator,
        }

    @classmethod
    def from_fields(cls, fields: Fields) -> "RolloutPlan":
        """Decode a plan.

        Raises:
            DecodeError: A field is absent, unknown or out of bounds.
        """
        gate = fields.optional("gate")
        plan = cls(
            stages=fields.sequence("stages", StagePlan.from_fields, maximum_items=500),
            abort_rules=fields.sequence("abort_rules", AbortRule.from_fields, maximum_items=16),
            gate=None if gate is None else GatePlan.from_fields(gate),
            needs_approval=fields.boolean("needs_approval"),
            max_attempts=fields.integer("max_attempts", minimum=1, maximum=_MAX_ATTEMPTS),
            in_progress_timeout_s=fields.number("in_progress_timeout_s", minimum=0),
            step_timeout_s=fields.number("step_timeout_s", minimum=0),
            stage_deadline_s=fields.number("stage_deadline_s", minimum=0),
            gate_timeout_s=fields.number("gate_timeout_s", minimum=0),
            denominator=fields.choice("denominator", {name: name for name in DENOMINATORS}),
        )
        fields.finish()
        return plan
