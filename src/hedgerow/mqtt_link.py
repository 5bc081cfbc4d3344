"""The real link: paho-mqtt 2, MQTT 3.1.1 or 5, fixed client id, manual acknowledgement, decorrelated jitter."""

import queue
import random
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from hedgerow.errors import BrokerUnreachableError, LinkError
from hedgerow.link import Connected, Disconnected, LinkEvent, Message
from hedgerow.memory_link import Will

__all__ = ["MqttLink", "decorrelated_jitter"]

_INBOX_LIMIT = 10_000
_OUTBOX_LIMIT = 10_000
_SESSION_EXPIRY_S = 3600
_FIRST_DELAY_S, _LONGEST_DELAY_S = 0.5, 60.0


def decorrelated_jitter(previous_s: float, uniform: Callable[[float, float], float]) -> float:
    """Return the next reconnection delay in seconds.

    A fleet that lost its broker must not come back in step; each delay is drawn between the floor and three times the
    one before (Brooker, "Exponential backoff and jitter", 2015).
    """
    return min(_LONGEST_DELAY_S, uniform(_FIRST_DELAY_S, max(_FIRST_DELAY_S, previous_s * 3)))


class MqttLink:
    """A :class:`hedgerow.link.Link` over TCP.

    Args:
        client_id: Fixed: the device's name, or the fleet service's. A second connection with it ends the first.
        host, port: The broker.
        will: Published by the broker when the link breaks.
        connect_timeout_s: How long the first connection may take; afterwards the link reconnects for ever.
        keepalive_s: Silence after which the broker is asked whether it is there.
        version: 5 where the broker has it, else 3 (meaning 3.1.1).

    Raises:
        BrokerUnreachableError: The first connection failed.
    """

    def __init__(
        self,
        client_id: str,
        host: str,
        port: int,
        *,
        will: Will | None = None,
        connect_timeout_s: float = 10.0,
        keepalive_s: int = 30,
        version: int = 3,
    ) -> None:
        self._inbox: queue.Queue[LinkEvent] = queue.Queue(_INBOX_LIMIT)
        self._filters: list[str] = []
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._delay_s = _FIRST_DELAY_S
        self._first_result = threading.Event()
        self._refusal: str | None = None
        # Bounded sessions: a device that is thrown away must not fill the broker for ever.
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
        self._client.on_disconnect = self._on_disconnect
        self._client.on_message = self._on_message
        if will is not None:
            self._client.will_set(will.topic, will.payload, qos=1, retain=True)
        properties = None
        if is_five:
            properties = Properties(PacketTypes.CONNECT)
            properties.SessionExpiryInterval = _SESSION_EXPIRY_S
        self._client.connect_timeout = connect_timeout_s
        try:
            self._client.connect(host, port, keepalive=keepalive_s, properties=properties, clean_start=False if is_five else mqtt.MQTT_CLEAN_START_FIRST_ONLY)
        except (OSError, socket.gaierror, ValueError) as exc:
            raise BrokerUnreachableError(host, port, str(exc) or type(exc).__name__) from exc
        self._client.loop_start()
        if not self._first_result.wait(connect_timeout_s) or self._refusal is not None:
            self.close()
            raise BrokerUnreachableError(host, port, self._refusal or f"no answer within {connect_timeout_s:g} s")

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Hand a message over at QoS 1.

        Raises:
            LinkError: The outgoing queue is full, so the link has been down for long; keep the message and retry.
        """
        result = self._client.publish(topic, payload, qos=1, retain=retain)
        if result.rc == mqtt.MQTT_ERR_QUEUE_SIZE:
            raise LinkError(f"expected room for a message to {topic}, found {_OUTBOX_LIMIT} waiting; send it again later")

    def subscribe(self, topic_filter: str) -> None:
        """Ask for the messages that match, now and after every reconnection."""
        with self._lock:
            if topic_filter not in self._filters:
                self._filters.append(topic_filter)
        self._client.subscribe(topic_filter, qos=1)

    def receive(self, timeout_s: float) -> LinkEvent | None:
        """Return the next event, or None when none came in time."""
        try:
            return self._inbox.get(timeout=timeout_s) if timeout_s > 0 else self._inbox.get_nowait()
        except queue.Empty:
            return None

    def acknowledge(self, message: Message) -> None:
        """Send the PUBACK."""
        if message.receipt:
            self._client.ack(message.receipt, 1)

    def close(self) -> None:
        """Flush what waits, for at most a second, and disconnect in order."""
        if self._closed.is_set():
            return
        self._closed.set()
        self._flush(1.0)
        self._client.disconnect()
        self._client.loop_stop()

    def _flush(self, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while self._client.is_connected() and self._client.want_write() and time.monotonic() < deadline:
            time.sleep(0.01)

    def _on_connect(self, client: mqtt.Client, _userdata: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        if reason.is_failure:
            self._refusal = f"it refused the connection: {reason}"
            self._first_result.set()
            return
        self._delay_s = _FIRST_DELAY_S
        with self._lock:
            filters = list(self._filters)
        for topic_filter in filters:
            client.subscribe(topic_filter, qos=1)
        self._put(Connected())
        self._first_result.set()

    def _on_disconnect(self, client: mqtt.Client, _userdata: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        if self._closed.is_set():
            return
        self._delay_s = decorrelated_jitter(self._delay_s, random.uniform)
        # paho doubles from min to max by itself; equal bounds leave the choice to us.
        client.reconnect_delay_set(self._delay_s, self._delay_s)  # type: ignore[arg-type]
        self._put(Disconnected(str(reason)))

    def _on_message(self, _client: mqtt.Client, _userdata: Any, message: mqtt.MQTTMessage) -> None:
        self._put(Message(message.topic, bytes(message.payload), bool(message.retain), message.mid))

    def _put(self, event: LinkEvent) -> None:
        try:
            self._inbox.put_nowait(event)
        except queue.Full:
            # Unacknowledged, so a real broker delivers it again; the protocol survives it anyway.
            return
