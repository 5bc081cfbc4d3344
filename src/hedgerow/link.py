"""The seam between the rules and MQTT: publish, subscribe, receive, acknowledge.

A link is pulled, never pushed: events wait in an inbox until :meth:`Link.receive` takes them, so no code of ours runs
in a network thread and a test decides the order of everything. ``MqttLink`` (mqtt_link.py) is the real one,
``MemoryLink`` (memory_link.py) the fake; both are public, so that users test the way we do.
"""

from dataclasses import dataclass
from typing import Protocol

__all__ = ["PAYLOAD_LIMIT_BYTES", "Connected", "Disconnected", "LastWill", "Link", "LinkEvent", "Message"]

PAYLOAD_LIMIT_BYTES = 256 * 1024
"""The longest payload of any message; a link gives longer ones to nobody."""


@dataclass(frozen=True, slots=True)
class Message:
    """A message that arrived.

    Attributes:
        topic: Its topic. Check it: some brokers deliver outside the subscription.
        payload: Its bytes. May be a repeat.
        retained: Whether the broker had kept it.
        receipt: What :meth:`Link.acknowledge` needs.
    """

    topic: str
    payload: bytes
    retained: bool = False
    receipt: int = 0


@dataclass(frozen=True, slots=True)
class Connected:
    """The link is up, first or again: report everything, since messages may have been lost."""


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The link is down; it comes back by itself."""

    reason: str


@dataclass(frozen=True, slots=True)
class LastWill:
    """What the broker publishes, retained, when a link breaks without having been closed.

    Attributes:
        topic: The topic that it is published on.
        payload: The message.
    """

    topic: str
    payload: bytes


LinkEvent = Message | Connected | Disconnected


class Link(Protocol):
    """A connection to the fleet's broker. Every method may be called from any thread."""

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Hand a message over at QoS 1; while the link is down, it waits in a bounded queue."""

    def subscribe(self, topic_filter: str) -> None:
        """Ask for the messages that match, now and after every reconnection."""

    def receive(self, timeout_s: float) -> LinkEvent | None:
        """Return the next event, or None when none came in time."""

    def acknowledge(self, message: Message) -> None:
        """Tell the broker that *message* is in safe hands; call it after the durable write."""

    def close(self) -> None:
        """Disconnect in order. Repeats are harmless."""
