"""What a change in the store entails outside it. Gathered inside the transaction, done after the commit."""

from dataclasses import dataclass, field

from hedgerow.fleet.service.events import FleetEvent
from hedgerow.wire.device import Desired

__all__ = ["AfterCommit"]


@dataclass(slots=True)
class AfterCommit:
    """What is to be done once the change is saved.

    Attributes:
        desired: (device, what is wanted of it now), to be published in this order.
        events: What the subscribers are told, in this order.
        doubted: Devices of which nobody knows whether they are there; they are to be asked.
        forgotten: Devices of which nothing is known any more; what the broker keeps of them is to be deleted.
    """

    desired: list[tuple[str, Desired]] = field(default_factory=list)
    events: list[FleetEvent] = field(default_factory=list)
    doubted: list[str] = field(default_factory=list)
    forgotten: list[str] = field(default_factory=list)
