"""The broker that comes with the extra ``fleet``: iotcore 0.4, which is rumqttd compiled into a wheel.

It is for development on one machine. What it does otherwise than mosquitto is in ADR 0009.
"""

import sys
from importlib.metadata import PackageNotFoundError, version

from hedgerow.errors import ExtraNotInstalledError
from hedgerow.fleet.brokers import embedded_process
from hedgerow.fleet.brokers.program import BrokerProgram

__all__ = ["embedded_program"]


def embedded_program(host: str, port: int) -> BrokerProgram:
    """Return how it is run.

    Raises:
        ExtraNotInstalledError: iotcore is not installed.
    """
    try:
        name = f"iotcore {version('iotcore')}"
    except PackageNotFoundError as exc:
        raise ExtraNotInstalledError("a broker where mosquitto is not installed", "fleet", "iotcore") from exc
    command = (sys.executable, "-P", embedded_process.__file__, host, str(port))
    return BrokerProgram(name, command, advice="install mosquitto (Debian: apt-get install mosquitto)")
