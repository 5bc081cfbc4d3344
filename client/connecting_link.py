"""A link that is still being made: a device with a model serves before, and without, the network."""

import logging
import threading
from collections.abc import Callable

from hedgerow.errors import BrokerUnreachableError
from hedgerow.link import Link, LinkEvent, Message

__all__ = ["ConnectingLink"]

_log = logging.getLogger(__name__)


class ConnectingLink:
    """A :class:`hedgerow.link.Link` that keeps trying to connect in the background; nothing arrives until it has.

    Args:
        connect: Makes the real link, or raises BrokerUnreachableError.
        delay: Makes the next delay of the one before, in seconds (see :func:`hedgerow.mqtt_link.decorrelated_jitter`).
    """

    def __init__(self, connect: Callable[[], Link], delay: Callable[[float], float]) -> None:
        self._connect, self._delay = connect, delay
        self._filters: list[str] = []
        self._lock = threading.Lock()
        self._link: Link | None = None
        self._closed = threading.Event()
        self._decided = threading.Event()
        self._first_error: BrokerUnreachableError | None = None

    def open(self) -> None:
        """Start to connect. Call it once."""
        threading.Thread(target=self._run, name="connect", daemon=True).start()

    def wait_first_attempt(self, timeout_s: float) -> BrokerUnreachableError | None:
        """Wait until the first attempt succeeded or failed, at most *timeout_s*; return its error, if it failed."""
        self._decided.wait(timeout_s)
        return self._first_error

    @property
    def is_decided(self) -> bool:
        """Whether the first attempt has succeeded or failed."""
        return self._decided.is_set()

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Hand a message to the real link; without one it is lost, as on a broken link."""
        if self._link is not None:
            self._link.publish(topic, payload, retain=retain)

    def subscribe(self, topic_filter: str) -> None:
        """Ask for the messages that match, as soon as there is a link."""
        with self._lock:
            self._filters.append(topic_filter)
            link = self._link
        if link is not None:
            link.subscribe(topic_filter)

    def receive(self, timeout_s: float) -> LinkEvent | None:
        """Return the next event, or None when none came in time."""
        if self._link is not None:
            return self._link.receive(timeout_s)
        self._closed.wait(timeout_s)
        return None

    def acknowledge(self, message: Message) -> None:
        """Tell the broker that *message* is in safe hands."""
        if self._link is not None:
            self._link.acknowledge(message)

    def close(self) -> None:
        """Stop trying and disconnect in order."""
        self._closed.set()
        with self._lock:
            link = self._link
        if link is not None:
            link.close()

    def _run(self) -> None:
        delay_s, faults = 0.0, 0
        while not self._closed.is_set():
            try:
                self._connect_once()
            except BrokerUnreachableError as exc:
                if not self._decided.is_set():
                    self._first_error = exc
                    _log.warning("%s; trying again in the background", exc)
            # The thread's outermost step: whatever else goes wrong must not leave the device alone for ever.
            except Exception:  # noqa: BLE001 - it is logged
                faults += 1
                if faults == 1:
                    _log.exception("connecting failed by a fault of the agent; trying again in the background")
            else:
                return
            self._decided.set()
            delay_s = self._delay(delay_s)
            self._closed.wait(delay_s)

    def _connect_once(self) -> None:
        link = self._connect()
        with self._lock:
            filters = list(self._filters)
            self._link = link
        try:
            for topic_filter in filters:
                link.subscribe(topic_filter)
        except Exception:
            with self._lock:
                self._link = None
            link.close()
            raise
        self._decided.set()
        if self._closed.is_set():
            link.close()
