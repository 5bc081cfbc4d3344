"""A scripted device on a link: for tests and for simulations of fleets too large for processes.

It speaks the wire protocol as the agent does and holds no model: an installation succeeds or fails by script, and
windows are made from counts that are handed in.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from hedgerow.errors import DecodeError
from hedgerow.link import Connected, Link, Message
from hedgerow.window import Window
from hedgerow.wire.device import VERSION_JUMP, Desired, Presence, Reported
from hedgerow.wire.execution import Execution, ExecutionState
from hedgerow.wire.telemetry import Telemetry
from hedgerow.wire.topics import Channel, device_topic, parse_topic
from hedgerow.wire.training import TrainTask, TrainUpdate

__all__ = ["Installation", "TrainScript", "VirtualDevice", "installs"]


@dataclass(frozen=True, slots=True)
class Installation:
    """How the script lets an attempt to install end.

    Attributes:
        state: SUCCEEDED, FAILED or REJECTED; IN_PROGRESS is a device that never gets done.
        reason: Why it failed.
    """

    state: ExecutionState = ExecutionState.SUCCEEDED
    reason: str = ""


def installs(_desired: Desired) -> Installation:
    """Succeed always."""
    return Installation()


TrainScript = Callable[[TrainTask], TrainUpdate]


class VirtualDevice:
    """One device.

    Args:
        name: Its name.
        target: Its hardware target.
        link: To the broker; see :func:`hedgerow.memory_link.MemoryBroker.connect`.
        fleet: Name of the fleet.
        boot: Identity of this start.
        release: What it runs from the beginning.
        install: The script of installations.
        train: The script of training rounds; None: it declines.

    Attributes:
        release, previous: The two slots.
        desired_version: The last desired version that it acted on.
        installations: Every desired state that it acted on, in order.
        link: To the broker.
        sequence: Of the next report: how many it has made.
        last_execution: How its last installation ended, which it says again with each report; None: it does not.
    """

    def __init__(
        self,
        name: str,
        target: str,
        link: Link,
        *,
        fleet: str = "fleet",
        boot: str = "boot-1",
        release: str | None = None,
        install: Callable[[Desired], Installation] = installs,
        train: TrainScript | None = None,
    ) -> None:
        self.name, self.target, self.fleet, self.boot = name, target, fleet, boot
        self.release: str | None = release
        self.previous: str | None = None
        self.install, self.train = install, train
        self.desired_version = 0
        self.installations: list[Desired] = []
        self.link = link
        self.sequence = self._telemetry_sequence = self._window_index = 0
        self.last_execution: Execution | None = None
        for channel in (Channel.DESIRED, Channel.TRAIN):
            link.subscribe(device_topic(fleet, name, channel))

    def connect(self) -> None:
        """Say that it is there and what it is."""
        self.publish(Channel.PRESENCE, Presence(online=True, boot=self.boot), retain=True)
        self.report()

    def report(self) -> None:
        """Say what it is, and again how its last installation ended."""
        self.publish(
            Channel.REPORTED,
            Reported(
                boot=self.boot,
                sequence=self.sequence,
                desired_version=self.desired_version,
                release=self.release,
                previous=self.previous,
                target=self.target,
                agent_version="virtual",
                runtimes=("virtual",),
            ),
        )
        self.sequence += 1
        if self.last_execution is not None:
            self.publish(Channel.EXECUTION, self.last_execution)

    def turn(self) -> int:
        """Take everything that has arrived; return how many events that were."""
        taken = 0
        while (event := self.link.receive(0.0)) is not None:
            taken += 1
            if isinstance(event, Connected):
                self.connect()
            elif isinstance(event, Message):
                self._take(event)
                self.link.acknowledge(event)
        return taken

    def send_window(self, window: Window) -> Telemetry:
        """Send a window under the next sequence number; return the message, so that it can be sent again."""
        message = Telemetry(
            boot=self.boot,
            sequence=self._telemetry_sequence,
            window=replace(window, index=self._window_index),
        )
        self._telemetry_sequence += 1
        self._window_index += 1
        self.send_again(message)
        return message

    def send_again(self, message: Telemetry) -> None:
        """Send a window, first or again."""
        self.publish(Channel.TELEMETRY, message)

    def _take(self, message: Message) -> None:
        place = parse_topic(message.topic)
        if place is None or place[:2] != (self.fleet, self.name):
            return
        try:
            if place[2] is Channel.DESIRED:
                self._desired(Desired.decode(message.payload))
            elif place[2] is Channel.TRAIN:
                self._train(TrainTask.decode(message.payload))
        except DecodeError:
            return

    def _desired(self, desired: Desired) -> None:
        if desired.version <= self.desired_version or desired.version > self.desired_version + VERSION_JUMP:
            # Said again, so the fleet has not heard; or a jump that is refused, so that it hears where to go on.
            self.report()
            return
        self.desired_version = desired.version
        self.installations.append(desired)
        self.last_execution = None
        result = self.install(desired)
        if result.state is ExecutionState.SUCCEEDED and desired.release != self.release:
            self.previous, self.release = self.release, desired.release
        if desired.rollout is not None:
            running = Execution(
                rollout=desired.rollout, attempt=desired.attempt, state=ExecutionState.IN_PROGRESS, step="download"
            )
            self.publish(Channel.EXECUTION, running)
            self.last_execution = replace(running, state=result.state, step="commit", reason=result.reason)
        self.report()

    def _train(self, task: TrainTask) -> None:
        if self.train is not None:
            answer = self.train(task)
        else:
            answer = TrainUpdate(run=task.run, round=task.round, state="declined", reason="it never trains")
        self.publish(Channel.UPDATE, answer)

    def publish(
        self,
        channel: Channel,
        message: Presence | Reported | Execution | Telemetry | TrainUpdate,
        *,
        retain: bool = False,
    ) -> None:
        """Send a message of its own on a channel."""
        self.link.publish(device_topic(self.fleet, self.name, channel), message.encode(), retain=retain)
