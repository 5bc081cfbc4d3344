"""Whether a release still reaches its floor, watched for as long as it runs. Pure: the state goes in and comes out.

Where labels arrive, every window is evidence. The gate's own e-processes (:mod:`hedgerow.fleet.rollout.confidence`)
judge the pooled labelled samples of the fleet, and those of each device, against the floor. A slice that is shown to be
below it raises an alert; a release whose fleet was shown to be above it has proven itself.

One series over a release's whole life would be valid and slow: after 100,000 good samples it takes thousands of bad
ones to turn. So a slice begins anew after every decision, and after ``LONGEST_SERIES`` samples without one; series
number ``k`` of the slice that was the ``j``-th to send labels may spend ``alpha / 2 * 36 / (pi^4 j^2 k^2)``, the fleet
as a slice of its own ``alpha / 2 * 6 / (pi^2 k^2)``. All of it adds up to *alpha* for the release's life. A decision
that two slices share is one alert: it names the devices whose own samples show it, and grows while it is open. It is
closed when all slices that raised it are above the floor again.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from hedgerow.decode import Fields
from hedgerow.fleet.drift.alerts import SCORE, Alert
from hedgerow.fleet.drift.findings import spent_alpha
from hedgerow.fleet.rollout.confidence import confidence_sequence, log_evidence
from hedgerow.fleet.rollout.floors import Floor
from hedgerow.manifest.release import RELEASE_ID
from hedgerow.window import Window

__all__ = ["FLEET", "LONGEST_SERIES", "ScoreSlice", "ScoreState", "observe_score"]

FLEET = "fleet"
LONGEST_SERIES = 10_000
"""Labelled samples after which a slice that is neither above nor below begins anew."""

_DEVICE = "device:"
_VERDICTS = {"": "", "above": "above", "below": "below"}


@dataclass(frozen=True, slots=True)
class ScoreSlice:
    """What is kept of a slice.

    Attributes:
        place: As the how manieth it sent labels, from 1.
        series: Number of the present series, from 1.
        labelled, right: Samples of the present series.
        verdict: Of the last series that was decided: ``above``, ``below``, or empty before the first.
        good_since: Beginning of the last window of the last series that was above, Unix seconds; None: none was.
    """

    place: int
    series: int = 1
    labelled: int = 0
    right: int = 0
    verdict: str = ""
    good_since: float | None = None

    def to_record(self) -> dict[str, Any]:
        """Return this as plain JSON values."""
        return {
            "place": self.place,
            "series": self.series,
            "labelled": self.labelled,
            "right": self.right,
            "verdict": self.verdict,
            "good_since": self.good_since,
        }

    @classmethod
    def from_fields(cls, fields: Fields) -> "ScoreSlice":
        """Decode a slice.

        Raises:
            DecodeError: A field is absent, unknown or out of bounds.
        """
        labelled = fields.integer("labelled")
        found = cls(
            place=fields.integer("place", minimum=1),
            series=fields.integer("series", minimum=1),
            labelled=labelled,
            right=fields.integer("right", maximum=labelled),
            verdict=fields.choice("verdict", _VERDICTS),
            good_since=fields.optional_number("good_since"),
        )
        fields.finish()
        return found


@dataclass(frozen=True, slots=True)
class ScoreState:
    """All that is remembered of one release.

    Attributes:
        release: ``name@number``.
        slices: ``fleet`` and ``device:<name>`` -> what is kept of it.
        raised: Alerts raised.
        open: The alert that is open; None: none is.
    """

    release: str
    slices: Mapping[str, ScoreSlice] = field(default_factory=dict)
    raised: int = 0
    open: Alert | None = None

    def to_record(self) -> dict[str, Any]:
        """Return this as plain JSON values."""
        return {
            "release": self.release,
            "slices": {name: found.to_record() for name, found in self.slices.items()},
            "raised": self.raised,
            "open": None if self.open is None else self.open.to_record(),
        }

    @classmethod
    def from_fields(cls, fields: Fields) -> "ScoreState":
        """Decode a state.

        Raises:
            DecodeError: A field is absent, unknown or out of bounds.
        """
        alert = fields.optional("open")
        state = cls(
            release=fields.text("release", pattern=RELEASE_ID),
            slices=fields.mapping("slices", ScoreSlice.from_fields, maximum_items=10_000_000),
            raised=fields.integer("raised"),
            open=None if alert is None else Alert.from_fields(alert),
        )
        fields.finish()
        return state


def observe_score(
    state: ScoreState, device: str, window: Window, floors: Mapping[str, Floor], alpha: float
) -> tuple[ScoreState, Alert | None, str | None]:
    """Take one window of one device in.

    Args:
        state: Of the window's release; a new release starts with ``ScoreState(release)``.
        device: Who sent it.
        window: What it counted.
        floors: ``fleet`` and ``device:<name>`` -> the score to reach; a slice without one is not watched.
        alpha: Probability of any false alert over the release's life.

    Returns:
        The new state; the alert when it was raised or has grown; and, when the fleet was just shown to be above its
        floor, the figures in words.

    Raises:
        ValueError: The window belongs to another release.
    """
    if window.release != state.release:
        raise ValueError(f"expected a window of {state.release}, found one of {window.release}")
    if window.labelled == 0:
        return state, None, None
    slices = dict(state.slices)
    reasons: dict[str, str] = {}
    proof = None
    for name in (FLEET, f"{_DEVICE}{device}"):
        floor = floors.get(name)
        if floor is None:
            continue
        before = slices.get(name) or ScoreSlice(place=1 if name == FLEET else len(slices.keys() - {FLEET}) + 1)
        slices[name], verdict, words = _judged(before, name, window, floor, alpha)
        if verdict == "below":
            reasons[name] = words
        if verdict == "above" and name == FLEET:
            proof = words
    after, alert = _alerted(replace(state, slices=slices), reasons, window)
    return after, alert, proof


def _judged(before: ScoreSlice, name: str, window: Window, floor: Floor, alpha: float) -> tuple[ScoreSlice, str, str]:
    """Return a slice with a window more, what it says now, and the figures."""
    level = alpha / 2 if name == FLEET else spent_alpha(alpha / 2, before.place)
    spent = spent_alpha(level, before.series)
    labelled, right = before.labelled + window.labelled, before.right + window.correct
    above = log_evidence((labelled - right, right), floor.score) >= math.log(1 / spent)
    below = log_evidence((right, labelled - right), 1 - floor.score) >= math.log(1 / spent)
    grown = replace(before, labelled=labelled, right=right)
    anew = replace(grown, series=before.series + 1, labelled=0, right=0)
    if not above and not below:
        return (grown if labelled < LONGEST_SERIES else anew), "", ""
    bounds = confidence_sequence((labelled - right, right), spent)
    words = (
        f"{name}: accuracy {right / labelled:.1%} ({bounds.low:.1%} to {bounds.high:.1%}) on {labelled} labelled "
        f"samples lies {'above' if above else 'below'} the floor of {floor.score:.1%}, {floor.origin}"
    )
    if above:
        return replace(anew, verdict="above", good_since=window.started_at), "above", words
    return replace(anew, verdict="below"), "below", words


def _alerted(state: ScoreState, reasons: Mapping[str, str], window: Window) -> tuple[ScoreState, Alert | None]:
    before = state.open
    named = {*(f"{_DEVICE}{device}" for device in before.devices)} if before else set[str]()
    if before is not None and not reasons:
        still = [name for name in (*named, FLEET) if name in state.slices and state.slices[name].verdict == "below"]
        return (state if still else replace(state, open=None)), None
    news = reasons.keys() - named - ({FLEET} if before else set())
    if not news:
        return state, None
    raised = state.raised + (before is None)
    devices = {name.removeprefix(_DEVICE) for name in news if name.startswith(_DEVICE)}
    began = {name: state.slices[name].good_since for name in reasons}
    alert = Alert(
        id=before.id if before else f"score-{state.release.replace('@', '-')}-{raised}",
        release=state.release,
        raised_at=before.raised_at if before else window.ended_at,
        devices=tuple(sorted({*(before.devices if before else ()), *devices})),
        features=(),
        findings=(),
        windows=0,
        kind=SCORE,
        reason=before.reason if before else "; ".join(reasons[name] for name in sorted(reasons)),
        began={
            **{name: moment for name, moment in began.items() if moment is not None},
            **(before.began if before else {}),
        },
    )
    return replace(state, raised=raised, open=alert), alert
