"""The one thread that writes: takes link events, commands of other threads and time, each in a transaction.

Everything is saved before it is published and acknowledged after it was saved: a crash repeats a message, never loses
one. What is done with a message is in messages.py, with a rollout in rollouts.py; here is the order.
"""

import logging
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from hedgerow.errors import LinkError
from hedgerow.fleet.errors import ServiceStoppedError
from hedgerow.fleet.registry import ASK_REPORT
from hedgerow.fleet.service.after_commit import AfterCommit
from hedgerow.fleet.service.commands import Change, Command, Commands
from hedgerow.fleet.service.events import DeviceChanged, FleetEvent
from hedgerow.fleet.service.failure_lines import FailureLines
from hedgerow.fleet.service.messages import MessageIntake
from hedgerow.fleet.service.reminders import Reminders
from hedgerow.fleet.service.roll_call import RollCall
from hedgerow.fleet.service.rollouts import RolloutDriver
from hedgerow.fleet.settings import FleetSettings
from hedgerow.fleet.store.writing import Store
from hedgerow.link import Connected, Disconnected, Link, LinkEvent, Message
from hedgerow.wire.topics import Channel, device_topic

__all__ = ["COMMAND_TIMEOUT_S", "Writer"]

T = TypeVar("T")

_log = logging.getLogger(__name__)
_REMINDER_LOOK_S = 0.5

COMMAND_TIMEOUT_S = 20.0
"""How long a caller is kept waiting; shorter than what clients of the admin API wait, so that they hear why."""


class Writer:
    """Owns every write to the store, and the receiving half of the link.

    Args:
        settings: The service's.
        link: To the broker.
        store: Where everything is.
        driver: Moves the rollouts on.
        intake: Takes the messages.
        clock: Unix seconds.
        timeout_s: How long a command may keep its caller waiting.

    Attributes:
        timeout_s: The same.
        commands: What was asked, under its id.
    """

    def __init__(
        self,
        settings: FleetSettings,
        link: Link,
        store: Store,
        driver: RolloutDriver,
        intake: MessageIntake,
        clock: Callable[[], float],
        *,
        timeout_s: float = COMMAND_TIMEOUT_S,
    ) -> None:
        self._settings, self._link, self._store, self._driver = settings, link, store, driver
        self._intake, self._clock = intake, clock
        self._reminders = Reminders(settings.nudge_s, settings.nudge_longest_s)
        self._next_reminder_look = 0.0
        self.commands = Commands()
        self.timeout_s = timeout_s
        self._waiting: queue.SimpleQueue[Command[Any]] = queue.SimpleQueue()
        self._roll_call = RollCall(settings.presence_silence_s, settings.presence_answer_s)
        self._untaken: list[LinkEvent] = []
        self._is_cut = False
        self._subscribers: dict[int, Callable[[FleetEvent], None]] = {}
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._is_over = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="fleet-service", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Finish the turn in progress and end the thread; commands that wait are refused."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
        with self._lock:
            self._is_over = True
        while not self._waiting.empty():
            future = self._waiting.get_nowait().future
            if future.set_running_or_notify_cancel():
                future.set_exception(ServiceStoppedError())

    def subscribe(self, callback: Callable[[FleetEvent], None]) -> Callable[[], None]:
        """Call *callback* with every event from now on; return a function that ends it."""
        with self._lock:
            number = max(self._subscribers, default=0) + 1
            self._subscribers = {**self._subscribers, number: callback}

        def unsubscribe() -> None:
            with self._lock:
                self._subscribers = {n: c for n, c in self._subscribers.items() if n != number}

        return unsubscribe

    def call(self, change: Change[T], *, command_id: str | None = None, what: str = "") -> T:
        """Run *change* in the thread, in a transaction, and return what it returns; without a thread, run it here.

        Args:
            change: What is done.
            command_id: The name under which its answer can be asked for, and asking for it again does nothing new;
                None: one is drawn, and forgotten once the caller has the answer.
            what: Who wants what of what, in words.

        Raises:
            ServiceStoppedError: The service was stopped.
            CommandNotBegunError: It was not begun in time, and never will be.
            CommandUnderWayError: It was begun in time and is not over.
            CommandConflictError: The id was used for something else.
        """
        if self._thread is not None and threading.current_thread() is self._thread:
            raise RuntimeError("a subscriber must not change the fleet from its callback; use a thread of its own")
        with self._lock:
            if self._is_over:
                raise ServiceStoppedError
            command, is_new = self.commands.admit(change, command_id, what)
            if is_new and self._thread is not None:
                self._waiting.put(command)
        if is_new and self._thread is None:
            self._answer(command)
        try:
            return command.answer(self.timeout_s)
        finally:
            if command_id is None and command.future.done():
                self.commands.forget(command.id)

    def turn(self, timeout_s: float) -> int:
        """Take what has arrived, obey what was asked, let time pass; the thread calls it again and again.

        Args:
            timeout_s: How long to wait for a first message.

        Returns:
            How many link events were taken.
        """
        events = self._untaken or self._receive(timeout_s)
        # Kept here until they were taken: what is not acknowledged is sent again over another connection only, and a
        # broker that waits for a few acknowledgements sends nothing more.
        self._untaken = events
        self._take(events)
        self._untaken = []
        while not self._waiting.empty():
            self._answer(self._waiting.get_nowait())
        self._commit(self._pass_time)
        return len(events)

    def _receive(self, timeout_s: float) -> list[LinkEvent]:
        events: list[LinkEvent] = []
        event = self._link.receive(timeout_s if self._waiting.empty() else 0.0)
        while event is not None:
            events.append(event)
            self._log_link(event)
            event = self._link.receive(0.0) if len(events) < self._settings.batch_events else None
        return events

    def _log_link(self, event: LinkEvent) -> None:
        """Log that the broker is gone, and that it is back: until then no device hears of what is asked for here."""
        if isinstance(event, Disconnected) and not self._is_cut:
            self._is_cut = True
            broker = f"{self._settings.broker_host}:{self._settings.broker_port}"
            _log.warning(
                "the link to the broker at %s broke (%s); trying again in the background", broker, event.reason
            )
        elif isinstance(event, Connected) and self._is_cut:
            self._is_cut = False
            _log.info("the link to the broker is back")

    def _run(self) -> None:
        lines = FailureLines(_log, "a turn of the fleet service")
        while not self._stopping.is_set():
            # The outermost loop of the thread: a turn that fails is logged, and the next one begins from the store.
            try:
                self.turn(self._settings.tick_s)
            except Exception as exc:  # noqa: BLE001 - see above; it is logged
                lines.failed(exc)
                self._stopping.wait(self._settings.tick_s)
            else:
                lines.worked()

    def _answer(self, command: Command[Any]) -> None:
        future = command.future
        if not future.set_running_or_notify_cancel():
            return
        try:
            result = self._commit(command.change)
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
        except sqlite3.OperationalError:
            # The disk, not the messages: they stay unacknowledged, and are taken when there is room.
            raise
        except Exception:  # noqa: BLE001 - a message that we cannot take must not stop the others; it is logged
            if len(events) > 1:
                # Each is acknowledged on its way, and only once: the second time would be for another message.
                for event in events:
                    self._take([event])
                return
            _log.exception("a message was dropped: %.200r", events[0])
        for event in events:
            if isinstance(event, Message):
                self._link.acknowledge(event)

    def _take_all(self, events: Sequence[LinkEvent], then: AfterCommit, now: float) -> None:
        for event in events:
            if isinstance(event, Message):
                self._intake.take(event, then, now)
            elif isinstance(event, Connected):
                # Messages of ours may be lost; what is retained at the broker may be older than the store.
                then.desired.extend(self._store.pending(only_online=False).items())
                # Nor is it sure who is still there.
                self._roll_call.doubt_all(now)

    def _pass_time(self, then: AfterCommit, now: float) -> None:
        self._driver.tick(now, then)
        if not 0 <= self._next_reminder_look - now <= _REMINDER_LOOK_S:
            self._next_reminder_look = now + _REMINDER_LOOK_S
            pending = self._store.pending(only_online=True)
            due = self._reminders.due({device: desired.version for device, desired in pending.items()}, now)
            then.desired.extend((device, pending[device]) for device in due)
            self._call_the_roll(then, now)

    def _call_the_roll(self, then: AfterCommit, now: float) -> None:
        roll_call = self._roll_call
        self._store.date_contacts_back(now)
        silent = self._store.last_seen(
            silent_since=roll_call.silent_since(now), limit=roll_call.limit, also=roll_call.doubted
        )
        verdict = roll_call.take(silent, now)
        then.desired.extend((device, ASK_REPORT) for device in verdict.ask)
        for name in verdict.gone:
            before = self._store.device(name)
            if before is not None and before.online:
                after = replace(before, online=False)
                self._store.save_device(after)
                then.events.append(DeviceChanged(after, before))

    def _commit(self, change: Change[T]) -> T:
        """Apply a change in a transaction; after it is on disk, publish and tell."""
        then = AfterCommit()
        try:
            with self._store.transaction():
                result = change(then, self._clock())
        except BaseException:
            self._intake.reload()
            raise
        for device in then.doubted:
            self._roll_call.doubt(device, self._clock())
        for device in then.forgotten:
            self._roll_call.forget(device)
            self._reminders.forget(device)
            for channel in (Channel.DESIRED, Channel.PRESENCE):
                # An empty payload deletes what is retained; else the broker would bring the device back.
                self._publish(device, channel, b"", retain=True)
        for device, desired in then.desired:
            # A question is not kept: what is wanted of the device would be gone from the broker.
            self._publish(device, Channel.DESIRED, desired.encode(), retain=desired != ASK_REPORT)
        for event in then.events:
            self._tell(event)
        return result

    def _publish(self, device: str, channel: Channel, payload: bytes, *, retain: bool) -> None:
        try:
            self._link.publish(device_topic(self._settings.fleet, device, channel), payload, retain=retain)
        except LinkError as exc:
            # What is wanted is saved, so it is published again when the link is back or the device is reminded.
            _log.warning("could not publish %s of %s: %s", channel.value, device, exc)

    def _tell(self, event: FleetEvent) -> None:
        for callback in tuple(self._subscribers.values()):
            # Somebody else's code in our thread: it must not stop the fleet.
            try:
                callback(event)
            except Exception:  # noqa: BLE001 - see above; it is logged
                _log.exception("a subscriber failed on %s", type(event).__name__)
