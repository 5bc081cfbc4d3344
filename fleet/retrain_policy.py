"""When to train again. Pure: the state goes in and comes out."""

from dataclasses import dataclass, replace

__all__ = [
    "AskApproval",
    "DriftRaised",
    "RetrainAction",
    "RetrainApproved",
    "RetrainEnded",
    "RetrainEvent",
    "RetrainPolicy",
    "RetrainState",
    "StartRetrain",
    "TimePassed",
]


@dataclass(frozen=True, slots=True)
class DriftRaised:
    """A drift alert was raised.

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
    """The retraining in progress ended."""

    succeeded: bool
    now: float


@dataclass(frozen=True, slots=True)
class TimePassed:
    """Nothing happened."""

    now: float


RetrainEvent = DriftRaised | RetrainApproved | RetrainEnded | TimePassed


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


RetrainAction = StartRetrain | AskApproval


@dataclass(frozen=True, slots=True)
class RetrainState:
    """What the policy remembers.

    Attributes:
        running: The retraining in progress, if any.
        waiting: What will be done once it is approved or the cool-down is over.
        ended_at: When the last retraining ended, Unix seconds.
        answered: Alerts that were taken up.
    """

    running: StartRetrain | None = None
    waiting: StartRetrain | None = None
    ended_at: float | None = None
    answered: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrainPolicy:
    """When to train again.

    Attributes:
        on_alert: A drift alert asks for it.
        cool_down_s: Shortest time from the end of one retraining to the start of the next, also of a failed one.
        needs_approval: A person must agree; then the cool-down does not hold it back.
    """

    on_alert: bool = True
    cool_down_s: float = 3600.0
    needs_approval: bool = False

    def decide(self, state: RetrainState, event: RetrainEvent) -> tuple[RetrainState, RetrainAction | None]:
        """Apply *event*; return the new state and what to do now.

        An alert is taken up once, and one that comes while a retraining runs is not: it is about a release that is
        being replaced. A failed retraining is tried again after the cool-down, or after another approval.
        """
        match event:
            case DriftRaised(alert, release, now):
                if not self.on_alert or state.running is not None or alert in state.answered:
                    return state, None
                wanted = StartRetrain(alert, release)
                after = replace(state, waiting=wanted, answered=state.answered | {alert})
                return (after, AskApproval(alert, release)) if self.needs_approval else self._start_if_cool(after, now)
            case RetrainApproved():
                return self._start(state) if state.running is None and state.waiting is not None else (state, None)
            case RetrainEnded(succeeded, now):
                again = None if succeeded else state.running
                after = replace(state, running=None, waiting=again, ended_at=now)
                if again is not None and self.needs_approval:
                    return after, AskApproval(again.alert, again.release)
                return after, None
            case TimePassed(now):
                if self.needs_approval or state.running is not None or state.waiting is None:
                    return state, None
                return self._start_if_cool(state, now)

    def _start_if_cool(self, state: RetrainState, now: float) -> tuple[RetrainState, RetrainAction | None]:
        if state.ended_at is not None and now < state.ended_at + self.cool_down_s:
            return state, None
        return self._start(state)

    def _start(self, state: RetrainState) -> tuple[RetrainState, RetrainAction | None]:
        return replace(state, running=state.waiting, waiting=None), state.waiting
