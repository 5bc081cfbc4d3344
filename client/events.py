"""What can happen to an agent (see agent_rules.py)."""

from dataclasses import dataclass

from hedgerow.wire.device import Desired
from hedgerow.wire.training import TrainTask, TrainUpdate

__all__ = [
    "DesiredArrived",
    "Event",
    "HealthChanged",
    "InstallFailed",
    "Installed",
    "LinkDown",
    "LinkUp",
    "Proved",
    "Restored",
    "RetryDue",
    "StepEntered",
    "TrainArrived",
    "Trained",
    "Unhealthy",
    "WindowStored",
]


@dataclass(frozen=True, slots=True)
class Restored:
    """The agent started and knows what its slots hold.

    Attributes:
        active: The release that serves.
        previous: The release that can be fallen back to.
        crashed: The release that was given up because the agent kept crashing with it, if any.
        reason: How that was; one sentence.
        is_lost: Whether what the pointer says could not be served as it was.
        is_proved: Whether *active* has ever been healthy here.
    """

    active: str | None
    previous: str | None
    crashed: str | None = None
    reason: str = ""
    is_lost: bool = False
    is_proved: bool = True


@dataclass(frozen=True, slots=True)
class LinkUp:
    """The link is up, first or again."""


@dataclass(frozen=True, slots=True)
class LinkDown:
    """The link is down."""


@dataclass(frozen=True, slots=True)
class DesiredArrived:
    """The fleet said what it wants. May be a repeat."""

    desired: Desired


@dataclass(frozen=True, slots=True)
class StepEntered:
    """The installation in progress entered a step."""

    step: str


@dataclass(frozen=True, slots=True)
class Installed:
    """The installation in progress has put its release to work, which is now to show that it stays healthy."""

    active: str | None
    previous: str | None


@dataclass(frozen=True, slots=True)
class Proved:
    """The active release was healthy for a whole health period."""


@dataclass(frozen=True, slots=True)
class Unhealthy:
    """The active release got through its health period and did not do well in it.

    Attributes:
        reason: One sentence.
    """

    reason: str


@dataclass(frozen=True, slots=True)
class InstallFailed:
    """The installation in progress failed.

    Attributes:
        reason: One sentence.
        is_final: Whether trying again is pointless.
        active: The release that serves now.
        previous: The release that can be fallen back to now.
        is_proved: Whether *active* has ever been healthy here.
    """

    reason: str
    is_final: bool
    active: str | None
    previous: str | None
    is_proved: bool = True


@dataclass(frozen=True, slots=True)
class RetryDue:
    """The time of :class:`RetryLater` passed."""


@dataclass(frozen=True, slots=True)
class TrainArrived:
    """The fleet asks for a round. May be a repeat."""

    task: TrainTask


@dataclass(frozen=True, slots=True)
class Trained:
    """The round in progress is answered."""

    update: TrainUpdate


@dataclass(frozen=True, slots=True)
class WindowStored:
    """A window is in the spool."""


@dataclass(frozen=True, slots=True)
class HealthChanged:
    """Something does not work any more, or works again.

    Attributes:
        problems: ``part: reason`` of all that does not work now.
    """

    problems: tuple[str, ...]


Event = (
    Restored
    | LinkUp
    | LinkDown
    | DesiredArrived
    | StepEntered
    | Installed
    | Proved
    | Unhealthy
    | InstallFailed
    | RetryDue
    | TrainArrived
    | Trained
    | WindowStored
    | HealthChanged
)
