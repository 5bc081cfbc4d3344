"""What can go wrong on a device, named by what the agent does next.

- ClientError: the root of this folder's errors.
  - AgentSettingsError: the agent was started wrongly: say so and exit.
  - DeclinedError: a training round that this device will not join: answer ``declined``.
  - InstallError: installing failed: answer FAILED, the fleet may try again.
    - AgentFaultError: by a bug of the agent's own, whatever the release is like.
    - TransferError: the server did not give what was asked for.
    - TrialFailedError: its trial says so: too slow, too large, other outputs.
  - OtherTargetError: a slot holds a release for another target: keep it, the agent was started for the wrong one.
  - PredictionError: the model failed on an input: no answer to it, the next one may do.
  - RejectedError: this device must not run that release: answer REJECTED, never try again.
    - TrialRejectedError: its trial says so: it ended the process that tried it.
  - SinkError: a sink does not keep up: answers to it are dropped.
  - SlotDamagedError: what lies in a slot is not what was put there: use the other slot, install again.
  - SourceError: the source failed or ended: call it again later.
  - StoppedError: the agent is stopping, so the work at hand ends: say nothing.
  - TrainingError: a training round went wrong: answer ``failed``.
"""

from hedgerow.errors import HedgerowError

__all__ = [
    "AgentFaultError",
    "AgentSettingsError",
    "ClientError",
    "DeclinedError",
    "InstallError",
    "OtherTargetError",
    "PredictionError",
    "RejectedError",
    "SinkError",
    "SlotDamagedError",
    "SourceError",
    "StoppedError",
    "TrainingError",
    "TransferError",
    "TrialFailedError",
    "TrialRejectedError",
]


class ClientError(HedgerowError):
    """The root of this folder's errors."""


class RejectedError(ClientError):
    """This device must not run the release, however often it is asked.

    Attributes:
        release: The release that was refused.
    """

    def __init__(self, release: str, expected: str, found: str, action: str) -> None:
        super().__init__(f"{release} is refused: expected {expected}, found {found}; {action}")
        self.release, self.expected, self.found = release, expected, found


class InstallError(ClientError):
    """Installing failed in a way that may pass."""

    def __init__(self, what: str, expected: str, found: str, action: str = "it may be tried again") -> None:
        super().__init__(f"{what}: expected {expected}, found {found}; {action}")
        self.expected, self.found = expected, found


class AgentFaultError(InstallError):
    """A line of the agent's own was wrong; neither the release nor its runtime is to blame.

    Attributes:
        cause: The exception, in one line.
    """

    def __init__(self, what: str, cause: str) -> None:
        super().__init__(
            what,
            "no error of the agent's own",
            cause,
            "this is a bug in Hedgerow, not in the release: report it with the traceback in the agent's log",
        )
        self.cause = cause


class TransferError(InstallError):
    """The server did not give what was asked for.

    Attributes:
        status: HTTP status, or None when there was no answer.
    """

    def __init__(self, what: str, expected: str, found: str, *, status: int | None = None) -> None:
        super().__init__(what, expected, found, "check the server's address and that it runs")
        self.status = status


class TrialRejectedError(RejectedError):
    """A release was tried in a process of its own and must not be run on this device.

    Attributes:
        reason: What happened, as a sentence's end.
    """

    def __init__(self, release: str, reason: str) -> None:
        HedgerowError.__init__(self, f"{release} is refused: {reason}")
        self.release, self.reason = release, reason


class TrialFailedError(InstallError):
    """A release was tried in a process of its own, and that did not work in a way that may pass.

    Attributes:
        reason: What happened, as a sentence.
    """

    def __init__(self, reason: str) -> None:
        HedgerowError.__init__(self, reason)
        self.reason = reason


class SlotDamagedError(ClientError):
    """The content of a slot is not what was put there."""

    def __init__(self, slot: str, expected: str, found: str) -> None:
        super().__init__(f"slot {slot} is damaged: expected {expected}, found {found}; it will be installed again")
        self.slot = slot


class OtherTargetError(ClientError):
    """A slot holds a whole release, and none of its artifacts is for the target that the agent was started for."""

    def __init__(self, slot: str, release: str, target: str) -> None:
        super().__init__(
            f"expected a release for {target}, found {release} in slot {slot}, which is for other targets; it is kept: "
            "correct --target, or roll out a release for this one"
        )
        self.slot, self.release, self.target = slot, release, target


class DeclinedError(ClientError):
    """This device does not join a training round, for a reason that is no fault."""


class TrainingError(ClientError):
    """A training round went wrong on this device."""


class PredictionError(ClientError):
    """The model failed on an input that fits its schema."""

    def __init__(self, release: str, reason: str) -> None:
        super().__init__(f"{release}: expected a prediction, found {reason}; try another input or another release")
        self.release = release


class SourceError(ClientError):
    """The user's source raised or ended."""


class SinkError(ClientError):
    """A sink does not keep up."""


class AgentSettingsError(ClientError):
    """The agent was started wrongly."""


class StoppedError(ClientError):
    """The agent is stopping."""

    def __init__(self) -> None:
        super().__init__("expected to finish, found that the agent is stopping; start it again to go on")
