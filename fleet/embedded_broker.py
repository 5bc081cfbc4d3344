"""The broker in this process: amqtt, with its flaws mended as far as the fleet meets them.

amqtt 0.11.4 keeps no session of a client that went away, drops what is not acknowledged within 5 s, and may deliver
retained messages twice; the wire protocol is made for that. It is for development on one machine.
"""

import asyncio
import errno
import logging
import threading
import warnings
from concurrent.futures import Future
from importlib.metadata import version
from typing import Any

from hedgerow.errors import ExtraNotInstalledError, PortInUseError
from hedgerow.fleet.errors import BrokerStartError

__all__ = ["EmbeddedBroker"]

_log = logging.getLogger(__name__)
_START_TIMEOUT_S, _STOP_TIMEOUT_S = 10.0, 2.0
_SESSION_EXPIRY_S = 3600


class EmbeddedBroker:
    """amqtt in a thread with an event loop of its own; it runs when this returns.

    Args:
        host: A loopback address.
        port: Where to listen.

    Raises:
        ExtraNotInstalledError: amqtt is not installed.
        PortInUseError: Another program listens on the port.
        BrokerStartError: It did not start.
    """

    def __init__(self, host: str, port: int) -> None:
        try:
            self.name = f"amqtt {version('amqtt')}"
            self._make = _amqtt_factory(host, port)
        except ModuleNotFoundError as exc:
            raise ExtraNotInstalledError("a broker without mosquitto", "fleet", exc.name) from exc
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(_note)
        self._stopping = asyncio.Event()
        self._started: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, name="amqtt", daemon=True)
        self._thread.start()
        try:
            failure = self._started.exception(_START_TIMEOUT_S)
        except TimeoutError as exc:
            failure = exc
        if failure is not None:
            self.stop()
            cause = failure.__cause__
            if isinstance(cause, OSError) and cause.errno == errno.EADDRINUSE:
                raise PortInUseError("amqtt", host, port) from failure
            raise BrokerStartError(self.name, str(failure) or "no answer in time", "try again") from failure

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._serve())
        except Exception as exc:  # noqa: BLE001 - the thread's outermost loop
            if self._started.done():
                _log.exception("amqtt ended")
            else:
                self._started.set_exception(exc)
        finally:
            _cancel_all(self._loop)
            self._loop.close()

    async def _serve(self) -> None:
        broker = self._make(self._loop)
        await broker.start()
        self._started.set_result(None)
        await self._stopping.wait()
        await asyncio.wait({asyncio.ensure_future(broker.end())}, timeout=_STOP_TIMEOUT_S / 2)

    @property
    def is_running(self) -> bool:
        """Whether it runs."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """Stop it, within 2 s; repeats are harmless."""
        if self._thread.is_alive():
            try:
                self._loop.call_soon_threadsafe(self._stopping.set)
            except RuntimeError:  # closed between the two lines
                return
            self._thread.join(_STOP_TIMEOUT_S)


def _note(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Keep amqtt's lost tasks (no acknowledgement within 5 s, broken connections) out of our log."""
    _log.debug("amqtt: %s", context.get("message"), exc_info=context.get("exception"))


def _cancel_all(loop: asyncio.AbstractEventLoop) -> None:
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    if tasks:
        loop.run_until_complete(asyncio.wait(tasks, timeout=0.5))
    # Transports that were closed let go of their sockets one turn later.
    loop.run_until_complete(asyncio.sleep(0))


def _amqtt_factory(host: str, port: int) -> Any:
    for chatty in ("amqtt", "transitions"):
        # It logs every port probe and every client that leaves as an error.
        logging.getLogger(chatty).setLevel(logging.CRITICAL)
    with warnings.catch_warnings():
        # passlib 1.7.4, which amqtt's password plug-in imports, still imports crypt.
        warnings.simplefilter("ignore", DeprecationWarning)
        import amqtt.plugins.authentication
        from amqtt.broker import Broker
    config = {
        # An IPv6 address without brackets: it would keep them as part of the address.
        "listeners": {"default": {"type": "tcp", "bind": f"{host}:{port}"}},
        "session_expiry_interval": _SESSION_EXPIRY_S,
        "plugins": {f"{amqtt.plugins.authentication.__name__}.AnonymousAuthPlugin": {"allow_anonymous": True}},
    }

    class MendedBroker(Broker):  # type: ignore[misc]
        """amqtt 0.11.4 without what hurts clients that connect while others do, and without its lost sockets.

        For every new connection it goes through the subscriptions of *all* clients and sends the retained messages of
        each. That hands out what was not asked for, and it waits in between, so that a subscription made meanwhile ends
        the handling of the connection ("dictionary changed size during iteration", seen with 20 clients).
        """

        async def stream_connected(self, reader: Any, writer: Any, listener_name: str) -> None:
            try:
                await super().stream_connected(reader, writer, listener_name)
            finally:
                writer.close()

        async def end(self) -> None:
            """Shut down without letting anybody in again, or waiting for acknowledgements that may never come."""
            for server in self._servers.values():
                server.instance.close()
            for sending in self._tasks_queue:
                sending.cancel()
            self._tasks_queue.clear()
            await self.shutdown()

        async def _publish_retained_messages_for_subscription(self, subscription: Any, session: Any) -> None:
            topic_filter, qos = subscription
            if all(other.client_id != session.client_id for other, _ in self._subscriptions.get(topic_filter, ())):
                return
            handler = self._get_handler(session)
            for topic, retained in list(self._retained_messages.items()):
                if handler is not None and self._matches(topic, topic_filter):
                    send = handler.mqtt_publish(topic, retained.data, min(qos, retained.qos or qos), retain=True)
                    # Not awaited: it would wait for the client's acknowledgement.
                    self._tasks_queue.append(asyncio.ensure_future(send))

    def make(loop: asyncio.AbstractEventLoop) -> Any:
        return MendedBroker(config, loop=loop)

    return make
