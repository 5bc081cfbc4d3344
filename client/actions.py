"""What an agent can do about it (see agent_rules.py); the rim carries it out, in order."""

from dataclasses import dataclass

from hedgerow.wire.device import Presence, Reported
from hedgerow.wire.execution import Execution
from hedgerow.wire.topics import Channel
from hedgerow.wire.training import TrainTask, TrainUpdate

__all__ = [
    "Action",
    "Answer",
    "Compare",
    "FallBack",
    "FlushSpool",
    "Install",
    "Prove",
    "RetryLater",
    "Save",
    "Send",
    "Train",
]


@dataclass(frozen=True, slots=True)
class Save:
    """Write the durable part of the state before anything that follows."""


Answer = Presence | Reported | Execution | TrainUpdate


@dataclass(frozen=True, slots=True)
class Send:
    """Publish a message on this device's channel."""

    channel: Channel
    message: Answer
    retain: bool = False


@dataclass(frozen=True, slots=True)
class Install:
    """Make a release the active one; None: stop serving."""

    release: str | None


@dataclass(frozen=True, slots=True)
class Prove:
    """Raise :class:`Proved` after a whole health period, counted from now."""


@dataclass(frozen=True, slots=True)
class FallBack:
    """Give the active release up for one that has proved itself, or for none, and raise :class:`InstallFailed`.

    Attributes:
        reason: One sentence.
    """

    reason: str


@dataclass(frozen=True, slots=True)
class RetryLater:
    """Raise :class:`RetryDue` after some seconds."""

    after_s: float


@dataclass(frozen=True, slots=True)
class Compare:
    """Run the model before on the same inputs, or stop doing so."""

    is_wanted: bool


@dataclass(frozen=True, slots=True)
class Train:
    """Train a round and raise :class:`Trained`."""

    task: TrainTask


@dataclass(frozen=True, slots=True)
class FlushSpool:
    """Publish the windows that wait."""


Action = Save | Send | Install | Prove | FallBack | RetryLater | Compare | Train | FlushSpool
