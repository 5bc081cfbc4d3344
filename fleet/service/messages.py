"""Takes one message of a device: checks topic and content, and hands it to what it concerns.

Runs in the service's thread, inside its transactions.
"""

import logging
from dataclasses import replace

from hedgerow.errors import DecodeError
from hedgerow.fleet.registry import (
    ASK_REPORT,
    Device,
    contradicts,
    execution_refusal,
    is_doubtful,
    renumbered,
    report_refusal,
    reports_success,
    reset,
    revived,
    take_contact,
    take_presence,
    take_report,
)
from hedgerow.fleet.service.after_commit import AfterCommit
from hedgerow.fleet.service.doubts import Doubts
from hedgerow.fleet.service.events import DeviceChanged, DeviceForgotten, ReportRefused, UpdateArrived
from hedgerow.fleet.service.rollouts import RolloutDriver
from hedgerow.fleet.service.telemetry import TelemetryIntake
from hedgerow.fleet.settings import FleetSettings
from hedgerow.fleet.store.writing import Store
from hedgerow.link import Message
from hedgerow.wire.device import Presence, Reported
from hedgerow.wire.execution import Execution, ExecutionState
from hedgerow.wire.telemetry import Telemetry
from hedgerow.wire.topics import Channel, parse_topic
from hedgerow.wire.training import TrainUpdate

__all__ = ["HEARD", "MessageIntake"]

HEARD = (Channel.REPORTED, Channel.PRESENCE, Channel.EXECUTION, Channel.TELEMETRY, Channel.UPDATE)
"""The channels on which devices speak."""

_log = logging.getLogger(__name__)


class MessageIntake:
    """What happens to a message.

    Args:
        store: What is known.
        driver: Moves the rollouts on.
        telemetry: Takes windows.
        settings: The service's.

    Attributes:
        doubts: What was heard and not believed.
    """

    def __init__(
        self, store: Store, driver: RolloutDriver, telemetry: TelemetryIntake, settings: FleetSettings
    ) -> None:
        self._store, self._driver, self._telemetry, self._settings = store, driver, telemetry, settings
        self.doubts = Doubts(settings.nudge_s)
        self._is_full = False

    def reload(self) -> None:
        """Load from the store again on next use; call it when a transaction was rolled back."""
        self._driver.reload()
        self._telemetry.reload()

    def take(self, message: Message, then: AfterCommit, now: float) -> None:
        """Take a message; what is not ours, not understood or a repeat changes nothing."""
        place = parse_topic(message.topic)
        # Some brokers deliver outside the subscription.
        if place is None or place[0] != self._settings.fleet or place[2] not in HEARD:
            return
        _fleet, device, channel = place
        if channel is Channel.PRESENCE and not message.payload:
            return  # How MQTT deletes what is retained; it was the fleet itself that asked for it.
        try:
            match channel:
                case Channel.REPORTED:
                    self._reported(device, Reported.decode(message.payload), then, now)
                case Channel.PRESENCE:
                    self._presence(device, Presence.decode(message.payload), then, now, is_old=message.retained)
                case Channel.EXECUTION:
                    self._execution(device, Execution.decode(message.payload), then, now)
                    self._heard(device, then, now)
                case Channel.TELEMETRY:
                    self._window(device, Telemetry.decode(message.payload), then, now)
                    self._heard(device, then, now)
                case Channel.UPDATE:
                    then.events.append(UpdateArrived(device, TrainUpdate.decode(message.payload)))
                    self._heard(device, then, now)
                case _:
                    pass
        except DecodeError as exc:
            _log.warning("a message on %s was refused: %s", message.topic, exc)

    def reset(self, name: str, device: Device, then: AfterCommit) -> Device:
        """Believe nothing that a device said so far, and ask it anew."""
        fresh = reset(device)
        self.doubts.forget(name)
        self._store.save_device(fresh)
        desired = self._store.desired(name)
        if desired is not None:
            # Its next report says which number it takes. Said under 0, it also replaces what the broker keeps.
            desired = replace(desired, version=0)
            self._store.save_desired(name, desired)
        then.desired.append((name, desired or ASK_REPORT))
        then.events.append(DeviceChanged(fresh, device))
        return fresh

    def forget_device(self, device: Device, then: AfterCommit, now: float) -> None:
        """Keep nothing of a device, as if it had never been heard of.

        Raises:
            RolloutConflictError: What it ended with counts in a rollout that is not over.
        """
        self._driver.device_left(device.name, now, then)
        self._telemetry.forget_device(device.name)
        self._store.forget_device(device.name)
        self.doubts.forget(device.name)
        then.forgotten.append(device.name)
        then.events.append(DeviceForgotten(device))

    def _presence(self, name: str, message: Presence, then: AfterCommit, now: float, *, is_old: bool) -> None:
        before = self._store.device(name)
        if before is None and not self._has_room(name):
            return
        known = before or Device(name=name)
        if is_doubtful(known, message, is_old=is_old):
            then.doubted.append(name)
        after = take_presence(known, message, now, is_old=is_old)
        if after is not None:
            self._store.save_device(after)
            then.events.append(DeviceChanged(after, before))
            if before is not None and before.online and after.boot != before.boot:
                self._ask(name, then, now)
        elif before is not None and message.online and message.boot in before.past_boots:
            self._ask(name, then, now)

    def _heard(self, name: str, then: AfterCommit, now: float) -> None:
        """Note that a device spoke; of one that counts as gone, only a report says that it is back."""
        device = self._store.device(name)
        if device is None:
            return
        if not device.online:
            then.doubted.append(name)
        after = take_contact(device, now)
        if after is not None:
            self._store.save_device(after)

    def _reported(self, name: str, message: Reported, then: AfterCommit, now: float) -> None:
        before = self._store.device(name)
        if before is None and not self._has_room(name):
            return
        known, desired = before or Device(name=name), self._store.desired(name)
        reason = report_refusal(known, desired, message)
        if reason is not None:
            if self.doubts.refuse(name, reason, now):
                then.events.append(ReportRefused(name, reason))
                # A device that never said so says now what it is.
                self._ask(name, then, now)
            return
        after = take_report(known, message, now)
        if after is None and contradicts(known, message):
            word = self.doubts.hear(name, message.boot, message.sequence)
            if word == "proof":
                after = take_report(revived(known, message.boot), message, now)
            elif word == "doubt":
                then.desired.append((name, ASK_REPORT))
        if after is None:
            return
        self.doubts.settle(name)
        if known.online and known.boot not in {"", after.boot}:
            # Its last start was not seen to end: who is there?
            self._ask(name, then, now)
        self._store.save_device(after)
        then.events.append(DeviceChanged(after, before))
        if before is None or (before.target is None and desired is None):
            self._driver.device_joined(after, now, then)
        desired = self._store.desired(name)
        if desired is None or any(device == name and said != ASK_REPORT for device, said in then.desired):
            return
        risen = renumbered(after, desired)
        if risen is not None:
            self._store.save_desired(name, risen)
            then.desired.append((name, risen))
        elif after.desired_version < desired.version:
            then.desired.append((name, desired))
        elif reports_success(after, desired) and desired.rollout is not None:
            # Its own message says so first, as a rule; this is for the one that was lost.
            quiet = self._driver.quiet_for(desired.rollout, name, now)
            if quiet is not None and quiet >= self._settings.nudge_s:
                success = Execution(
                    rollout=desired.rollout, attempt=desired.attempt, state=ExecutionState.SUCCEEDED, step="reported"
                )
                self._driver.device_reported(name, success, now, then)
        elif after.release != desired.release:
            self._driver.runs_another(after, known.release, desired, now, then)

    def _execution(self, name: str, message: Execution, then: AfterCommit, now: float) -> None:
        device = self._store.device(name)
        reason = execution_refusal(device, self._store.desired(name), message)
        if reason is None:
            self._driver.device_reported(name, message, now, then)
        elif device is not None and message.rollout in self._driver.unfinished:
            _log.info("%s of %s in %s does not count: %s", message.state, name, message.rollout, reason)
            self._ask(name, then, now)

    def _window(self, name: str, message: Telemetry, then: AfterCommit, now: float) -> None:
        device = self._store.device(name)
        if device is None:
            return
        if device.target is None:
            # Its counts can be added to nothing before it has said what it is.
            self._ask(name, then, now)
            return
        is_its_own = device.online and message.boot in {device.boot, *device.past_boots}
        if not is_its_own or message.boot != device.boot:
            self._ask(name, then, now)
        unfinished = self._driver.unfinished if is_its_own else {}
        rollout = self._telemetry.take(device, message, unfinished, now, then)
        if rollout is not None:
            self._driver.judge(rollout, now, then)

    def _ask(self, name: str, then: AfterCommit, now: float) -> None:
        """Let a device say what it is: it answers what it has seen, and everybody has seen version 0."""
        if self.doubts.may_ask(name, now):
            then.desired.append((name, ASK_REPORT))

    def _has_room(self, name: str) -> bool:
        if self._store.count_devices() < self._settings.device_limit:
            return True
        if not self._is_full:
            _log.error("%s is not taken in: there are %d devices, the limit", name, self._settings.device_limit)
        self._is_full = True
        return False
