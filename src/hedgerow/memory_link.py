"""A broker in memory and links to it, for tests and simulations; loses, repeats and delays when told to."""

import threading
from collections import deque
from collections.abc import Callable

from hedgerow.link import Connected, Disconnected, LastWill, LinkEvent, Message

__all__ = ["MemoryBroker", "MemoryLink", "topic_matches"]

Deliver = Callable[[str, str, bytes], int]
"""``(receiver, topic, payload) -> how many times to deliver``: 0 loses the message, 2 repeats it."""


def topic_matches(topic_filter: str, topic: str) -> bool:
    """Return whether *topic* matches a subscription with ``+`` and ``#`` (MQTT 3.1.1 section 4.7)."""
    wanted, levels = topic_filter.split("/"), topic.split("/")
    for index, level in enumerate(wanted):
        if level == "#":
            return True
        if index >= len(levels) or level not in {"+", levels[index]}:
            return False
    return len(wanted) == len(levels)


class MemoryBroker:
    """Routes between links of this process, with retained messages and wills.

    Args:
        deliver: Decides each delivery; the default delivers once.
    """

    def __init__(self, deliver: Deliver | None = None) -> None:
        self._deliver = deliver or (lambda _receiver, _topic, _payload: 1)
        self._links: dict[str, MemoryLink] = {}
        self._retained: dict[str, bytes] = {}
        self._lock = threading.RLock()

    def connect(self, client_id: str, *, will: LastWill | None = None) -> "MemoryLink":
        """Return a connected link; an older link with the same id is broken, as MQTT demands."""
        with self._lock:
            if client_id in self._links:
                self.break_link(client_id)
            link = MemoryLink(self, client_id, will)
            self._links[client_id] = link
            link.put(Connected())
            return link

    def break_link(self, client_id: str) -> None:
        """Cut a link without its consent: its will is published and it hears of it."""
        with self._lock:
            link = self._links.pop(client_id, None)
            if link is None:
                return
            link.put(Disconnected("the broker cut the link"))
            if link.will is not None:
                self.route(link.will.topic, link.will.payload, retain=True)

    def mend_link(self, link: "MemoryLink") -> None:
        """Connect a broken link again; it gets the retained messages of its subscriptions."""
        with self._lock:
            self._links[link.client_id] = link
            link.put(Connected())
            for topic_filter in link.filters:
                self.send_retained(link, topic_filter)

    def forget(self, link: "MemoryLink") -> None:
        """Drop a link that closed in order."""
        with self._lock:
            if self._links.get(link.client_id) is link:
                del self._links[link.client_id]

    def is_connected(self, link: "MemoryLink") -> bool:
        """Return whether *link* is up."""
        with self._lock:
            return self._links.get(link.client_id) is link

    def route(self, topic: str, payload: bytes, *, retain: bool) -> None:
        """Deliver a message to every link that asked for it."""
        with self._lock:
            if retain:
                if payload:
                    self._retained[topic] = payload
                else:
                    self._retained.pop(topic, None)
            for link in list(self._links.values()):
                if any(topic_matches(wanted, topic) for wanted in link.filters):
                    for _ in range(self._deliver(link.client_id, topic, payload)):
                        link.put(Message(topic, payload))

    def send_retained(self, link: "MemoryLink", topic_filter: str) -> None:
        """Deliver the retained messages that match a subscription."""
        with self._lock:
            for topic, payload in self._retained.items():
                if topic_matches(topic_filter, topic):
                    link.put(Message(topic, payload, retained=True))


class MemoryLink:
    """A :class:`hedgerow.link.Link` to a :class:`MemoryBroker`; get one from :meth:`MemoryBroker.connect`."""

    def __init__(self, broker: MemoryBroker, client_id: str, will: LastWill | None) -> None:
        self.client_id, self.will = client_id, will
        self.filters: list[str] = []
        self.acknowledged: list[Message] = []
        self._broker = broker
        self._inbox: deque[LinkEvent] = deque()
        self._arrived = threading.Condition()

    def put(self, event: LinkEvent) -> None:
        """Place an event in the inbox."""
        with self._arrived:
            self._inbox.append(event)
            self._arrived.notify()

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Route a message now; on a broken link it is lost."""
        if self._broker.is_connected(self):
            self._broker.route(topic, payload, retain=retain)

    def subscribe(self, topic_filter: str) -> None:
        """Ask for the messages that match."""
        if topic_filter not in self.filters:
            self.filters.append(topic_filter)
        if self._broker.is_connected(self):
            self._broker.send_retained(self, topic_filter)

    def receive(self, timeout_s: float) -> LinkEvent | None:
        """Return the next event, or None when none came in time."""
        with self._arrived:
            if not self._inbox:
                self._arrived.wait(timeout_s)
            return self._inbox.popleft() if self._inbox else None

    def acknowledge(self, message: Message) -> None:
        """Note the acknowledgement; tests read :attr:`acknowledged`."""
        self.acknowledged.append(message)

    def close(self) -> None:
        """Disconnect in order: no will is published."""
        self._broker.forget(self)
