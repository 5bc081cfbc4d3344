"""When to train again. Pure: the state goes in and comes out.

A retraining has not ended well because it made a release: the release must prove itself on labelled samples of the
devices. Each retraining in a row that failed, or whose release was sent back or alerted again, doubles the wait before
the next; after ``most_failures`` of them a person is asked, and nothing more is tried by itself until a release has
proven itself or the person says so.
"""

from dataclasses import dataclass, replace
from typing import Self

from hedgerow.fleet.settings import FleetSettings

__all__ = [
    "AskApproval",
    "DriftRaised",
    "GiveUp",
    "ReleaseJudged",
    "RetrainAction",
    "RetrainApproved",
    "RetrainEnded",
    "RetrainEvent",
    "RetrainPolicy",
    "RetrainState",
    "StartRetrain",
    "TimePassed",
]

_DEFAULTS = FleetSettings()


@dataclass(frozen=True, slots=True)
class DriftRaised:
    """An alert was raised: drift, or a score below the floor.

    Attributes:
        alert: Its id.
        release: The release whose world has moved.
        now: Unix seconds, as in every event.
    """

    alert: str
    release: str
    now: float


@dataclass(frozen=True, slots=True)
class RetrainApproved:
    """A person wants the retraining that waits."""

    now: float


@dataclass(frozen=True, slots=True)
class RetrainEnded:
    """The retraining in progress ended.

    Attributes:
        succeeded: Whether it made a release and began to roll it out.
        now: Unix seconds.
        release: What it made; it has yet to prove itself.
        reason: Why it failed.
    """

    succeeded: bool
    now: float
    release: str | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ReleaseJudged:
    """A release has proven itself on the devices, or was sent back.

    Attributes:
        release: Which one.
        recovered: Whether its labelled samples lie above the floor.
        now: Unix seconds.
        reason: Why it was sent back.
    """

    release: str
    recovered: bool
    now: float
    reason: str = ""


@dataclass(frozen=True, slots=True)
class TimePassed:
    """Nothing happened."""

    now: float


RetrainEvent = DriftRaised | RetrainApproved | RetrainEnded | ReleaseJudged | TimePassed


@dataclass(frozen=True, slots=True)
class StartRetrain:
    """Train again from *release*, because of *alert*."""

    alert: str
    release: str


@dataclass(frozen=True, slots=True)
class AskApproval:
    """Ask a person whether to train again from *release*, because of *alert*."""

    alert: str
    release: str


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Tell a person that retraining does not help.

    Attributes:
        alert: The alert that the last one answered.
        release: The release whose world has moved.
        failures: Retrainings in a row that brought no recovery.
        reason: What the last one ended with.
    """

    alert: str
    release: str
    failures: int
    reason: str


RetrainAction = StartRetrain | AskApproval | GiveUp


@dataclass(frozen=True, slots=True)
class RetrainState:
    """What the policy remembers.

    Attributes:
        running: The retraining in progress, if any.
        waiting: What will be done once it is approved or the cool-down is over.
        ended_at: When the last retraining ended, or its release was sent back, Unix seconds.
        answered: Alerts that were taken up.
        failures: Retrainings in a row that brought no recovery.
        proving: The release that the last retraining made, until it is judged, and what it answered.
    """

    running: StartRetrain | None = None
    waiting: StartRetrain | None = None
    ended_at: float | None = None
    answered: frozenset[str] = frozenset()
    failures: int = 0
    proving: tuple[str, StartRetrain] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrainPolicy:
    """When to train again.

    Attributes:
        on_alert: An alert asks for it.
        cool_down_s: Shortest time from the end of one retraining to the start of the next, also of a failed one; it
            doubles with every further one in a row that brought no recovery.
        longest_cool_down_s: Bound of that.
        most_failures: After so many in a row nothing more is tried by itself.
        needs_approval: A person must agree; then the cool-down does not hold it back.
    """

    on_alert: bool = _DEFAULTS.retrain_on_alert
    cool_down_s: float = _DEFAULTS.retrain_cool_down_s
    longest_cool_down_s: float = _DEFAULTS.retrain_longest_cool_down_s
    most_failures: int = _DEFAULTS.retrain_most_failures
    needs_approval: bool = _DEFAULTS.retrain_needs_approval

    @classmethod
    def by(cls, settings: FleetSettings) -> Self:
        """Return what a fleet's settings say."""
        return cls(
            on_alert=settings.retrain_on_alert,
            cool_down_s=settings.retrain_cool_down_s,
            longest_cool_down_s=settings.retrain_longest_cool_down_s,
            most_failures=settings.retrain_most_failures,
            needs_approval=settings.retrain_needs_approval,
        )

    def decide(self, state: RetrainState, event: RetrainEvent) -> tuple[RetrainState, RetrainAction | None]:
        """Apply *event*; return the new state and what to do now.

        An alert is taken up once. One that comes while a retraining runs, or while its release is on its way to the
        devices, is not: it is about a release that is being replaced. An alert about the very release that a retraining
        made says that it brought no recovery. A retraining without recovery is tried again after the cool-down, or
        after another approval.
        """
        match event:
            case DriftRaised():
                return self._raised(state, event)
            case RetrainApproved():
                return self._start(state) if state.running is None and state.waiting is not None else (state, None)
            case RetrainEnded(succeeded, now, release, reason):
                if not succeeded:
                    return self._failed(replace(state, running=None, ended_at=now), state.running, reason)
                proving = (release, state.running) if release is not None and state.running is not None else None
                return replace(state, running=None, waiting=None, ended_at=now, proving=proving), None
            case ReleaseJudged(release, recovered, now, reason):
                is_ours = state.proving is not None and state.proving[0] == release
                asked = {wanted.release for wanted in (state.running, state.waiting) if wanted is not None}
                if recovered and release in asked:
                    return state, None
                if recovered:
                    # Whoever made it: devices run another release, and it is good enough.
                    return replace(state, failures=0, proving=None if is_ours else state.proving), None
                if not is_ours or state.proving is None:
                    return state, None
                wanted = state.proving[1]
                return self._failed(
                    replace(state, proving=None, ended_at=now), wanted, f"{release} was sent back: {reason}"
                )
            case TimePassed(now):
                if self.needs_approval or self._has_given_up(state) or state.running or state.waiting is None:
                    return state, None
                return self._start_if_cool(state, now)

    def _raised(self, state: RetrainState, event: DriftRaised) -> tuple[RetrainState, RetrainAction | None]:
        if not self.on_alert or state.running is not None or event.alert in state.answered:
            return state, None
        wanted = StartRetrain(event.alert, event.release)
        if state.proving is not None:
            if state.proving[0] != event.release:
                return state, None
            after = replace(state, proving=None, answered=state.answered | {event.alert})
            return self._failed(after, wanted, f"{event.release} raised {event.alert}")
        after = replace(state, waiting=wanted, answered=state.answered | {event.alert})
        if self.needs_approval:
            return after, AskApproval(event.alert, event.release)
        return (after, None) if self._has_given_up(state) else self._start_if_cool(after, event.now)

    def _failed(
        self, state: RetrainState, again: StartRetrain | None, reason: str
    ) -> tuple[RetrainState, RetrainAction | None]:
        """Count a retraining that brought no recovery; *again* is what is still to be answered."""
        after = replace(state, waiting=again, failures=state.failures + 1)
        if again is None:
            return after, None
        if self._has_given_up(after):
            return after, GiveUp(again.alert, again.release, after.failures, reason)
        return after, AskApproval(again.alert, again.release) if self.needs_approval else None

    def _has_given_up(self, state: RetrainState) -> bool:
        return state.failures >= self.most_failures

    def _cool_down_s(self, failures: int) -> float:
        doubled = self.cool_down_s * 2.0 ** min(max(0, failures - 1), 64)
        return max(self.cool_down_s, min(doubled, self.longest_cool_down_s))

    def _start_if_cool(self, state: RetrainState, now: float) -> tuple[RetrainState, RetrainAction | None]:
        if state.ended_at is not None and now < state.ended_at + self._cool_down_s(state.failures):
            return state, None
        return self._start(state)

    def _start(self, state: RetrainState) -> tuple[RetrainState, RetrainAction | None]:
        return replace(state, running=state.waiting, waiting=None), state.waiting
