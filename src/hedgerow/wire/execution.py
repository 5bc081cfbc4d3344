"""How far a device is with its part in a rollout. Pure."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar, Self

from hedgerow.decode import Fields
from hedgerow.wire.message import WireMessage, one_line
from hedgerow.wire.topics import NAME

__all__ = ["Execution", "ExecutionState"]


class ExecutionState(StrEnum):
    """One device's part in a rollout (AWS IoT Jobs' states)."""

    QUEUED = "QUEUED"
    IN_PROGRESS = "IN_PROGRESS"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    TIMED_OUT = "TIMED_OUT"
    REJECTED = "REJECTED"
    CANCELED = "CANCELED"
    REMOVED = "REMOVED"

    @property
    def is_terminal(self) -> bool:
        """Whether nothing follows."""
        return self not in {ExecutionState.QUEUED, ExecutionState.IN_PROGRESS}


_DEVICE_STATES = {
    state.value: state
    for state in (ExecutionState.IN_PROGRESS, ExecutionState.SUCCEEDED, ExecutionState.FAILED, ExecutionState.REJECTED)
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution(WireMessage):
    """A device's progress in a rollout.

    Attributes:
        rollout, attempt: Which part of which rollout.
        state: IN_PROGRESS, SUCCEEDED, FAILED (may be tried again) or REJECTED (must not be: wrong hardware, missing
            runtime, refused signature).
        step: What it is doing, such as ``verify``, ``download``, ``load``, ``replay``, ``commit``.
        reason: Why it failed; one sentence.
    """

    KIND: ClassVar[str] = "execution"
    rollout: str
    attempt: int
    state: ExecutionState
    step: str = ""
    reason: str = ""

    def to_record(self) -> dict[str, Any]:
        """Return this as plain JSON values."""
        return {
            "rollout": self.rollout,
            "attempt": self.attempt,
            "state": self.state.value,
            "step": self.step,
            "reason": self.reason[:1024],
        }

    @classmethod
    def from_fields(cls, fields: Fields) -> Self:
        """Decode the fields."""
        return cls(
            rollout=fields.text("rollout", pattern=NAME),
            attempt=fields.integer("attempt", minimum=1, maximum=100),
            state=fields.choice("state", _DEVICE_STATES),
            step=one_line(fields.text("step", maximum_chars=64)),
            reason=one_line(fields.text("reason")),
        )
