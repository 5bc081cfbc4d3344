"""An MQTT broker for development and the demo: mosquitto when it is installed, else the embedded one, iotcore.

Both listen on a loopback address only and let anybody in, which is right for one machine and nothing else; real fleets
run mosquitto with TLS and an ACL. Neither keeps anything on disk.
"""

import errno
import ipaddress
import os
import pwd
import re
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Self

from hedgerow.closing import Running
from hedgerow.errors import PortInUseError, UnknownNameError
from hedgerow.fleet.brokers.embedded import embedded_program
from hedgerow.fleet.brokers.embedded_process import MAX_PACKET_BYTES
from hedgerow.fleet.brokers.program import BrokerProgram, RunningBroker
from hedgerow.fleet.errors import BrokerEndedError, BrokerStartError

__all__ = ["BROKERS", "DevelopmentBroker", "find_mosquitto", "mosquitto_config"]

BROKERS = ("auto", "iotcore", "mosquitto")
_ATTEMPTS = 5
_MAX_QUEUED_MESSAGES = 1000
_SESSION_EXPIRY = "1h"


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
            f"max_packet_size {MAX_PACKET_BYTES}",
            f"persistent_client_expiration {_SESSION_EXPIRY}",
            "set_tcp_nodelay true",
            "log_dest stderr",
            "log_type error",
            "log_type warning",
            f"user {user}",
            "",
        )
    )


class DevelopmentBroker(Running):
    """A broker that lives as long as its ``with`` block.

    Args:
        host: A loopback address.
        port: Where to listen; 0: any free port.
        choose: ``mosquitto``, ``iotcore``, or ``auto``: the first of them that is installed.

    Attributes:
        name: Which one runs, such as ``mosquitto 2.0.11``.
        host, port: Where it listens.
    """

    def __init__(self, host: str = "127.0.0.1", port: int = 0, *, choose: str = "auto") -> None:
        if choose not in BROKERS:
            raise UnknownNameError("broker", choose, BROKERS)
        self.host, self.port, self.name = host, port, ""
        self._choose = choose
        self._broker: RunningBroker | None = None

    def start(self) -> Self:
        """Start it and wait until it accepts connections.

        Raises:
            PortInUseError: Another program listens on the port.
            BrokerStartError: The address is not loopback, mosquitto is not installed although chosen, or the broker
                ended at once.
            ExtraNotInstalledError: iotcore is needed and not installed.
        """
        if not _is_loopback(self.host):
            advice = "use 127.0.0.1, or run mosquitto with TLS and an ACL"
            raise BrokerStartError("for development", f"the address {self.host}, which other machines reach", advice)
        mosquitto = find_mosquitto() if self._choose != "iotcore" else None
        if self._choose == "mosquitto" and mosquitto is None:
            raise BrokerStartError("mosquitto", "that it is not installed", "run: apt-get install mosquitto")
        for attempt in range(_ATTEMPTS):
            port = _free_port(self.host, self.port)
            try:
                program = (
                    _mosquitto_program(mosquitto, self.host, port) if mosquitto else embedded_program(self.host, port)
                )
                self._broker = RunningBroker(program, self.host, port)
            except PortInUseError:
                # Only a port that we chose can be chosen again: somebody was quicker.
                if self.port or attempt == _ATTEMPTS - 1:
                    raise
            else:
                self.port, self.name = port, self._broker.name
                break
        return self

    @property
    def is_running(self) -> bool:
        """Whether it runs; a broker that crashed does not come back by itself."""
        return self._broker is not None and self._broker.is_running

    def check(self) -> None:
        """Return if it runs.

        Raises:
            BrokerEndedError: It ended by itself.
        """
        if not self.is_running:
            raise BrokerEndedError(self.name, self.host, self.port)

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


def _mosquitto_program(program: Path, host: str, port: int) -> BrokerProgram:
    config = mosquitto_config(host, port, pwd.getpwuid(os.geteuid()).pw_name)
    name = f"mosquitto {_mosquitto_version(program)}"
    return BrokerProgram(name, (str(program), "-c", "{config}"), config, advice="choose iotcore")


def _mosquitto_version(program: Path) -> str:
    said = subprocess.run([program, "-h"], capture_output=True, text=True, timeout=5, check=False).stdout
    found = re.search(r"mosquitto version (\S+)", said)
    return found.group(1) if found else "of unknown version"
