"""What happened in the demo, moment by moment: the source of the report's plots."""

from dataclasses import dataclass, field

__all__ = ["Moment", "ReleaseRunning", "RoundPoint", "Story", "WindowPoint"]


@dataclass(frozen=True, slots=True)
class RoundPoint:
    """One round of a training run: held-out accuracy after it."""

    run: str
    round: int
    accuracy: float


@dataclass(frozen=True, slots=True)
class WindowPoint:
    """One window: when it ended (seconds since the start), its accuracy, and its largest drift effect."""

    device: str
    meets_drift: bool
    release: str
    at_s: float
    accuracy: float | None
    js_bits: float


@dataclass(frozen=True, slots=True)
class ReleaseRunning:
    """A device runs a release from a moment on (seconds since the start)."""

    device: str
    release: str | None
    at_s: float


@dataclass(frozen=True, slots=True)
class Moment:
    """Something to mark on the time axis."""

    at_s: float
    what: str


@dataclass(slots=True)
class Story:
    """All of it, in order of time. Appended to by one thread at a time, read when it is over."""

    rounds: list[RoundPoint] = field(default_factory=list)
    windows: list[WindowPoint] = field(default_factory=list)
    running: list[ReleaseRunning] = field(default_factory=list)
    moments: list[Moment] = field(default_factory=list)
