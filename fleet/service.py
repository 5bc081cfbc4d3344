"""The fleet service: one thread that owns all writes, takes messages, time and commands, and applies the pure rules.

Everything is saved before it is published and acknowledged after it was saved: a crash repeats a message, never loses
one. What is done with a message is in message_intake.py, with a rollout in rollout_driver.py, with a window in
telemetry_intake.py; here is the order of things, and what other threads may call.
"""

import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from hedgerow.errors import LinkError
from hedgerow.fleet.alerts import Alert
from hedgerow.fleet.catalogue import Catalogue
from hedgerow.fleet.consequences import Consequences
from hedgerow.fleet.errors import RolloutConflictError, UnknownDeviceError, UnknownRolloutError
from hedgerow.fleet.events import FleetEvent
from hedgerow.fleet.message_intake import HEARD, MessageIntake
from hedgerow.fleet.nudges import Nudges
from hedgerow.fleet.registry import Device
from hedgerow.fleet.rollout import Approved, Canceled, Event, Paused, Resumed, Rollout, RolloutPlan
from hedgerow.fleet.rollout_driver import RolloutDriver
from hedgerow.fleet.settings import FleetSettings
from hedgerow.fleet.store import Store
from hedgerow.fleet.store_reader import AuditEntry, StoredWindow, TrainingRun
from hedgerow.fleet.telemetry_intake import TelemetryIntake
from hedgerow.link import Connected, Link, LinkEvent, Message
from hedgerow.wire import Channel, Desired, device_topic, fleet_filter

__all__ = ["FleetService"]

T = TypeVar("T")

_log = logging.getLogger(__name__)
_COMMAND_TIMEOUT_S = 60.0
_NUDGE_LOOK_S = 0.5

Change = Callable[[Consequences, float], T]


class FleetService:
    """Keeps the registry, drives rollouts, watches for drift.

    Every public method may be called from any thread, but not from a subscriber's callback where it changes something:
    the callback runs in the service's thread.

    Args:
        settings: What it was told.
        link: To the broker, under the service's own client id. The service receives from it until it is stopped; its
            owner closes it.
        store: The store's file, or an open store (whose owner closes it).
        catalogue: The signed releases.
        clock: Unix seconds.

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
    ) -> None:
        self.settings = settings
        self.catalogue = catalogue
        self._link, self._clock = link, clock
        self._owns_store = isinstance(store, Path)
        self._store = Store(store) if isinstance(store, Path) else store
        self._driver = RolloutDriver(self._store, catalogue)
        telemetry = TelemetryIntake(self._store, catalogue, settings)
        self._intake = MessageIntake(self._store, self._driver, telemetry, settings)
        self._nudges = Nudges(settings.nudge_s, settings.nudge_longest_s)
        self._next_nudge_look = 0.0
        self._commands: queue.SimpleQueue[tuple[Change[Any], Future[Any]]] = queue.SimpleQueue()
        self._subscribers: dict[int, Callable[[FleetEvent], None]] = {}
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        for channel in HEARD:
            link.subscribe(fleet_filter(settings.fleet, channel))

    def start(self) -> Self:
        """Start the service's thread."""
        if self._thread is None:
            self._stopping.clear()
            self._thread = threading.Thread(target=self._run, name="fleet-service", daemon=True)
            self._thread.start()
        return self

    def stop(self) -> None:
        """Finish the turn in progress, end the thread and close the store. What was begun goes on after a restart."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._owns_store:
            self._store.close()

    def __enter__(self) -> Self:
        """Start."""
        return self.start()

    def __exit__(
        self, _type: type[BaseException] | None, _exc: BaseException | None, _tb: TracebackType | None
    ) -> None:
        """Stop."""
        self.stop()

    # -- what can be seen -------------------------------------------------------------------------------------------

    def devices(self) -> tuple[Device, ...]:
        """Return all devices that were ever heard of, sorted by name."""
        return self._store.reader.devices()

    def device(self, name: str) -> Device:
        """Return one device.

        Raises:
            UnknownDeviceError: It was never heard of.
        """
        device = self._store.reader.device(name)
        if device is None:
            raise UnknownDeviceError(name)
        return device

    def desired(self, name: str) -> Desired | None:
        """Return what is wanted of a device, or None when nothing is."""
        return self._store.reader.desired(name)

    def rollout(self, rollout_id: str) -> Rollout:
        """Return one rollout with its executions.

        Raises:
            UnknownRolloutError: There is none of that id.
        """
        rollout = self._store.reader.rollout(rollout_id)
        if rollout is None:
            raise UnknownRolloutError(rollout_id)
        return rollout

    def rollouts(self) -> tuple[Rollout, ...]:
        """Return all rollouts, the first started first."""
        return self._store.reader.rollouts()

    def alerts(self) -> tuple[Alert, ...]:
        """Return all drift alerts, the first raised first."""
        return self._store.reader.alerts()

    def windows(
        self, device: str | None = None, *, since: float = 0.0, release: str | None = None, limit: int = 100_000
    ) -> tuple[StoredWindow, ...]:
        """Return the recent windows that were received at *since* (Unix time) or later, the oldest first."""
        return self._store.reader.windows(device, since=since, release=release, limit=limit)

    def runs(self) -> tuple[TrainingRun, ...]:
        """Return all retrainings, the first started first."""
        return self._store.reader.runs()

    def audit(self) -> tuple[AuditEntry, ...]:
        """Return the latest lines of the audit log, the oldest first."""
        return self._store.reader.audit()

    def admin_key_hashes(self) -> tuple[str, ...]:
        """Return the SHA-256 of every admin key."""
        return self._store.reader.admin_key_hashes()

    def subscribe(self, callback: Callable[[FleetEvent], None]) -> Callable[[], None]:
        """Call *callback* with every event from now on, in the service's thread; it must be quick.

        Returns:
            A function that ends the subscription.
        """
        with self._lock:
            number = max(self._subscribers, default=0) + 1
            self._subscribers = {**self._subscribers, number: callback}

        def unsubscribe() -> None:
            with self._lock:
                self._subscribers = {n: c for n, c in self._subscribers.items() if n != number}

        return unsubscribe

    # -- what can be asked ------------------------------------------------------------------------------------------

    def start_rollout(self, release: str, plan: RolloutPlan | None = None, *, actor: str = "local") -> Rollout:
        """Roll a signed release out to the devices whose hardware it has.

        Raises:
            UnknownReleaseError: It is not listed in the signed metadata.
            RolloutConflictError: Another rollout is not over.
            NoDevicesError: It fits no known device.
        """

        def change(then: Consequences, now: float) -> Rollout:
            rollout = self._driver.start(release, plan if plan is not None else RolloutPlan(), now, then)
            self._store.add_audit(at=now, actor=actor, action="rollout.start", subject=rollout.id, detail=release)
            return rollout

        return self._call(change)

    def pause(self, rollout_id: str, *, actor: str = "local") -> Rollout:
        """Hold a running rollout; what devices have begun goes on."""
        return self._command(rollout_id, "rollout.pause", lambda now: Paused(now=now), actor)

    def resume(self, rollout_id: str, *, actor: str = "local") -> Rollout:
        """Let a paused rollout go on."""
        return self._command(rollout_id, "rollout.resume", lambda now: Resumed(now=now), actor)

    def approve(self, rollout_id: str, *, actor: str = "local") -> Rollout:
        """Approve a rollout that waits for it."""
        return self._command(rollout_id, "rollout.approve", lambda now: Approved(now=now), actor)

    def abort(self, rollout_id: str, reason: str = "aborted by an operator", *, actor: str = "local") -> Rollout:
        """End a rollout; devices that have the release go back to the one before."""
        return self._command(rollout_id, "rollout.abort", lambda now: Canceled(reason=reason, now=now), actor)

    def _command(self, rollout_id: str, action: str, event: Callable[[float], Event], actor: str) -> Rollout:
        def change(then: Consequences, now: float) -> Rollout:
            rollout = self._driver.apply(rollout_id, event(now), then)
            self._store.add_audit(at=now, actor=actor, action=action, subject=rollout_id)
            return self._driver.go_on(rollout, now, then)

        return self._call(change)

    def assign(self, device: str, release: str | None, *, actor: str = "local") -> Desired:
        """Give one device a release without a rollout; None takes its release away.

        Raises:
            UnknownDeviceError: It was never heard of.
            UnknownReleaseError: The release is not listed in the signed metadata.
            RolloutConflictError: A rollout that is not over has this device.
        """

        def change(then: Consequences, now: float) -> Desired:
            if self._store.device(device) is None:
                raise UnknownDeviceError(device)
            if release is not None:
                self.catalogue.manifest(release)
            for rollout in self._driver.unfinished.values():
                if device in rollout.executions:
                    raise RolloutConflictError(rollout.id, rollout.state.value)
            self._store.add_audit(at=now, actor=actor, action="device.assign", subject=device, detail=release or "")
            return self._driver.assign(device, release, then)

        return self._call(change)

    def save_run(self, run: TrainingRun) -> None:
        """Keep how a retraining goes."""
        self._call(lambda _then, _now: self._store.save_run(run))

    def save_baselines(self, release: str, baselines: Mapping[str, Mapping[str, Sequence[int]]]) -> None:
        """Keep what each device saw when *release* was trained: device -> input feature -> counts."""
        self._call(lambda _then, _now: self._store.save_baselines(release, baselines))

    def backup(self, path: Path) -> None:
        """Write a copy of the store into a new file, while the service runs.

        Raises:
            StoreError: *path* exists, or cannot be written.
        """
        self._store.backup(path)

    def send(self, device: str, channel: Channel, payload: bytes) -> None:
        """Publish a message to one device; it is not kept.

        Raises:
            LinkError: Too many messages wait for the broker.
        """
        self._link.publish(device_topic(self.settings.fleet, device, channel), payload)

    def _call(self, change: Change[T]) -> T:
        """Run *change* in the service's thread, in a transaction, and return what it returns."""
        if self._thread is None:
            return self._commit(change)
        if threading.current_thread() is self._thread:
            raise RuntimeError("a subscriber must not change the fleet from its callback; use a thread of its own")
        future: Future[T] = Future()
        self._commands.put((change, future))
        return future.result(_COMMAND_TIMEOUT_S)

    # -- the thread -------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stopping.is_set():
            # The outermost loop of the thread: a turn that fails is logged, and the next one begins from the store.
            try:
                self.turn(self.settings.tick_s)
            except Exception:  # noqa: BLE001 - see above; it is logged
                _log.exception("a turn of the fleet service failed; it goes on from the store")
                self._stopping.wait(self.settings.tick_s)
        while not self._commands.empty():
            self._commands.get_nowait()[1].cancel()

    def turn(self, timeout_s: float) -> int:
        """Take what has arrived, obey what was asked, let time pass; the thread calls it again and again.

        Tests and simulations call it themselves on a service that was not started.

        Args:
            timeout_s: How long to wait for a first message.

        Returns:
            How many link events were taken.
        """
        events: list[LinkEvent] = []
        event = self._link.receive(timeout_s if self._commands.empty() else 0.0)
        while event is not None:
            events.append(event)
            event = self._link.receive(0.0) if len(events) < self.settings.batch_events else None
        self._take(events)
        while not self._commands.empty():
            change, future = self._commands.get_nowait()
            self._answer(change, future)
        self._commit(self._pass_time)
        return len(events)

    def _answer(self, change: Change[Any], future: "Future[Any]") -> None:
        if not future.set_running_or_notify_cancel():
            return
        try:
            result = self._commit(change)
        except BaseException as exc:  # noqa: BLE001 - it is raised again, in the thread that asked
            future.set_exception(exc)
        else:
            future.set_result(result)

    def _take(self, events: Sequence[LinkEvent]) -> None:
        """Take a batch in one transaction; if that fails, take its events one by one and leave the bad ones out."""
        if not events:
            return
        try:
            self._commit(lambda then, now: self._take_all(events, then, now))
        except Exception:  # noqa: BLE001 - see above; it is logged
            if len(events) == 1:
                _log.exception("a message was dropped: %.200r", events[0])
            for event in events if len(events) > 1 else ():
                self._take([event])
        for event in events:
            if isinstance(event, Message):
                self._link.acknowledge(event)

    def _take_all(self, events: Sequence[LinkEvent], then: Consequences, now: float) -> None:
        for event in events:
            if isinstance(event, Message):
                self._intake.take(event, then, now)
            elif isinstance(event, Connected):
                # Messages of ours may be lost; what is retained at the broker may be older than the store.
                then.desired.extend(self._store.pending(only_online=False).items())

    def _pass_time(self, then: Consequences, now: float) -> None:
        self._driver.tick(now, then)
        if not 0 <= self._next_nudge_look - now <= _NUDGE_LOOK_S:
            self._next_nudge_look = now + _NUDGE_LOOK_S
            pending = self._store.pending(only_online=True)
            due = self._nudges.due({device: desired.version for device, desired in pending.items()}, now)
            then.desired.extend((device, pending[device]) for device in due)

    def _commit(self, change: Change[T]) -> T:
        """Apply a change in a transaction; after it is on disk, publish and tell."""
        then = Consequences()
        try:
            with self._store.transaction():
                result = change(then, self._clock())
        except BaseException:
            self._driver.forget()
            raise
        for device, desired in then.desired:
            self._publish(device, desired)
        for event in then.events:
            self._tell(event)
        return result

    def _publish(self, device: str, desired: Desired) -> None:
        topic = device_topic(self.settings.fleet, device, Channel.DESIRED)
        try:
            self._link.publish(topic, desired.encode(), retain=True)
        except LinkError as exc:
            # It is saved, so it is published again when the link is back or the device is nudged.
            _log.warning("could not publish what is wanted of %s: %s", device, exc)

    def _tell(self, event: FleetEvent) -> None:
        for callback in tuple(self._subscribers.values()):
            # Somebody else's code in our thread: it must not stop the fleet.
            try:
                callback(event)
            except Exception:  # noqa: BLE001 - see above; it is logged
                _log.exception("a subscriber failed on %s", type(event).__name__)
