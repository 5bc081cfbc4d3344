"""Whether a stage's devices do well enough on a release to go on: a decision from counts, valid at every look.

Pure. A release must hold against two things, and the verdict says which of them stopped it:

* the **floor**, an absolute score (:mod:`hedgerow.fleet.rollout.floors`): scored samples of the new model alone;
* the **model before**, on scored samples that both saw: the mean score of the new one minus that of the old one must
  not fall below the margin; of classes, the share that only the new one got right minus the share that only the old one
  got right. Two models that are equally bad are equal, so this alone would pass a release that is right about nothing.

Without scored samples nothing is known of quality, and nothing goes on: at most the share of samples on which the
models disagree can stop a release, where the plan bounds it. Where no score need ever come, because a device cannot
score such outputs or the model learns without target values, that bound is all there is: a release goes on when the
models are shown to disagree less, and the verdict says that it goes by agreement alone.

One look or a thousand, ``judge`` stops a release that holds against both with probability at most ``alpha``, and passes
one that fails against either with probability at most ``alpha``, for each stage (a rollout of ``k`` gated stages errs
at most ``k * alpha``). That holds because it decides by e-processes (:mod:`hedgerow.fleet.rollout.confidence`), for
samples that are independent and a quality that stays the same meanwhile. To stop, the mean of the two e-processes
decides: it needs no more than half of ``alpha`` for each, and less when both speak. A floor that was measured is
uncertain itself and takes half of ``alpha`` for that. To go on, each must be convinced at ``alpha``.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from hedgerow.decode import Fields
from hedgerow.fleet.rollout.confidence import Interval, confidence_sequence, log_evidence, mean_log_evidence
from hedgerow.fleet.rollout.floors import Floor
from hedgerow.outputs import Outputs
from hedgerow.window import Window

__all__ = ["Decision", "GatePlan", "GateVerdict", "Judge", "judge", "measurement_alpha"]


class Decision(StrEnum):
    """What a gate says."""

    GO = "GO"
    WAIT = "WAIT"
    ABORT = "ABORT"


class Judge(StrEnum):
    """What a release is held against."""

    FLOOR = "floor"
    PREDECESSOR = "model before"
    DISAGREEMENT = "disagreement"


@dataclass(frozen=True, slots=True)
class GatePlan:
    """What a release must show in each stage.

    Attributes:
        alpha: Probability of either error, for one stage and all looks together.
        maximum_accuracy_drop: Margin: the largest fall of the mean score, which is the accuracy of classes, that is
            accepted, as a share (0.02 = 2 points); against the model before, and against what was measured before
            release.
        maximum_disagreement: Largest accepted share of samples on which new and old model disagree, or how unlike
            their answers may be on average; it can stop a release to which no target values arrive, and lets one go on
            only where none need arrive. None: no bound.
        minimum_samples: No GO with fewer scored samples, or compared ones where agreement alone decides.
        floor: Score that the devices must reach, in (0, 1); None: what was measured before release, less the margin.
    """

    alpha: float = 0.05
    maximum_accuracy_drop: float = 0.02
    maximum_disagreement: float | None = None
    minimum_samples: int = 100
    floor: float | None = None

    def mistakes(self) -> list[str]:
        """Return one sentence for everything that is wrong."""
        found = []
        if not 0 < self.alpha < 1:
            found.append(f"gate: alpha must lie between 0 and 1, not {self.alpha:g}")
        if not 0 < self.maximum_accuracy_drop < 1:
            found.append(f"gate: maximum_accuracy_drop must lie between 0 and 1, not {self.maximum_accuracy_drop:g}")
        if self.maximum_disagreement is not None and not 0 < self.maximum_disagreement < 1:
            found.append(f"gate: maximum_disagreement must lie between 0 and 1, not {self.maximum_disagreement:g}")
        if self.floor is not None and not 0 < self.floor < 1:
            found.append(f"gate: floor must lie between 0 and 1, not {self.floor:g}")
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
            "floor": self.floor,
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
            floor=fields.optional_number("floor", minimum=0, maximum=1),
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
        stopped_by: What stopped the release; None unless something did.
    """

    decision: Decision
    reason: str
    evidence: Mapping[str, float] = field(default_factory=dict)
    stopped_by: Judge | None = None

    def to_record(self) -> dict[str, Any]:
        """Return this as plain JSON values."""
        return {
            "decision": self.decision.value,
            "reason": self.reason,
            "evidence": dict(self.evidence),
            "stopped_by": None if self.stopped_by is None else self.stopped_by.value,
        }

    @classmethod
    def from_fields(cls, fields: Fields) -> "GateVerdict":
        """Decode a verdict.

        Raises:
            DecodeError: A field is absent, unknown or out of bounds.
        """
        evidence, judges = fields.nested("evidence"), {judge.value: judge for judge in Judge}
        stopped_by = fields.optional_text("stopped_by", maximum_chars=32)
        verdict = cls(
            decision=fields.choice("decision", {decision.value: decision for decision in Decision}),
            reason=fields.text("reason", maximum_chars=4096),
            evidence={name: evidence.number(name) for name in evidence.names()},
            stopped_by=None if stopped_by is None else fields.choice("stopped_by", judges),
        )
        fields.finish()
        return verdict


@dataclass(frozen=True, slots=True)
class _Comparison:
    """What one judge has found.

    Attributes:
        judge: Which.
        found: The figures, in words.
        limit: The limit, in words.
        log_for, log_against: Logarithms of the e-values for "above the limit" and for "below it".
        evidence: The figures.
    """

    judge: Judge
    found: str
    limit: str
    log_for: float
    log_against: float
    evidence: Mapping[str, float]


def measurement_alpha(plan: GatePlan) -> float:
    """Return what of the plan's level the interval of a measured floor may take."""
    return plan.alpha / 2


def judge(plan: GatePlan, window: Window | None, floor: Floor | None, outputs: Outputs) -> GateVerdict:
    """Decide on the evidence so far.

    Args:
        plan: The thresholds.
        window: All windows of the stage's exposed devices on the new release, merged; None: none came yet.
        floor: The score to reach (see :func:`hedgerow.fleet.rollout.floors.floor_of`); None: nothing is known to hold
            it against, so it cannot go on.
        outputs: The release's, which say what its score is called and whether one need come.

    Returns:
        GO, WAIT (more samples may decide) or ABORT.
    """
    if window is None or window.samples == 0:
        return GateVerdict(Decision.WAIT, "no device has sent a window of the new release yet", {"samples": 0.0})
    if window.scores.samples == 0:
        by_agreement = _judge_by_agreement if outputs.goes_by_agreement else _judge_without_scores
        return by_agreement(plan, window, outputs)
    found = [_against_floor(plan, window, floor, outputs)] if floor is not None else []
    if window.paired.change.samples > 0:
        found.append(_against_predecessor(plan, window))
    evidence: dict[str, float] = {"samples": float(window.scores.samples)}
    for comparison in found:
        evidence |= comparison.evidence
    words = "; ".join(f"{comparison.found}; {comparison.limit}" for comparison in found)
    to_stop = plan.alpha - (floor.alpha if floor is not None else 0.0)
    if found and mean_log_evidence([comparison.log_against for comparison in found]) >= math.log(1 / to_stop):
        worst = max(found, key=lambda comparison: comparison.log_against)
        others = "".join(f"; {comparison.found}" for comparison in found if comparison is not worst)
        against = "below the floor" if worst.judge is Judge.FLOOR else "worse than the model before"
        return GateVerdict(
            Decision.ABORT, f"{against}: {worst.found}; {worst.limit}{others}", evidence, stopped_by=worst.judge
        )
    if floor is None:
        words = f"{words}; " if words else f"{window.scores.samples} {outputs.known_word} samples came; "
        missing = (
            f"no {outputs.score_name} above chance was measured before release, so there is no floor; start the "
            "rollout with one, or ungated"
        )
        return GateVerdict(Decision.WAIT, words + missing, evidence)
    open_ones = [comparison for comparison in found if comparison.log_for < math.log(1 / plan.alpha)]
    if not open_ones and window.scores.samples >= plan.minimum_samples:
        return GateVerdict(Decision.GO, words, evidence)
    needs = (
        [f"at least {plan.minimum_samples} {outputs.known_word} samples"]
        if window.scores.samples < plan.minimum_samples
        else []
    )
    needs += [f"bounds on one side of the {comparison.judge.value}'s limit" for comparison in open_ones]
    return GateVerdict(Decision.WAIT, f"{words}; a decision needs {' and '.join(needs)}", evidence)


def _against_floor(plan: GatePlan, window: Window, floor: Floor, outputs: Outputs) -> _Comparison:
    scores, mean = window.scores, window.scores.mean
    bounds = confidence_sequence(scores.counts, plan.alpha, scores.values)
    return _Comparison(
        judge=Judge.FLOOR,
        found=f"{outputs.score_name} {mean:.1%} ({bounds.low:.1%} to {bounds.high:.1%}) on {scores.samples} "
        f"{outputs.known_word} samples",
        limit=f"the floor is {floor.score:.1%}, {floor.origin}",
        log_for=log_evidence(scores.counts, floor.score, scores.values),
        log_against=log_evidence(scores.mirrored.counts, 1 - floor.score, scores.values),
        evidence={"score": mean, "score_low": bounds.low, "score_high": bounds.high, "floor": floor.score},
    )


def _against_predecessor(plan: GatePlan, window: Window) -> _Comparison:
    halves = window.paired.change
    change = 2 * halves.mean - 1
    interval = confidence_sequence(halves.counts, plan.alpha, halves.values)
    low, high = 2 * interval.low - 1, 2 * interval.high - 1
    limit = (1 - plan.maximum_accuracy_drop) / 2
    return _Comparison(
        judge=Judge.PREDECESSOR,
        found=f"it changed by {100 * change:+.1f} points ({100 * low:+.1f} to {100 * high:+.1f}) against the model "
        f"before on {halves.samples} of the same samples",
        limit=f"{-100 * plan.maximum_accuracy_drop:+.1f} points are accepted",
        log_for=log_evidence(halves.counts, limit, halves.values),
        log_against=log_evidence(halves.mirrored.counts, 1 - limit, halves.values),
        evidence={"change": change, "change_low": low, "change_high": high},
    )


def _judge_without_scores(plan: GatePlan, window: Window, outputs: Outputs) -> GateVerdict:
    nothing = (
        f"none of {window.samples} samples is {outputs.known_word}, so nothing is known of quality; {outputs.request} "
        "on these devices, or start the rollout ungated"
    )
    maximum = plan.maximum_disagreement
    if maximum is None or window.paired.agreement.samples == 0:
        return GateVerdict(Decision.WAIT, nothing, {"samples": 0.0})
    found, evidence, bounds = _disagreement(plan, window)
    if bounds.low > maximum:
        return _too_much(found, maximum, evidence)
    return GateVerdict(Decision.WAIT, f"{found}; {nothing}", evidence)


def _judge_by_agreement(plan: GatePlan, window: Window, outputs: Outputs) -> GateVerdict:
    why = "no answer is scored on devices" if not outputs.can_score else f"none of them is {outputs.known_word}"
    alone = f"{window.samples} samples came; {why}, so that agreement with the model before alone decides"
    maximum, compared = plan.maximum_disagreement, window.paired.agreement.samples
    if maximum is None:
        reason = f"{alone}; start the rollout with a bound on disagreement, or ungated"
        return GateVerdict(Decision.WAIT, reason, {"samples": 0.0})
    if compared == 0:
        reason = f"{alone}, and no device compared them: none ran a model before, or its inputs or outputs are others"
        return GateVerdict(Decision.WAIT, reason, {"samples": 0.0})
    found, evidence, bounds = _disagreement(plan, window)
    if bounds.low > maximum:
        return _too_much(f"{alone}; {found}", maximum, evidence)
    words = f"{alone}; {found}; at most {maximum:.1%} is accepted"
    if bounds.high < maximum and compared >= plan.minimum_samples:
        return GateVerdict(Decision.GO, words, evidence)
    needs = [f"at least {plan.minimum_samples} compared samples"] if compared < plan.minimum_samples else []
    needs += ["bounds on one side of that limit"] if bounds.high >= maximum else []
    return GateVerdict(Decision.WAIT, f"{words}; a decision needs {' and '.join(needs)}", evidence)


def _disagreement(plan: GatePlan, window: Window) -> tuple[str, dict[str, float], Interval]:
    disagreement = window.paired.agreement.mirrored
    share = disagreement.mean
    bounds = confidence_sequence(disagreement.counts, plan.alpha, disagreement.values)
    evidence = {
        "samples": 0.0,
        "disagreement": share,
        "disagreement_low": bounds.low,
        "disagreement_high": bounds.high,
    }
    found = (
        f"the models disagree on {share:.1%} ({bounds.low:.1%} to {bounds.high:.1%}) of {disagreement.samples} samples"
    )
    return found, evidence, bounds


def _too_much(found: str, maximum: float, evidence: Mapping[str, float]) -> GateVerdict:
    reason = f"too much disagreement: {found}; at most {maximum:.1%} is accepted"
    return GateVerdict(Decision.ABORT, reason, evidence, stopped_by=Judge.DISAGREEMENT)
