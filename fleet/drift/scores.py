"""Whether a release still reaches its floor, watched for as long as it runs. Pure: the state goes in and comes out.

Where target values arrive, every window is evidence. The gate's own e-processes
(:mod:`hedgerow.fleet.rollout.confidence`) judge the pooled scored samples of the fleet, and those of each device,
against the floor. A slice that is shown to be below it raises an alert; a release whose fleet was shown to be above it
has proven itself.

One series over a release's whole life would be valid and slow: after 100,000 good samples it takes thousands of bad
ones to turn. So a slice begins anew after every decision, and after ``LONGEST_SERIES`` samples without one; series
number ``k`` of the slice that was the ``j``-th to send scores may spend ``alpha / 2 * 36 / (pi^4 j^2 k^2)``, the fleet
as a slice of its own ``alpha / 2 * 6 / (pi^2 k^2)``. All of it adds up to *alpha* for the release's life. A decision
that two slices share is one alert: it names the devices whose own samples show it, and grows while it is open. It is
closed when all slices that raised it are above the floor again.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from hedgerow.decode import Fields
from hedgerow.fleet.drift.alert import DEVICE, FLEET, MANY, Alert, AlertKind, Watched, device_slice, without_device
from hedgerow.fleet.drift.findings import spent_alpha
from hedgerow.fleet.rollout.confidence import confidence_sequence, log_evidence
from hedgerow.fleet.rollout.floors import Floor
from hedgerow.outputs import Outputs
from hedgerow.score_counts import NO_SCORES, SCORE_STEPS, ScoreCounts
from hedgerow.window import Window

__all__ = ["LONGEST_SERIES", "ScoreSlice", "ScoreState", "ScoreVerdict", "forget_device", "observe_score"]

LONGEST_SERIES = 10_000
"""Scored samples after which a slice that is neither above nor below begins anew."""

_MOST_SAMPLES = 2**40


class ScoreVerdict(StrEnum):
    """What was decided of a series."""

    NONE = ""
    """Nothing yet."""
    ABOVE = "above"
    """It reaches its floor."""
    BELOW = "below"
    """It does not."""


_VERDICTS = {verdict.value: verdict for verdict in ScoreVerdict}


@dataclass(frozen=True, slots=True)
class ScoreSlice:
    """What is kept of a slice.

    Attributes:
        place: As the how manieth it sent scores, from 1.
        series: Number of the present series, from 1.
        scores: Of the present series.
        verdict: What was decided of the last series that ended so; none before the first.
        good_since: Beginning of the last window of the last series that was above, Unix seconds; None: none was.
    """

    place: int
    series: int = 1
    scores: ScoreCounts = NO_SCORES
    verdict: ScoreVerdict = ScoreVerdict.NONE
    good_since: float | None = None

    def to_record(self) -> dict[str, Any]:
        """Return this as plain JSON values."""
        return {
            "place": self.place,
            "series": self.series,
            "scores": list(self.scores.weights),
            "verdict": self.verdict.value,
            "good_since": self.good_since,
        }

    @classmethod
    def from_fields(cls, fields: Fields) -> "ScoreSlice":
        """Decode a slice.

        Raises:
            DecodeError: A field is absent, unknown or out of bounds.
        """
        found = cls(
            place=fields.integer("place", minimum=1),
            series=fields.integer("series", minimum=1),
            scores=ScoreCounts.from_fields(fields, "scores", SCORE_STEPS, limit_samples=_MOST_SAMPLES),
            verdict=fields.choice("verdict", _VERDICTS),
            good_since=fields.optional_number("good_since"),
        )
        fields.finish()
        return found


@dataclass(frozen=True, slots=True)
class ScoreState(Watched):
    """All that is remembered of a release's scores.

    Attributes:
        slices: ``fleet`` and ``device:<name>`` -> what is kept of it.
    """

    slices: Mapping[str, ScoreSlice] = field(default_factory=dict)

    def to_record(self) -> dict[str, Any]:
        """Return this as plain JSON values."""
        return {**self.common_record(), "slices": {name: found.to_record() for name, found in self.slices.items()}}

    @classmethod
    def from_fields(cls, fields: Fields) -> "ScoreState":
        """Decode a state.

        Raises:
            DecodeError: A field is absent, unknown or out of bounds.
        """
        slices = fields.mapping("slices", ScoreSlice.from_fields, maximum_items=MANY)
        state = cls(**cls.common_fields(fields), slices=slices)
        fields.finish()
        return state


def observe_score(
    state: ScoreState, device: str, window: Window, floors: Mapping[str, Floor], alpha: float, outputs: Outputs
) -> tuple[ScoreState, Alert | None, str | None]:
    """Take one window of one device in.

    Args:
        state: What is remembered of the window's release; a new release starts with ``ScoreState(release)``.
        device: Who sent it.
        window: What it counted.
        floors: ``fleet`` and ``device:<name>`` -> the score to reach; a slice without one is not watched.
        alpha: Probability of any false alert over the release's life.
        outputs: The release's, which say what its score is called.

    Returns:
        The new state; the alert when it was raised or has grown; and, when the fleet was just shown to be above its
        floor, the figures in words.

    Raises:
        ValueError: The window belongs to another release.
    """
    if window.release != state.release:
        raise ValueError(f"expected a window of {state.release}, found one of {window.release}")
    if window.scores.samples == 0:
        return state, None, None
    slices = dict(state.slices)
    reasons: dict[str, str] = {}
    proof = None
    for name in (FLEET, device_slice(device)):
        floor = floors.get(name)
        if floor is None:
            continue
        before = slices.get(name) or ScoreSlice(place=1 if name == FLEET else _next_place(state, slices))
        slices[name], verdict, words = _judged(before, name, window, floor, alpha, outputs)
        if verdict is ScoreVerdict.BELOW:
            reasons[name] = words
        if verdict is ScoreVerdict.ABOVE and name == FLEET:
            proof = words
    after, alert = _alerted(replace(state, slices=slices), reasons, window)
    return after, alert, proof


def _judged(
    before: ScoreSlice, name: str, window: Window, floor: Floor, alpha: float, outputs: Outputs
) -> tuple[ScoreSlice, ScoreVerdict, str]:
    """Return a slice with a window more, what it says now, and the figures."""
    level = alpha / 2 if name == FLEET else spent_alpha(alpha / 2, before.place)
    spent = spent_alpha(level, before.series)
    scores = before.scores + window.scores
    above = log_evidence(scores.counts, floor.score, scores.values) >= math.log(1 / spent)
    below = log_evidence(scores.mirrored.counts, 1 - floor.score, scores.values) >= math.log(1 / spent)
    grown = replace(before, scores=scores)
    anew = replace(grown, series=before.series + 1, scores=NO_SCORES)
    if not above and not below:
        return (grown if scores.samples < LONGEST_SERIES else anew), ScoreVerdict.NONE, ""
    bounds = confidence_sequence(scores.counts, spent, scores.values)
    words = (
        f"{name}: {outputs.score_name} {scores.mean:.1%} ({bounds.low:.1%} to {bounds.high:.1%}) on {scores.samples} "
        f"{outputs.known_word} samples lies {'above' if above else 'below'} the floor of {floor.score:.1%}, "
        f"{floor.origin}"
    )
    verdict = ScoreVerdict.ABOVE if above else ScoreVerdict.BELOW
    decided = replace(anew, verdict=verdict, good_since=window.started_at if above else anew.good_since)
    return decided, verdict, words


def _next_place(state: ScoreState, slices: Mapping[str, ScoreSlice]) -> int:
    """Return the place of a device that sends scores for the first time; no place is given twice."""
    return len(slices.keys() - {FLEET}) + state.forgotten + 1


def _is_below(slices: Mapping[str, ScoreSlice], alert: Alert) -> bool:
    """Return whether anything that an alert is about still lies below its floor."""
    named = [device_slice(device) for device in alert.devices]
    return any(name in slices and slices[name].verdict is ScoreVerdict.BELOW for name in (*named, FLEET))


def _alerted(state: ScoreState, reasons: Mapping[str, str], window: Window) -> tuple[ScoreState, Alert | None]:
    before = state.open
    if before is not None and not reasons:
        return (state if _is_below(state.slices, before) else replace(state, open=None)), None
    known = {FLEET, *(device_slice(device) for device in before.devices)} if before is not None else set[str]()
    news = reasons.keys() - known
    if not news:
        return state, None
    began = {name: state.slices[name].good_since for name in reasons}
    alert = state.next_alert(
        AlertKind.SCORE,
        window.ended_at,
        devices=[name.removeprefix(DEVICE) for name in news if name.startswith(DEVICE)],
        began={name: moment for name, moment in began.items() if moment is not None},
        reason="; ".join(reasons[name] for name in sorted(reasons)),
    )
    return replace(state, raised=state.raised + (before is None), open=alert), alert


def forget_device(state: ScoreState, device: str) -> ScoreState:
    """Leave a device that was forgotten out from now on; what the fleet's slice counted of it stays counted.

    One that comes back under its name is new, and has a place of its own: what the old one has spent stays spent.
    """
    if device_slice(device) not in state.slices:
        return state
    slices = {name: found for name, found in state.slices.items() if name != device_slice(device)}
    left = without_device(state.open, device) if state.open is not None else None
    still_open = left if left is not None and _is_below(slices, left) else None
    return replace(state, slices=slices, forgotten=state.forgotten + 1, open=still_open)
