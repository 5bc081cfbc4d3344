"""The real link: paho-mqtt 2, MQTT 3.1.1 or 5, fixed client id, manual acknowledgement, decorrelated jitter."""

import logging
import random
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from hedgerow.errors import BrokerUnreachableError, LinkError
from hedgerow.link import PAYLOAD_LIMIT_BYTES, Connected, Disconnected, LastWill, LinkEvent, Message

__all__ = ["Inbox", "MqttLink", "decorrelated_jitter"]

_log = logging.getLogger(__name__)
_INBOX_LIMIT, _INBOX_BYTES = 10_000, 64 * 2**20
_OUTBOX_LIMIT = 10_000
_SESSION_EXPIRY_S = 3600
_FIRST_DELAY_S, _LONGEST_DELAY_S = 0.5, 60.0
_FLUSH_TIMEOUT_S, _STOP_TIMEOUT_S = 1.0, 2.0
_MID_BITS = 16

Uniform = Callable[[float, float], float]


def decorrelated_jitter(previous_s: float, uniform: Uniform) -> float:
    """Return the next reconnection delay in seconds.

    A fleet that lost its broker must not come back in step; each delay is drawn between the floor and three times the
    one before (Brooker, "Exponential backoff and jitter", 2015).
    """
    return min(_LONGEST_DELAY_S, uniform(_FIRST_DELAY_S, max(_FIRST_DELAY_S, previous_s * 3)))


class Inbox:
    """Events between the network thread and whoever receives; bounded.

    When nobody receives for long, new messages are dropped: unacknowledged, so a broker with sessions delivers them
    again, and the protocol survives it anyway. News of the link itself is never dropped, because what follows from it
    (report everything) is what makes losses harmless; several in a row shrink to the last that matter.

    Args:
        limit: Messages that wait at most.
        limit_bytes: Length of their payloads together, at most.
    """

    def __init__(self, limit: int = _INBOX_LIMIT, *, limit_bytes: int = _INBOX_BYTES) -> None:
        self._limit, self._limit_bytes = limit, limit_bytes
        self._messages = self._size_bytes = 0
        self._events: deque[LinkEvent] = deque()
        self._arrived = threading.Condition()

    def __len__(self) -> int:
        return len(self._events)

    def put(self, event: LinkEvent) -> bool:
        """Add an event and return True, or return False when a message found no room."""
        with self._arrived:
            if isinstance(event, Message):
                if self._messages >= self._limit or self._size_bytes + len(event.payload) > self._limit_bytes:
                    return False
                self._messages += 1
                self._size_bytes += len(event.payload)
            elif len(self._events) >= 2 and not any(isinstance(self._events[i], Message) for i in (-1, -2)):
                # down, up, down: the first "down" and this one say it all.
                self._events.pop()
                if type(self._events[-1]) is type(event):
                    self._events.pop()
            self._events.append(event)
            self._arrived.notify()
            return True

    def take(self, timeout_s: float) -> LinkEvent | None:
        """Return the oldest event, or None when none came in time."""
        with self._arrived:
            if not self._events and timeout_s > 0:
                self._arrived.wait_for(lambda: bool(self._events), timeout_s)
            if not self._events:
                return None
            event = self._events.popleft()
            if isinstance(event, Message):
                self._messages -= 1
                self._size_bytes -= len(event.payload)
            return event


class MqttLink:
    """A :class:`hedgerow.link.Link` over TCP.

    Acknowledge promptly: brokers let only so many messages wait for it (mosquitto 20).

    Args:
        client_id: Fixed: the device's name, or the fleet service's. A second connection with it ends the first.
        host, port: The broker.
        will: Published by the broker when the link breaks.
        connect_timeout_s: How long the first connection may take; afterwards the link reconnects for ever.
        keepalive_s: Silence after which the broker is asked whether it is there.
        version: 5 where the broker has it, else 3 (meaning 3.1.1).
        uniform: Draws the reconnection delays: ``(low, high) -> number``, in seconds.

    Raises:
        BrokerUnreachableError: The first connection failed.
    """

    def __init__(
        self,
        client_id: str,
        host: str,
        port: int,
        *,
        will: LastWill | None = None,
        connect_timeout_s: float = 10.0,
        keepalive_s: int = 30,
        version: int = 3,
        uniform: Uniform = random.uniform,
    ) -> None:
        self._inbox = Inbox()
        self._filters: list[str] = []
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._uniform = uniform
        self._delay_s = _FIRST_DELAY_S
        self._first_result = threading.Event()
        self._refusal: str | None = None
        self._is_dropping = False
        # Which connection a message came over: packet ids start anew with each.
        self._connection = 0
        # Receipts of this connection that wait for their acknowledgement, in order; True: nobody gets the message.
        self._open_receipts: dict[int, bool] = {}
        self._receipts_lock = threading.Lock()
        self._handed_over, self._delivered = 0, 0
        self._delivery = threading.Condition()
        is_five = version == 5
        self._client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            clean_session=None if is_five else False,
            protocol=MQTTProtocolVersion.MQTTv5 if is_five else MQTTProtocolVersion.MQTTv311,
            manual_ack=True,
        )
        self._client.max_queued_messages_set(_OUTBOX_LIMIT)
        self._client.on_connect = self._on_connect
        self._client.on_connect_fail = self._on_connect_fail
        self._client.on_disconnect = self._on_disconnect
        self._client.on_message = self._on_message
        self._client.on_publish = self._on_publish
        if will is not None:
            self._client.will_set(will.topic, will.payload, qos=1, retain=True)
        properties = None
        if is_five:
            # Bounded sessions: a device that is thrown away must not fill the broker for ever.
            properties = Properties(PacketTypes.CONNECT)
            properties.SessionExpiryInterval = _SESSION_EXPIRY_S
        self._client.connect_timeout = connect_timeout_s
        try:
            self._client.connect(
                host,
                port,
                keepalive=keepalive_s,
                properties=properties,
                clean_start=False if is_five else mqtt.MQTT_CLEAN_START_FIRST_ONLY,
            )
        except (OSError, ValueError) as exc:
            raise BrokerUnreachableError(host, port, str(exc) or type(exc).__name__) from exc
        self._client.loop_start()
        if not self._first_result.wait(connect_timeout_s) or self._refusal is not None:
            self.close()
            raise BrokerUnreachableError(host, port, self._refusal or f"no answer within {connect_timeout_s:g} s")

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Hand a message over at QoS 1; while the link is down, it waits.

        Raises:
            LinkError: The outgoing queue is full, so the link has been down for long; keep the message and retry.
        """
        with self._delivery:
            self._handed_over += 1
        result = self._client.publish(topic, payload, qos=1, retain=retain)
        if result.rc == mqtt.MQTT_ERR_QUEUE_SIZE:
            with self._delivery:
                self._handed_over -= 1
            raise LinkError(
                f"expected room for a message to {topic}, found {_OUTBOX_LIMIT} waiting; send it again later"
            )

    def subscribe(self, topic_filter: str) -> None:
        """Ask for the messages that match, now and after every reconnection."""
        with self._lock:
            if topic_filter not in self._filters:
                self._filters.append(topic_filter)
        self._client.subscribe(topic_filter, qos=1)

    def receive(self, timeout_s: float) -> LinkEvent | None:
        """Return the next event, or None when none came in time."""
        return self._inbox.take(timeout_s)

    def acknowledge(self, message: Message) -> None:
        """Send the PUBACK; for a message of an earlier connection do nothing, since it is delivered again."""
        with self._receipts_lock:
            if self._open_receipts.pop(message.receipt, None) is not None:
                self._client.ack(message.receipt % (1 << _MID_BITS), 1)
                self._acknowledge_dropped()

    def close(self) -> None:
        """Wait until the broker has what was published, for at most a second, and disconnect in order."""
        if self._closed.is_set():
            return
        self._closed.set()
        if self._client.is_connected():
            with self._delivery:
                self._delivery.wait_for(lambda: self._delivered >= self._handed_over, _FLUSH_TIMEOUT_S)
        self._client.disconnect()
        # paho joins its thread without a limit, and the thread may be connecting to a host that does not answer.
        stopper = threading.Thread(target=self._client.loop_stop, name="link-stop", daemon=True)
        stopper.start()
        stopper.join(_STOP_TIMEOUT_S)
        # paho closes its last two sockets when nobody refers to it any more; its callbacks refer to us, and we to it.
        self._client.on_connect = self._client.on_connect_fail = self._client.on_disconnect = None
        self._client.on_message = self._client.on_publish = None

    def _acknowledge_dropped(self) -> None:
        """Acknowledge what nobody gets once everything before it is; rumqttd cuts off who answers in another order."""
        while self._open_receipts and self._open_receipts[receipt := next(iter(self._open_receipts))]:
            del self._open_receipts[receipt]
            self._client.ack(receipt % (1 << _MID_BITS), 1)

    def _on_connect(self, client: mqtt.Client, _userdata: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        if reason.is_failure:
            self._refusal = f"it refused the connection: {reason}"
            self._first_result.set()
            return
        self._delay_s = _FIRST_DELAY_S
        with self._receipts_lock:
            self._connection += 1
            self._open_receipts.clear()
        # News first: what the subscriptions bring must come after it.
        self._inbox.put(Connected())
        with self._lock:
            filters = list(self._filters)
        for topic_filter in filters:
            client.subscribe(topic_filter, qos=1)
        self._first_result.set()

    def _on_connect_fail(self, _client: mqtt.Client, _userdata: Any) -> None:
        self._choose_delay()

    def _on_disconnect(self, _client: mqtt.Client, _userdata: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        if self._closed.is_set():
            return
        self._choose_delay()
        self._inbox.put(Disconnected(str(reason)))

    def _choose_delay(self) -> None:
        self._delay_s = decorrelated_jitter(self._delay_s, self._uniform)
        # paho doubles from min to max by itself; equal bounds leave the choice to us.
        self._client.reconnect_delay_set(self._delay_s, self._delay_s)  # type: ignore[arg-type]

    def _on_message(self, _client: mqtt.Client, _userdata: Any, message: mqtt.MQTTMessage) -> None:
        receipt = (self._connection << _MID_BITS) + message.mid if message.qos else 0
        try:
            topic = message.topic
        except UnicodeDecodeError:
            # No topic of ours. Raised here, it would end paho's thread, and the link with it.
            topic = ""
        if not topic or len(message.payload) > PAYLOAD_LIMIT_BYTES:
            # Acknowledged, or the broker would send it again for ever; nobody is to decode it.
            _log.warning("dropped a message of %d bytes on %.200s", len(message.payload), topic or "no topic")
            with self._receipts_lock:
                if receipt:
                    self._open_receipts[receipt] = True
                self._acknowledge_dropped()
            return
        with self._receipts_lock:
            if receipt:
                self._open_receipts[receipt] = False
        taken = self._inbox.put(Message(topic, bytes(message.payload), bool(message.retain), receipt))
        if not taken:
            with self._receipts_lock:
                self._open_receipts.pop(receipt, None)
        if not taken and not self._is_dropping:
            _log.warning("nobody receives: %d messages wait, and new ones are dropped", len(self._inbox))
        self._is_dropping = not taken

    def _on_publish(self, _client: mqtt.Client, _userdata: Any, _mid: int, _reason: Any, _properties: Any) -> None:
        with self._delivery:
            self._delivered += 1
            self._delivery.notify_all()
