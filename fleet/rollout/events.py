"""What happens to a rollout (events, facts in) and what it asks for (commands out). Data only.

``now`` is Unix time in seconds by the fleet's clock.
"""

from dataclasses import dataclass

from hedgerow.fleet.rollout.gates import GateVerdict
from hedgerow.fleet.rollout.stages import DeviceFacts
from hedgerow.wire.execution import Execution

__all__ = [
    "Approved",
    "Assign",
    "Canceled",
    "DeviceCommand",
    "DeviceJoined",
    "DeviceRemoved",
    "DeviceReported",
    "GateJudged",
    "Paused",
    "Resumed",
    "RollBack",
    "RolloutEvent",
    "Started",
    "Tick",
]


@dataclass(frozen=True, slots=True)
class Approved:
    """A second person agreed."""

    now: float


@dataclass(frozen=True, slots=True)
class Started:
    """An operator wants it to run."""

    now: float


@dataclass(frozen=True, slots=True)
class Paused:
    """An operator holds it: no new assignments."""

    now: float
    reason: str = "paused by an operator"


@dataclass(frozen=True, slots=True)
class Resumed:
    """An operator lets it go on."""

    now: float


@dataclass(frozen=True, slots=True)
class Canceled:
    """An operator stops it for good; exposed devices go back."""

    reason: str
    now: float


@dataclass(frozen=True, slots=True)
class DeviceReported:
    """A device said how far its part is."""

    device: str
    message: Execution
    now: float


@dataclass(frozen=True, slots=True)
class GateJudged:
    """The gate looked at the current stage's windows."""

    verdict: GateVerdict
    now: float


@dataclass(frozen=True, slots=True)
class DeviceJoined:
    """A device that fits the release became known."""

    facts: DeviceFacts
    now: float


@dataclass(frozen=True, slots=True)
class DeviceRemoved:
    """A device left the fleet."""

    device: str
    now: float


@dataclass(frozen=True, slots=True)
class Tick:
    """Time passed."""

    now: float


RolloutEvent = (
    Approved | Started | Paused | Resumed | Canceled | DeviceReported | GateJudged | DeviceJoined | DeviceRemoved | Tick
)


@dataclass(frozen=True, slots=True)
class Assign:
    """Want the rollout's release of a device.

    Attributes:
        device: Which one.
        release: The rollout's release.
        attempt: Which try; the same attempt may be asked for twice, and the second time changes nothing.
        compare: Run the model before on the same inputs too, because there is one.
    """

    device: str
    release: str
    attempt: int
    compare: bool


@dataclass(frozen=True, slots=True)
class RollBack:
    """Want of a device what it had before; None: no release."""

    device: str
    release: str | None


DeviceCommand = Assign | RollBack
