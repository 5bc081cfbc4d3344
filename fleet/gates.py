"""Whether a stage's devices do well enough on a release to go on: a decision from counts, valid at every look.

Pure. One look or a thousand, ``judge`` stops a release that is no worse than the margin with probability at most
``alpha``, and passes one that is worse than the margin with probability at most ``alpha``, for each stage (a rollout
of ``k`` gated stages errs at most ``k * alpha``). That holds because it decides by confidence sequences
(:mod:`hedgerow.fleet.confidence`), for samples that are independent and a quality that stays the same meanwhile.

What it compares, best evidence first:

1. labelled samples that both the new and the old model saw: ``b`` = share that only the old one got right, ``c`` =
   share that only the new one got right; the accuracy changed by ``c - b``, bounded by two sequences at ``alpha / 2``;
2. labelled samples of the new model alone, against the accuracy measured before release;
3. no labels: the share of samples on which the models disagree, where the plan bounds it;
4. no labels and no such bound: nothing is known of quality, so install results decide, and the reason says so.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from hedgerow.decode import Fields
from hedgerow.fleet.confidence import Interval, confidence_sequence
from hedgerow.window import Window

__all__ = ["Decision", "GatePlan", "GateVerdict", "judge"]

# Both models are right together on most samples, and they rarely disagree: a mixture near small shares narrows the
# sequences where they matter, and is wide enough to stop broken weights within 20 samples. Any prior keeps the level.
_RARE_PRIOR = (0.5, 5.0)
# A released model is mostly right.
_ACCURACY_PRIOR = (5.0, 0.5)


class Decision(StrEnum):
    """What a gate says."""

    GO = "GO"
    WAIT = "WAIT"
    ABORT = "ABORT"


@dataclass(frozen=True, slots=True)
class GatePlan:
    """What a release must show in each stage.

    Attributes:
        alpha: Probability of either error, for one stage and all looks together.
        maximum_accuracy_drop: Margin: the largest fall of accuracy that is accepted, as a share (0.1 = 10 points).
        maximum_disagreement: Largest accepted share of samples on which new and old model disagree; used only where
            no labels arrive. None: no bound.
        minimum_samples: No GO with fewer.
    """

    alpha: float = 0.05
    maximum_accuracy_drop: float = 0.1
    maximum_disagreement: float | None = None
    minimum_samples: int = 100

    def mistakes(self) -> list[str]:
        """Return one sentence for everything that is wrong."""
        found = []
        if not 0 < self.alpha < 1:
            found.append(f"gate: alpha must lie between 0 and 1, not {self.alpha:g}")
        if not 0 < self.maximum_accuracy_drop < 1:
            found.append(f"gate: maximum_accuracy_drop must lie between 0 and 1, not {self.maximum_accuracy_drop:g}")
        if self.maximum_disagreement is not None and not 0 < self.maximum_disagreement < 1:
            found.append(f"gate: maximum_disagreement must lie between 0 and 1, not {self.maximum_disagreement:g}")
        if self.minimum_samples < 1:
            found.append(f"gate: minimum_samples must be at least 1, not {self.minimum_samples}")
        return found

    def to_record(self) -> dict[str, Any]:
        """Return this as plain JSON values."""
        return {
            "alpha": self.alpha,
            "maximum_accuracy_drop": self.maximum_accuracy_drop,
            "maximum_disagreement": self.maximum_disagreement,
            "minimum_samples": self.minimum_samples,
        }

    @classmethod
    def from_fields(cls, fields: Fields) -> "GatePlan":
        """Decode a plan.

        Raises:
            DecodeError: A field is absent, unknown or out of bounds.
        """
        plan = cls(
            alpha=fields.number("alpha", minimum=0, maximum=1),
            maximum_accuracy_drop=fields.number("maximum_accuracy_drop", minimum=0, maximum=1),
            maximum_disagreement=fields.optional_number("maximum_disagreement", minimum=0, maximum=1),
            minimum_samples=fields.integer("minimum_samples", minimum=1),
        )
        fields.finish()
        return plan


@dataclass(frozen=True, slots=True)
class GateVerdict:
    """A gate's decision.

    Attributes:
        decision: GO, WAIT or ABORT.
        reason: One sentence with the figures that it rests on.
        evidence: The figures.
    """

    decision: Decision
    reason: str
    evidence: Mapping[str, float] = field(default_factory=dict)

    def to_record(self) -> dict[str, Any]:
        """Return this as plain JSON values."""
        return {"decision": self.decision.value, "reason": self.reason, "evidence": dict(self.evidence)}

    @classmethod
    def from_fields(cls, fields: Fields) -> "GateVerdict":
        """Decode a verdict.

        Raises:
            DecodeError: A field is absent, unknown or out of bounds.
        """
        evidence = fields.nested("evidence")
        verdict = cls(
            decision=fields.choice("decision", {decision.value: decision for decision in Decision}),
            reason=fields.text("reason", maximum_chars=4096),
            evidence={name: evidence.number(name) for name in evidence.names()},
        )
        fields.finish()
        return verdict


def judge(plan: GatePlan, window: Window | None, expected_accuracy: float | None) -> GateVerdict:
    """Decide on the evidence so far.

    Args:
        plan: The thresholds.
        window: All windows of the stage's exposed devices on the new release, merged; None: none came yet.
        expected_accuracy: Accuracy measured before release; None: unknown.

    Returns:
        GO, WAIT (more samples may decide) or ABORT.
    """
    if window is None or window.samples == 0:
        return GateVerdict(Decision.WAIT, "no device has sent a window of the new release yet", {"samples": 0.0})
    if window.paired.labelled > 0:
        return _judge_paired(plan, window)
    if window.labelled > 0:
        return _judge_accuracy(plan, window, expected_accuracy)
    if plan.maximum_disagreement is not None:
        return _judge_disagreement(plan, window, plan.maximum_disagreement)
    evidence = {"samples": float(window.samples)}
    if window.samples < plan.minimum_samples:
        return GateVerdict(
            Decision.WAIT, f"{window.samples} of at least {plan.minimum_samples} samples came, none labelled", evidence
        )
    return GateVerdict(
        Decision.GO,
        f"install results alone: no evidence of quality was available in {window.samples} samples, because no labels "
        "arrived and the plan sets no maximum_disagreement",
        evidence,
    )


def _judge_paired(plan: GatePlan, window: Window) -> GateVerdict:
    paired, count = window.paired, window.paired.labelled
    gained = confidence_sequence(paired.only_new_right, count, plan.alpha / 2, prior=_RARE_PRIOR)
    lost = confidence_sequence(paired.only_old_right, count, plan.alpha / 2, prior=_RARE_PRIOR)
    change = (paired.only_new_right - paired.only_old_right) / count
    bounds = Interval(gained.low - lost.high, gained.high - lost.low)
    return _verdict(plan, count, change, bounds, "against the model before, on the same samples")


def _judge_accuracy(plan: GatePlan, window: Window, expected_accuracy: float | None) -> GateVerdict:
    if expected_accuracy is None:
        return GateVerdict(
            Decision.WAIT,
            f"{window.labelled} labelled samples came, but there is neither a model before on the same samples nor an "
            "expected accuracy to compare with",
            {"samples": float(window.labelled)},
        )
    sequence = confidence_sequence(window.correct, window.labelled, plan.alpha, prior=_ACCURACY_PRIOR)
    change = window.correct / window.labelled - expected_accuracy
    bounds = Interval(sequence.low - expected_accuracy, sequence.high - expected_accuracy)
    against = f"against the {expected_accuracy:.1%} measured before release"
    return _verdict(plan, window.labelled, change, bounds, against)


def _verdict(plan: GatePlan, samples: int, change: float, bounds: Interval, against: str) -> GateVerdict:
    evidence = {"samples": float(samples), "change": change, "change_low": bounds.low, "change_high": bounds.high}
    margin = -plan.maximum_accuracy_drop
    between = f"({100 * bounds.low:+.1f} to {100 * bounds.high:+.1f})"
    limit = f"{100 * margin:+.1f} points"
    found = f"accuracy changed by {100 * change:+.1f} points {between} {against}, {samples} labelled samples"
    if bounds.high < margin:
        return GateVerdict(Decision.ABORT, f"{found}; at most {limit} is accepted", evidence)
    if bounds.low > margin and samples >= plan.minimum_samples:
        return GateVerdict(Decision.GO, f"{found}; better than the accepted {limit}", evidence)
    need = f"at least {plan.minimum_samples} samples and " if samples < plan.minimum_samples else ""
    return GateVerdict(Decision.WAIT, f"{found}; a decision needs {need}bounds on one side of {limit}", evidence)


def _judge_disagreement(plan: GatePlan, window: Window, maximum: float) -> GateVerdict:
    samples = window.paired.agreed + window.paired.disagreed
    if samples == 0:
        return GateVerdict(
            Decision.WAIT,
            f"neither labels nor comparisons with the model before came in {window.samples} samples, and the plan asks "
            f"for a disagreement of at most {maximum:.1%}",
            {"samples": 0.0},
        )
    sequence = confidence_sequence(window.paired.disagreed, samples, plan.alpha, prior=_RARE_PRIOR)
    share = window.paired.disagreed / samples
    evidence = {
        "samples": float(samples),
        "disagreement": share,
        "disagreement_low": sequence.low,
        "disagreement_high": sequence.high,
    }
    found = (
        f"the models disagree on {share:.1%} ({sequence.low:.1%} to {sequence.high:.1%}) of {samples} samples without "
        "labels"
    )
    if sequence.low > maximum:
        return GateVerdict(Decision.ABORT, f"{found}; at most {maximum:.1%} is accepted", evidence)
    if sequence.high < maximum and samples >= plan.minimum_samples:
        return GateVerdict(Decision.GO, f"{found}; less than the accepted {maximum:.1%}", evidence)
    return GateVerdict(Decision.WAIT, f"{found}; a decision needs bounds on one side of {maximum:.1%}", evidence)
