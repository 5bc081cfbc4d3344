"""The time that a release must run before its installation is a success. Pure: the clock is handed in."""

from dataclasses import dataclass
from enum import Enum, auto

__all__ = ["HealthDecision", "HealthPeriod", "Signs", "is_stuck"]

_SIGN_OF_LIFE_S = 30.0
_STUCK_S = 60.0


class HealthDecision(Enum):
    """What a look at the health period comes to."""

    WAIT = auto()
    SAY_ALIVE = auto()
    HEALTHY = auto()
    UNHEALTHY = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Signs:
    """What is seen of the release that serves.

    Attributes:
        release: Its name; None: none serves.
        is_failing: Whether it fails on more than it answers.
        is_stuck: Whether it is busy with one sample for too long.
        is_proving: Whether an installation waits for its health period.
        is_proved: Whether it was healthy for a whole one before.
    """

    release: str | None
    is_failing: bool
    is_stuck: bool
    is_proving: bool
    is_proved: bool


class HealthPeriod:
    """One health period: of the release with which it began, and no other.

    Args:
        length_s: How long it lasts.
    """

    def __init__(self, length_s: float) -> None:
        self._length_s = length_s
        self._release: str | None = None
        self._ends_at: float | None = None
        self._alive_at = 0.0

    @property
    def is_running(self) -> bool:
        """Whether there is something to look at."""
        return self._ends_at is not None

    def begin(self, now: float, release: str | None) -> None:
        """Begin a period for *release*; the one before is forgotten."""
        self._release, self._ends_at = release, now + self._length_s
        self._alive_at = now + _SIGN_OF_LIFE_S

    def look(self, now: float, signs: Signs) -> HealthDecision:
        """Return what is to be done now; healthy and unhealthy end the period."""
        if self._ends_at is None:
            return HealthDecision.WAIT
        if signs.release != self._release:
            self._ends_at = None
            return HealthDecision.WAIT
        if now < self._ends_at:
            if now < self._alive_at:
                return HealthDecision.WAIT
            # A long health period must not look like silence.
            self._alive_at = now + _SIGN_OF_LIFE_S
            return HealthDecision.SAY_ALIVE
        if signs.is_failing and not signs.is_proving and not signs.is_proved:
            # Another one is about to take its place. Should that fail, this one is judged all the same.
            return HealthDecision.WAIT
        if signs.is_stuck and not signs.is_proved:
            # Nobody knows whether it will ever answer; as long as it does not, it is no success.
            return HealthDecision.WAIT
        self._ends_at = None
        return HealthDecision.UNHEALTHY if signs.is_failing and signs.is_proving else HealthDecision.HEALTHY


def is_stuck(busy_s: float, *, is_proved: bool, length_s: float) -> bool:
    """Return whether a model that is busy with one sample for *busy_s* is stuck.

    Args:
        busy_s: Seconds since it was given the sample; 0 when it has answered.
        is_proved: Whether the release was healthy for a whole health period; it may take a minute then.
        length_s: The length of a health period.
    """
    return busy_s >= (max(length_s, _STUCK_S) if is_proved else length_s)
