"""What goes up to the fleet: messages on this device's own topics, and the windows that wait on disk."""

from hedgerow.client.health import Health, Part
from hedgerow.client.spool import Spool
from hedgerow.errors import LinkError
from hedgerow.link import Link
from hedgerow.wire.topics import Channel, device_topic

__all__ = ["Uplink"]


class Uplink:
    """One device's side of the link.

    Args:
        link: The link to the broker.
        fleet, device: Names of the fleet and of this device in it.
        spool: Windows that could not be sent yet.
        health: Is told whether messages can be sent.
    """

    def __init__(self, link: Link, fleet: str, device: str, spool: Spool, health: Health) -> None:
        self._link, self._fleet, self._device = link, fleet, device
        self._spool, self._health = spool, health

    def topic(self, channel: Channel) -> str:
        """Return this device's topic for *channel*."""
        return device_topic(self._fleet, self._device, channel)

    def publish(self, channel: Channel, payload: bytes, *, retain: bool = False) -> bool:
        """Send a message; return whether the link took it."""
        try:
            self._link.publish(self.topic(channel), payload, retain=retain)
        except LinkError as exc:
            self._health.failed(Part.LINK, exc)
            return False
        self._health.worked(Part.LINK)
        return True

    def flush_spool(self) -> None:
        """Send the windows that wait, oldest first, until the link takes no more."""
        for number, message in self._spool.pending():
            if not self.publish(Channel.TELEMETRY, message):
                return
            self._spool.remove(number)
