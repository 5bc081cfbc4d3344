"""An MQTT broker for development and the demo: mosquitto when it is installed, else amqtt in this process.

Both listen on a loopback address only and let anybody in, which is right for one machine and nothing else; real fleets
run mosquitto with TLS and an ACL. Neither keeps anything on disk. What we rely on is little (docs/wire.md): amqtt
0.11.4 keeps no session of a client that went away, drops what is not acknowledged within 5 s, and may deliver retained
messages twice.
"""

import asyncio
import errno
import ipaddress
import logging
import os
import pwd
import re
import shutil
import socket
import subprocess
import tempfile
import threading
import time
import warnings
from concurrent.futures import Future
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from hedgerow.errors import ExtraNotInstalledError, PortInUseError, UnknownNameError
from hedgerow.fleet.errors import BrokerStartError, ChildDiedError
from hedgerow.fleet.processes import ChildProcesses, last_lines

__all__ = ["BROKERS", "DevelopmentBroker", "find_mosquitto", "mosquitto_config"]

_log = logging.getLogger(__name__)
BROKERS = ("amqtt", "auto", "mosquitto")
_START_TIMEOUT_S = 10.0
_STOP_TIMEOUT_S = 2.0
_ATTEMPTS = 5
_MAX_PACKET_BYTES = 1024 * 1024
_MAX_QUEUED_MESSAGES = 1000
_SESSION_EXPIRY = "1h"
_SESSION_EXPIRY_S = 3600


def find_mosquitto() -> Path | None:
    """Return where mosquitto is; Debian puts it where only root's PATH looks."""
    found = shutil.which(
        "mosquitto", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin"])
    )
    return Path(found) if found else None


def mosquitto_config(host: str, port: int, user: str) -> str:
    """Return a configuration for one loopback listener; the settings are those of mosquitto.conf(5).

    Args:
        host: A loopback address.
        port: Where to listen.
        user: Who runs it. Mosquitto started by root changes its user otherwise, and the kernel then forgets to end it
            with us.
    """
    return "\n".join(
        (
            f"listener {port} {host}",
            "allow_anonymous true",
            "persistence false",
            f"max_queued_messages {_MAX_QUEUED_MESSAGES}",
            f"max_packet_size {_MAX_PACKET_BYTES}",
            f"persistent_client_expiration {_SESSION_EXPIRY}",
            "set_tcp_nodelay true",
            "log_dest stderr",
            "log_type error",
            "log_type warning",
            f"user {user}",
            "",
        )
    )


class _Broker(Protocol):
    name: str

    @property
    def is_running(self) -> bool: ...

    def stop(self) -> None: ...


class DevelopmentBroker:
    """A broker that lives as long as its ``with`` block.

    Args:
        host: A loopback address.
        port: Where to listen; 0: any free port.
        choose: ``mosquitto``, ``amqtt``, or ``auto``: the first of them that is installed.

    Attributes:
        name: Which one runs, such as ``mosquitto 2.0.11``.
        host, port: Where it listens.
    """

    def __init__(self, host: str = "127.0.0.1", port: int = 0, *, choose: str = "auto") -> None:
        if choose not in BROKERS:
            raise UnknownNameError("broker", choose, BROKERS)
        self.host, self.port, self.name = host, port, ""
        self._choose = choose
        self._broker: _Broker | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start it and wait until it accepts connections.

        Raises:
            PortInUseError: Another program listens on the port.
            BrokerStartError: The address is not loopback, mosquitto is not installed although chosen, or the broker
                ended at once.
            ExtraNotInstalledError: amqtt is needed and not installed.
        """
        if not _is_loopback(self.host):
            advice = "use 127.0.0.1, or run mosquitto with TLS and an ACL"
            raise BrokerStartError(self._choose, f"the address {self.host}, which other machines reach", advice)
        mosquitto = find_mosquitto() if self._choose != "amqtt" else None
        if self._choose == "mosquitto" and mosquitto is None:
            raise BrokerStartError("mosquitto", "that it is not installed", "run: apt-get install mosquitto")
        for attempt in range(_ATTEMPTS):
            port = _free_port(self.host, self.port)
            try:
                self._broker = _Mosquitto(mosquitto, self.host, port) if mosquitto else _Amqtt(self.host, port)
            except PortInUseError:
                # Only a port that we chose can be chosen again: somebody was quicker.
                if self.port or attempt == _ATTEMPTS - 1:
                    raise
            else:
                self.port, self.name = port, self._broker.name
                return

    @property
    def is_running(self) -> bool:
        """Whether it runs; a broker that crashed does not come back by itself."""
        return self._broker is not None and self._broker.is_running

    def stop(self) -> None:
        """Stop it, within 2 s; repeats are harmless."""
        if self._broker is not None:
            self._broker.stop()
            self._broker = None


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _free_port(host: str, port: int) -> int:
    """Return *port* if nobody listens there; 0 stands for any."""
    with socket.socket(_family(host), socket.SOCK_STREAM) as probe:
        # As the brokers do: connections of one before that linger must not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as exc:
            if exc.errno == errno.EADDRINUSE:
                raise PortInUseError("the broker", host, port) from None
            raise BrokerStartError("for development", str(exc), f"choose another address than {host}:{port}") from exc
        return int(probe.getsockname()[1])


def _accepts(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=0.5):
            return True
    except OSError:
        return False


class _Mosquitto:
    """Mosquitto as a child process."""

    def __init__(self, program: Path, host: str, port: int) -> None:
        self.name = f"mosquitto {_mosquitto_version(program)}"
        self._folder = tempfile.TemporaryDirectory(prefix="hedgerow-broker-")
        self._processes = ChildProcesses(stop_timeout_s=_STOP_TIMEOUT_S / 2)
        config, self._log = Path(self._folder.name) / "mosquitto.conf", Path(self._folder.name) / "mosquitto.log"
        try:
            config.write_text(mosquitto_config(host, port, pwd.getpwuid(os.geteuid()).pw_name), encoding="utf-8")
            self._processes.start([str(program), "-c", str(config)], self._log, "mosquitto")
            self._wait(host, port)
        except BaseException:
            self.stop()
            raise

    def _wait(self, host: str, port: int) -> None:
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not _accepts(host, port):
            self._check(host, port)
            if time.monotonic() > deadline:
                raise BrokerStartError(self.name, f"no answer within {_START_TIMEOUT_S:g} s", "try again")
            time.sleep(0.01)
        # What accepted may be somebody else's broker, on which ours has just failed.
        self._check(host, port)

    def _check(self, host: str, port: int) -> None:
        try:
            self._processes.check()
        except ChildDiedError as exc:
            said = " | ".join(last_lines(self._log))
            if "Address already in use" in said:
                raise PortInUseError("mosquitto", host, port) from exc
            raise BrokerStartError(self.name, said or f"exit code {exc.exit_code}", "choose amqtt") from exc

    @property
    def is_running(self) -> bool:
        try:
            self._processes.check()
        except ChildDiedError:
            return False
        return True

    def stop(self) -> None:
        self._processes.stop()
        self._folder.cleanup()


def _mosquitto_version(program: Path) -> str:
    said = subprocess.run([program, "-h"], capture_output=True, text=True, timeout=5, check=False).stdout
    found = re.search(r"mosquitto version (\S+)", said)
    return found.group(1) if found else "of unknown version"


class _Amqtt:
    """amqtt in a thread with an event loop of its own."""

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
        return self._thread.is_alive()

    def stop(self) -> None:
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
