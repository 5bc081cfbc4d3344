"""Takes one message of a device: checks topic and content, and hands it to what it concerns.

Runs in the service's thread, inside its transactions.
"""

import logging
from dataclasses import replace

from hedgerow.errors import DecodeError
from hedgerow.fleet.consequences import Consequences
from hedgerow.fleet.events import DeviceChanged, UpdateArrived
from hedgerow.fleet.registry import (
    Device,
    is_doubtful,
    next_desired,
    reports_success,
    take_contact,
    take_presence,
    take_report,
)
from hedgerow.fleet.rollout_driver import RolloutDriver
from hedgerow.fleet.settings import FleetSettings
from hedgerow.fleet.store import Store
from hedgerow.fleet.telemetry_intake import TelemetryIntake
from hedgerow.link import Message
from hedgerow.wire import Channel, Execution, ExecutionState, Presence, Reported, Telemetry, TrainUpdate, parse_topic

__all__ = ["HEARD", "MessageIntake"]

HEARD = (Channel.REPORTED, Channel.PRESENCE, Channel.EXECUTION, Channel.TELEMETRY, Channel.UPDATE)
"""The channels on which devices speak."""

_log = logging.getLogger(__name__)


class MessageIntake:
    """What happens to a message.

    Args:
        store: What is known.
        driver: Of rollouts.
        telemetry: Takes windows.
        settings: Of the service.
    """

    def __init__(
        self, store: Store, driver: RolloutDriver, telemetry: TelemetryIntake, settings: FleetSettings
    ) -> None:
        self._store, self._driver, self._telemetry, self._settings = store, driver, telemetry, settings

    def forget(self) -> None:
        """Load from the store again on next use; call it when a transaction was rolled back."""
        self._driver.forget()
        self._telemetry.forget()

    def take(self, message: Message, then: Consequences, now: float) -> None:
        """Take a message; what is not ours, not understood or a repeat changes nothing."""
        place = parse_topic(message.topic)
        # Some brokers deliver outside the subscription.
        if place is None or place[0] != self._settings.fleet or place[2] not in HEARD:
            return
        _fleet, device, channel = place
        try:
            match channel:
                case Channel.REPORTED:
                    self._reported(device, Reported.decode(message.payload), then, now)
                case Channel.PRESENCE:
                    self._presence(device, Presence.decode(message.payload), then, now, is_old=message.retained)
                case Channel.EXECUTION:
                    self._driver.device_reported(device, Execution.decode(message.payload), now, then)
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

    def _presence(self, name: str, message: Presence, then: Consequences, now: float, *, is_old: bool) -> None:
        before = self._store.device(name)
        known = before or Device(name=name)
        if is_doubtful(known, message, is_old=is_old):
            then.doubted.append(name)
        after = take_presence(known, message, now, is_old=is_old)
        if after is not None:
            self._store.save_device(after)
            then.events.append(DeviceChanged(after, before))

    def _heard(self, name: str, then: Consequences, now: float) -> None:
        """Note that a device spoke; of one that counts as gone, only a report says that it is back."""
        device = self._store.device(name)
        if device is None:
            return
        if not device.online:
            then.doubted.append(name)
        after = take_contact(device, now)
        if after is not None:
            self._store.save_device(after)

    def _reported(self, name: str, message: Reported, then: Consequences, now: float) -> None:
        before = self._store.device(name)
        after = take_report(before or Device(name=name), message, now)
        if after is None:
            return
        self._store.save_device(after)
        then.events.append(DeviceChanged(after, before))
        if before is None or before.target is None:
            self._driver.device_joined(after, now, then)
        desired = self._store.desired(name)
        if desired is None or any(device == name for device, _desired in then.desired):
            return
        if after.desired_version > desired.version:
            # The store was restored from a backup; versions must go on rising above what the device has seen.
            risen = replace(desired, version=next_desired(after, desired, desired.release).version)
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

    def _window(self, name: str, message: Telemetry, then: Consequences, now: float) -> None:
        device = self._store.device(name) or Device(name=name)
        rollout = self._telemetry.take(device, message, self._driver.unfinished, now, then)
        if rollout is not None:
            self._driver.judge(rollout, now, then)
