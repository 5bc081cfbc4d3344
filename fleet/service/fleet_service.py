"""The fleet service: what other threads may see of the fleet and ask of it.

One thread owns all writes (writer.py); what is asked here becomes a command to it, what is seen is read from the last
committed state.
"""

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from hedgerow.closing import Running
from hedgerow.decode import encode_json
from hedgerow.fleet.drift.alert import Alert
from hedgerow.fleet.errors import RolloutConflictError, UnknownDeviceError, UnknownRolloutError
from hedgerow.fleet.records import AuditEntry, StoredWindow, TrainingRun
from hedgerow.fleet.registry import Device
from hedgerow.fleet.rollout.events import Approved, Canceled, Paused, Resumed, RolloutEvent
from hedgerow.fleet.rollout.plan import RolloutPlan
from hedgerow.fleet.rollout.state import Rollout
from hedgerow.fleet.service.after_commit import AfterCommit
from hedgerow.fleet.service.commands import Command
from hedgerow.fleet.service.doubts import RefusedReport
from hedgerow.fleet.service.events import AlertChanged, FleetEvent
from hedgerow.fleet.service.messages import HEARD, MessageIntake
from hedgerow.fleet.service.rollouts import RolloutDriver
from hedgerow.fleet.service.telemetry import TelemetryIntake
from hedgerow.fleet.service.writer import COMMAND_TIMEOUT_S, Writer
from hedgerow.fleet.settings import FleetSettings
from hedgerow.fleet.store.writing import Store
from hedgerow.fleet.trust.catalogue import Catalogue
from hedgerow.link import Link
from hedgerow.wire.device import Desired
from hedgerow.wire.topics import Channel, device_topic, fleet_filter

__all__ = ["FleetService"]


class FleetService(Running):
    """Keeps the registry, drives rollouts, watches for drift.

    Every public method may be called from any thread, but not from a subscriber's callback where it changes something:
    the callback runs in the service's thread.

    A method that changes something waits for the service's thread, and may raise ServiceStoppedError,
    CommandNotBegunError (nothing was done, and nothing will be) or CommandUnderWayError (it is being done; the answer
    can be had by :meth:`command`). With a *command_id* of the caller's choice, asking again does nothing new.

    Args:
        settings: What it was told.
        link: To the broker, under the service's own client id. The service receives from it until it is stopped; its
            owner closes it.
        store: The store's file, or an open store (whose owner closes it). It is the service's thread that uses it from
            now on; what other threads see of it comes through a reader of the service's own.
        catalogue: The signed releases.
        clock: Unix seconds.
        command_timeout_s: How long a command may keep its caller waiting.

    Attributes:
        store: The open store. It may be filled before the service is started; from then on its thread alone uses it.
        writer: Makes every change, in the service's thread.

    Raises:
        StoreError: The store cannot be used.
    """

    def __init__(
        self,
        settings: FleetSettings,
        link: Link,
        store: Path | Store,
        catalogue: Catalogue,
        *,
        clock: Callable[[], float] = time.time,
        command_timeout_s: float = COMMAND_TIMEOUT_S,
    ) -> None:
        self.settings = settings
        self.catalogue = catalogue
        self._link = link
        self._owns_store = isinstance(store, Path)
        self.store = Store(store) if isinstance(store, Path) else store
        self._reader = self.store.open_reader()
        self._driver = RolloutDriver(self.store, catalogue)
        telemetry = TelemetryIntake(self.store, catalogue, settings)
        intake = self._intake = MessageIntake(self.store, self._driver, telemetry, settings)
        self.writer = Writer(settings, link, self.store, self._driver, intake, clock, timeout_s=command_timeout_s)
        for channel in HEARD:
            link.subscribe(fleet_filter(settings.fleet, channel))

    def start(self) -> Self:
        """Start the service's thread."""
        self.writer.start()
        return self

    def stop(self) -> None:
        """Finish the turn in progress, end the thread and close the store. What was begun goes on after a restart."""
        self.writer.stop()
        self._reader.close()
        if self._owns_store:
            self.store.close()

    def devices(self) -> tuple[Device, ...]:
        """Return all devices that were ever heard of, sorted by name."""
        return self._reader.devices()

    def count_devices(self) -> int:
        """Return how many devices were ever heard of, without reading them."""
        return self._reader.count_devices()

    def device(self, name: str) -> Device:
        """Return one device.

        Raises:
            UnknownDeviceError: It was never heard of.
        """
        device = self._reader.device(name)
        if device is None:
            raise UnknownDeviceError(name)
        return device

    def refusal(self, name: str) -> RefusedReport | None:
        """Return the last report in a device's name that was not believed since the service was started, if any."""
        return self._intake.doubts.refusals.get(name)

    def desired(self, name: str) -> Desired | None:
        """Return what is wanted of a device, or None when nothing is."""
        return self._reader.desired(name)

    def rollout(self, rollout_id: str) -> Rollout:
        """Return one rollout with its executions.

        Raises:
            UnknownRolloutError: There is none of that id.
        """
        rollout = self._reader.rollout(rollout_id)
        if rollout is None:
            raise UnknownRolloutError(rollout_id)
        return rollout

    def rollouts(self) -> tuple[Rollout, ...]:
        """Return all rollouts, the first started first."""
        return self._reader.rollouts()

    def alerts(self) -> tuple[Alert, ...]:
        """Return all drift alerts, the first raised first."""
        return self._reader.alerts()

    def windows(
        self, device: str | None = None, *, since: float = 0.0, release: str | None = None, limit: int = 100_000
    ) -> tuple[StoredWindow, ...]:
        """Return the recent windows that were received at *since* (Unix time) or later, the oldest first."""
        return self._reader.windows(device, since=since, release=release, limit=limit)

    def runs(self) -> tuple[TrainingRun, ...]:
        """Return all retrainings, the first started first."""
        return self._reader.runs()

    def audit(self) -> tuple[AuditEntry, ...]:
        """Return the latest lines of the audit log, the oldest first."""
        return self._reader.audit()

    def admin_key_hashes(self) -> tuple[str, ...]:
        """Return the SHA-256 of every admin key."""
        return self._reader.admin_key_hashes()

    def subscribe(self, callback: Callable[[FleetEvent], None]) -> Callable[[], None]:
        """Call *callback* with every event from now on, in the service's thread; it must be quick.

        Returns:
            A function that ends the subscription.
        """
        return self.writer.subscribe(callback)

    def command(self, command_id: str) -> Command[Any]:
        """Return a command that was asked for since the service was started, with its answer if there is one.

        Raises:
            UnknownCommandError: It was never begun, or is long over.
        """
        return self.writer.commands.command(command_id)

    def start_rollout(
        self, release: str, plan: RolloutPlan | None = None, *, actor: str = "local", command_id: str | None = None
    ) -> Rollout:
        """Roll a signed release out to the devices whose hardware it has.

        Raises:
            UnknownReleaseError: It is not listed in the signed metadata.
            RolloutConflictError: Another rollout is not over.
            NoDevicesError: It fits no known device.
        """
        wanted = plan if plan is not None else RolloutPlan()

        def change(then: AfterCommit, now: float) -> Rollout:
            rollout = self._driver.start(release, wanted, now, then)
            self.store.add_audit(at=now, actor=actor, action="rollout.start", subject=rollout.id, detail=release)
            return rollout

        digest = hashlib.sha256(encode_json(wanted.to_record())).hexdigest()[:12]
        what = f"{actor}: rollout.start {release} by the plan {digest}"
        return self.writer.call(change, command_id=command_id, what=what)

    def pause(self, rollout_id: str, *, actor: str = "local", command_id: str | None = None) -> Rollout:
        """Hold a running rollout; what devices have begun goes on."""
        return self._command(rollout_id, "rollout.pause", lambda now: Paused(now=now), actor, command_id)

    def resume(self, rollout_id: str, *, actor: str = "local", command_id: str | None = None) -> Rollout:
        """Let a paused rollout go on."""
        return self._command(rollout_id, "rollout.resume", lambda now: Resumed(now=now), actor, command_id)

    def approve(self, rollout_id: str, *, actor: str = "local", command_id: str | None = None) -> Rollout:
        """Approve a rollout that waits for it."""
        return self._command(rollout_id, "rollout.approve", lambda now: Approved(now=now), actor, command_id)

    def abort(
        self,
        rollout_id: str,
        reason: str = "aborted by an operator",
        *,
        actor: str = "local",
        command_id: str | None = None,
    ) -> Rollout:
        """End a rollout; devices that have the release go back to the one before."""
        return self._command(
            rollout_id, "rollout.abort", lambda now: Canceled(reason=reason, now=now), actor, command_id
        )

    def _command(
        self, rollout_id: str, action: str, event: Callable[[float], RolloutEvent], actor: str, command_id: str | None
    ) -> Rollout:
        def change(then: AfterCommit, now: float) -> Rollout:
            rollout = self._driver.apply(rollout_id, event(now), then)
            self.store.add_audit(at=now, actor=actor, action=action, subject=rollout_id)
            return self._driver.go_on(rollout, now, then)

        return self.writer.call(change, command_id=command_id, what=f"{actor}: {action} {rollout_id}")

    def assign(self, device: str, release: str | None, *, actor: str = "local") -> Desired:
        """Give one device a release without a rollout; None takes its release away.

        Raises:
            UnknownDeviceError: It was never heard of.
            UnknownReleaseError: The release is not listed in the signed metadata.
            RolloutConflictError: A rollout that is not over has this device.
        """

        def change(then: AfterCommit, now: float) -> Desired:
            if self.store.device(device) is None:
                raise UnknownDeviceError(device)
            if release is not None:
                self.catalogue.manifest(release)
            for rollout in self._driver.unfinished.values():
                if device in rollout.executions:
                    raise RolloutConflictError(rollout.id, rollout.state.value)
            self.store.add_audit(at=now, actor=actor, action="device.assign", subject=device, detail=release or "")
            return self._driver.assign(device, release, then)

        return self.writer.call(change)

    def reset_device(self, name: str, *, actor: str = "local", command_id: str | None = None) -> Device:
        """Believe nothing that a device said so far: its next report counts, whatever target or version it names.

        For a device that got other hardware, or whose numbers somebody made up. What is wanted of it stays, under the
        number that follows from its report.

        Raises:
            UnknownDeviceError: It was never heard of.
        """

        def change(then: AfterCommit, now: float) -> Device:
            device = self.store.device(name)
            if device is None:
                raise UnknownDeviceError(name)
            self.store.add_audit(at=now, actor=actor, action="device.reset", subject=name)
            return self._intake.reset(name, device, then)

        return self.writer.call(change, command_id=command_id, what=f"{actor}: device.reset {name}")

    def forget_device(self, name: str, *, actor: str = "local", command_id: str | None = None) -> Device:
        """Keep nothing of a device that is gone: under its name a new one may come.

        Open parts of it in rollouts are removed, and these go on without it; one whose canary it was alone is aborted.
        If it is still there, it comes back as a new device with its next report.

        Returns:
            The device as it was.

        Raises:
            UnknownDeviceError: It was never heard of.
            RolloutConflictError: Its part in a rollout that is not over has ended, and counts there.
        """

        def change(then: AfterCommit, now: float) -> Device:
            device = self.store.device(name)
            if device is None:
                raise UnknownDeviceError(name)
            self._intake.forget_device(device, then, now)
            self.store.add_audit(at=now, actor=actor, action="device.forget", subject=name)
            return device

        return self.writer.call(change, command_id=command_id, what=f"{actor}: device.forget {name}")

    def save_run(self, run: TrainingRun) -> None:
        """Keep how a retraining goes."""
        self.writer.call(lambda _then, _now: self.store.save_run(run))

    def raise_alert(self, alert: Alert) -> None:
        """Keep an alert that something else than a window raised; one that is known is kept as it was."""

        def change(then: AfterCommit, now: float) -> None:
            if alert.id not in {known.id for known in self.store.alerts()}:
                self.store.save_alert(alert, now)
                then.events.append(AlertChanged(alert, is_new=True))

        self.writer.call(change)

    def is_proven(self, release: str) -> bool:
        """Return whether a release has shown on labelled samples of the fleet to be above its floor."""
        return self._reader.is_proven(release)

    def proven_releases(self) -> dict[str, float]:
        """Return the releases that have proven themselves -> since when, Unix seconds."""
        return self._reader.proven_releases()

    def save_baselines(self, release: str, baselines: Mapping[str, Mapping[str, Sequence[int]]]) -> None:
        """Keep what each device saw when *release* was trained: device -> input feature -> counts."""
        self.writer.call(lambda _then, _now: self.store.save_baselines(release, baselines))

    def backup(self, path: Path) -> None:
        """Write a copy of the store into a new file, while the service runs.

        Raises:
            StoreError: *path* exists, or cannot be written.
        """
        self.store.backup(path)

    def send(self, device: str, channel: Channel, payload: bytes) -> None:
        """Publish a message to one device; it is not kept.

        Raises:
            LinkError: Too many messages wait for the broker.
        """
        self._link.publish(device_topic(self.settings.fleet, device, channel), payload)

    def turn(self, timeout_s: float) -> int:
        """Do by hand what the thread does again and again; for tests and simulations of a service not started.

        Args:
            timeout_s: How long to wait for a first message.

        Returns:
            How many link events were taken.
        """
        return self.writer.turn(timeout_s)
