"""A broker as a child process: started, known to answer, stopped, and gone when we are, without a file left."""

import socket
import time
from dataclasses import dataclass

from hedgerow.children.programs import Programs
from hedgerow.errors import PortInUseError
from hedgerow.fleet.errors import BrokerStartError
from hedgerow.scratch_folder import ScratchFolder

__all__ = ["BrokerProgram", "RunningBroker"]

_START_TIMEOUT_S = 10.0
_ANSWER_TIMEOUT_S = 1.0
_STOP_TIMEOUT_S = 2.0
_PORT_IN_USE = "Address already in use"
# MQTT 3.1.1, sections 3.1, 3.2 and 3.14: a clean session called "ready?", 60 s of keepalive.
_CONNECT = b"\x10\x12\x00\x04MQTT\x04\x02\x00\x3c\x00\x06ready?"
_CONNACK, _DISCONNECT = b"\x20\x02\x00\x00", b"\xe0\x00"


@dataclass(frozen=True, slots=True)
class BrokerProgram:
    """How a broker is run.

    Attributes:
        name: Which one, such as ``mosquitto 2.0.11``.
        command: Program and arguments. ``{config}`` in one stands for the path of a file with *config*.
        config: What it reads when it starts; empty: nothing.
        advice: What to do when it does not start.
    """

    name: str
    command: tuple[str, ...]
    config: str = ""
    advice: str = "try again"


class RunningBroker:
    """A broker that answers when this returns.

    Args:
        program: How it is run.
        host, port: Where it then listens.

    Raises:
        PortInUseError: Another program listens on the port.
        BrokerStartError: It ended at once, or does not answer.
    """

    def __init__(self, program: BrokerProgram, host: str, port: int) -> None:
        self.name = program.name
        self._programs = Programs(stop_timeout_s=_STOP_TIMEOUT_S / 2)
        try:
            # The folder goes as soon as the broker answers, so that even a killed parent leaves no file.
            with ScratchFolder() as folder:
                config, log = folder.path / "broker.conf", folder.path / "broker.log"
                config.write_text(program.config, encoding="utf-8")
                command = [part.replace("{config}", str(config)) for part in program.command]
                self._programs.start(command, log, "broker")
                self._wait(program, host, port)
        except BaseException:
            self.stop()
            raise

    def _wait(self, program: BrokerProgram, host: str, port: int) -> None:
        deadline = time.monotonic() + _START_TIMEOUT_S
        answered = False
        # Once more after the answer: it may be that of somebody else's broker, on which ours has just failed.
        while not answered:
            answered = _answers(host, port)
            ended = self._programs.first_ended()
            if ended is not None:
                said = " | ".join(ended.last_lines)
                if _PORT_IN_USE in said:
                    raise PortInUseError(self.name, host, port)
                raise BrokerStartError(self.name, said or f"exit code {ended.code}", program.advice)
            if not answered and time.monotonic() > deadline:
                raise BrokerStartError(self.name, f"no answer within {_START_TIMEOUT_S:g} s", program.advice)
            time.sleep(0 if answered else 0.01)

    @property
    def is_running(self) -> bool:
        """Whether it runs."""
        return self._programs.first_ended() is None

    def stop(self) -> None:
        """Stop it, within 2 s; repeats are harmless."""
        self._programs.stop()


def _answers(host: str, port: int) -> bool:
    """Return whether a broker there lets a client in."""
    try:
        with socket.create_connection((host, port), timeout=_ANSWER_TIMEOUT_S) as connection:
            connection.sendall(_CONNECT)
            answer = b""
            while len(answer) < len(_CONNACK) and (more := connection.recv(len(_CONNACK) - len(answer))):
                answer += more
            if answer == _CONNACK:
                connection.sendall(_DISCONNECT)
    except OSError:
        return False
    return answer == _CONNACK
