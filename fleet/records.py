"""What the fleet keeps that has no rules of its own: windows, retrainings, the audit log. Data only."""

from dataclasses import dataclass
from enum import StrEnum

from hedgerow.window import Window

__all__ = ["AuditEntry", "RunState", "StoredWindow", "TrainingRun"]


class RunState(StrEnum):
    """How far a retraining is."""

    RUNNING = "running"
    """It trains, compiles or signs; a service that finds it so when it starts resumes it."""
    DONE = "done"
    """Its release is on its way to the devices."""
    RECOVERED = "recovered"
    """Its release has proven itself there."""
    FAILED = "failed"
    """It ended without a release, or its release was sent back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredWindow:
    """One window of one device.

    Attributes:
        device: Whose.
        received_at: Unix time by the fleet's clock.
        window: What it counted.
    """

    device: str
    received_at: float
    window: Window


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRun:
    """One retraining.

    Attributes:
        id: Its identity.
        started_at, ended_at: Unix times; *ended_at* is None while it runs.
        state: How far it is.
        trigger: The alert that asked for it, or ``manual``.
        parent: The release it started from.
        release: The release it made, once there is one.
        reason: Why it failed; one sentence.
    """

    id: str
    started_at: float
    ended_at: float | None
    state: RunState
    trigger: str
    parent: str
    release: str | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """One line of the append-only log: who did what to what, and when."""

    at: float
    actor: str
    action: str
    subject: str
    detail: str
