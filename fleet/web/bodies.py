"""Bodies of the admin API's requests, and how they become domain objects."""

from dataclasses import MISSING, fields
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from hedgerow.fleet.rollout.gates import GatePlan
from hedgerow.fleet.rollout.plan import AbortRule, RolloutPlan
from hedgerow.fleet.rollout.stages import StagePlan

__all__ = ["GateBody", "PlanBody", "RolloutBody"]

_PLAN: dict[str, Any] = {field.name: field.default for field in fields(RolloutPlan) if field.default is not MISSING}
_GATE = GatePlan()


class _StrictBody(BaseModel):
    # What is not understood is refused: a client that asks for more must not be told yes.
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class StageBody(_StrictBody):
    """One stage: its name, and the cumulative share of the devices that have the release after it."""

    name: str = Field(max_length=64)
    share: float = Field(gt=0, le=1)


class AbortRuleBody(_StrictBody):
    """When failures stop the rollout."""

    kind: str = Field(max_length=16)
    share: float = Field(gt=0, le=1)
    minimum_executed: int = Field(ge=1)


class GateBody(_StrictBody):
    """What the models must show after each stage."""

    alpha: float = _GATE.alpha
    maximum_accuracy_drop: float = _GATE.maximum_accuracy_drop
    maximum_disagreement: float | None = _GATE.maximum_disagreement
    minimum_samples: int = _GATE.minimum_samples
    floor: float | None = _GATE.floor

    def to_domain(self) -> GatePlan:
        """Return the gate's plan."""
        return GatePlan(**self.model_dump())


class PlanBody(_StrictBody):
    """How the rollout goes; what is left out has the defaults of :class:`RolloutPlan`."""

    stages: list[StageBody] = Field(
        default=[StageBody(name=stage.name, share=stage.share) for stage in _PLAN["stages"]], max_length=500
    )
    abort_rules: list[AbortRuleBody] = Field(
        default=[
            AbortRuleBody(kind=rule.kind, share=rule.share, minimum_executed=rule.minimum_executed)
            for rule in _PLAN["abort_rules"]
        ],
        max_length=16,
    )
    gate: GateBody | None = Field(
        default=GateBody(), description="null: install results alone decide, whatever the quality of the model"
    )
    needs_approval: bool = _PLAN["needs_approval"]
    max_attempts: int = _PLAN["max_attempts"]
    in_progress_timeout_s: float = _PLAN["in_progress_timeout_s"]
    step_timeout_s: float = _PLAN["step_timeout_s"]
    stage_deadline_s: float = _PLAN["stage_deadline_s"]
    gate_timeout_s: float = _PLAN["gate_timeout_s"]
    denominator: str = _PLAN["denominator"]

    def to_domain(self) -> RolloutPlan:
        """Return the rollout's plan.

        Raises:
            PlanError: It contradicts itself.
        """
        plan = RolloutPlan(
            **self.model_dump(exclude={"stages", "abort_rules", "gate"}),
            stages=tuple(StagePlan(stage.name, stage.share) for stage in self.stages),
            abort_rules=tuple(AbortRule(rule.kind, rule.share, rule.minimum_executed) for rule in self.abort_rules),
            gate=self.gate.to_domain() if self.gate is not None else None,
        )
        plan.check()
        return plan


class RolloutBody(_StrictBody):
    """A rollout to start."""

    release: str = Field(max_length=128)
    plan: PlanBody = PlanBody()
