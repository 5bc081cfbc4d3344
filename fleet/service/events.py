"""What the fleet service tells its subscribers, after it was saved."""

from dataclasses import dataclass

from hedgerow.fleet.drift.alert import Alert
from hedgerow.fleet.registry import Device
from hedgerow.fleet.rollout.state import Rollout
from hedgerow.window import Window
from hedgerow.wire.training import TrainUpdate

__all__ = [
    "AlertChanged",
    "DeviceChanged",
    "DeviceForgotten",
    "FleetEvent",
    "ReleaseProven",
    "ReportRefused",
    "RolloutChanged",
    "UpdateArrived",
    "WindowArrived",
]


@dataclass(frozen=True, slots=True)
class DeviceChanged:
    """A device reported itself, came or went.

    Attributes:
        device: As it is now.
        before: As it was; None when it is new.
    """

    device: Device
    before: Device | None


@dataclass(frozen=True, slots=True)
class DeviceForgotten:
    """An operator had a device forgotten; if it reports again, it is new.

    Attributes:
        device: As it was.
    """

    device: Device


@dataclass(frozen=True, slots=True)
class RolloutChanged:
    """A rollout, or an execution in it, changed."""

    rollout: Rollout


@dataclass(frozen=True, slots=True)
class WindowArrived:
    """A device sent a window that was not seen before."""

    device: str
    window: Window


@dataclass(frozen=True, slots=True)
class AlertChanged:
    """An alert was raised, or an open one got more devices or findings.

    Attributes:
        alert: As it is now.
        is_new: Whether it was raised just now.
    """

    alert: Alert
    is_new: bool


@dataclass(frozen=True, slots=True)
class ReleaseProven:
    """A release has shown on labelled samples of the fleet to be above its floor, for the first time.

    Attributes:
        release: Which one.
        reason: The figures, in words.
    """

    release: str
    reason: str


@dataclass(frozen=True, slots=True)
class UpdateArrived:
    """A device answered a training round; may be a repeat."""

    device: str
    update: TrainUpdate


@dataclass(frozen=True, slots=True)
class ReportRefused:
    """A report of a device was not believed, for a reason that was not told before; nothing of it was kept.

    Attributes:
        device: The one in whose name it came.
        reason: Why, as the end of a sentence.
    """

    device: str
    reason: str


FleetEvent = (
    DeviceChanged
    | DeviceForgotten
    | RolloutChanged
    | WindowArrived
    | AlertChanged
    | ReleaseProven
    | UpdateArrived
    | ReportRefused
)
