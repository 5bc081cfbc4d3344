"""A training round over MQTT and HTTP: tasks and answers as messages, weights as downloads and uploads."""

import hashlib
import queue
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from hedgerow.errors import DecodeError
from hedgerow.fleet.events import DeviceChanged, FleetEvent, UpdateArrived
from hedgerow.fleet.registry import Device
from hedgerow.fleet.training_exchange import TrainingExchange
from hedgerow.local_work import train_task_of
from hedgerow.manifest import Blob
from hedgerow.progress import Progress, Report, silent
from hedgerow.server.grids.transport import DeviceUpdate, RoundWork
from hedgerow.weights import decode_arrays, encode_arrays
from hedgerow.wire import Channel, TrainTask, TrainUpdate

__all__ = ["MqttRoundTransport", "RoundService"]

_SLACK_BYTES = 64 * 1024
# A device that has not even fetched the weights after this long has probably not heard of them.
_RESEND_AFTER_S = 5.0


class RoundService(Protocol):
    """What a round needs of the fleet service."""

    def devices(self) -> Sequence[Device]:
        """Return all devices."""

    def send(self, device: str, channel: Channel, payload: bytes) -> None:
        """Publish a message to one device."""

    def subscribe(self, callback: Callable[[FleetEvent], None]) -> Callable[[], None]:
        """Call *callback* with every event until the returned function is called."""


class MqttRoundTransport:
    """A :class:`hedgerow.server.grids.transport.RoundTransport` to the agents of a fleet.

    Args:
        service: The fleet service.
        exchange: Where the HTTP server hands weights out and takes updates.
        release: Devices take part while they run this release, because its train graph is what they train.
        report: Told how many devices have answered.
        changes: Asked in every round; device -> when its world changed, Unix seconds: it leaves labels from before out.
        clock: Monotonic seconds.
        wall_clock: Unix seconds.
    """

    def __init__(
        self,
        service: RoundService,
        exchange: TrainingExchange,
        release: str,
        *,
        report: Report = silent,
        changes: Callable[[], Mapping[str, float]] = dict,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._service, self._exchange, self._release = service, exchange, release
        self._report, self._changes, self._clock, self._wall_clock = report, changes, clock, wall_clock

    def devices(self) -> Sequence[str]:
        """Return the names of the online devices that run the release, sorted."""
        return sorted(d.name for d in self._service.devices() if d.online and d.release == self._release)

    def run_round(self, work: RoundWork) -> Sequence[DeviceUpdate]:
        """Send the work, wait for the answers and their weights, return one update for each device, sorted by name."""
        weights = encode_arrays(work.weights)
        blob = Blob(hashlib.sha256(weights).hexdigest(), len(weights))
        inbox: queue.SimpleQueue[FleetEvent | str] = queue.SimpleQueue()
        unsubscribe = self._service.subscribe(inbox.put)
        tokens = self._exchange.open_round(work.run, work.round, weights, work.devices, inbox.put)
        try:
            changes, now = self._changes(), self._wall_clock()
            ages_s = {device: max(0.0, now - changed_at) for device, changed_at in changes.items()}
            tasks = {d: self._task(work, blob, token, ages_s.get(d)).encode() for d, token in tokens.items()}
            answers = self._collect(work, tasks, inbox)
            return [self._judge(work, device, answers.get(device), len(weights)) for device in sorted(work.devices)]
        finally:
            unsubscribe()
            self._exchange.close_round(work.run, work.round)

    def _task(self, work: RoundWork, blob: Blob, token: str, maximum_age_s: float | None) -> TrainTask:
        return train_task_of(
            work.local,
            run=work.run,
            release=self._release,
            weights=blob,
            token=token,
            deadline_s=work.deadline_s,
            maximum_age_s=maximum_age_s,
        )

    def _collect(
        self, work: RoundWork, tasks: dict[str, bytes], inbox: "queue.SimpleQueue[FleetEvent | str]"
    ) -> dict[str, TrainUpdate]:
        started = self._clock()
        for device, task in tasks.items():
            self._service.send(device, Channel.TRAIN, task)
        answers: dict[str, TrainUpdate] = {}
        waiting, sent_again = set(tasks), set[str]()
        while waiting and (left_s := started + work.deadline_s - self._clock()) > 0:
            self._report(Progress(f"round {work.round}", len(tasks) - len(waiting), len(tasks)))
            # An upload needs no handling of its own: it only ends the wait.
            event = _next(inbox, min(left_s, 1.0))
            if isinstance(event, UpdateArrived) and (event.update.run, event.update.round) == (work.run, work.round):
                answers[event.device] = event.update
            unheard = {event.device.name} if isinstance(event, DeviceChanged) and _came_back(event) else set[str]()
            if self._clock() - started > _RESEND_AFTER_S:
                unheard |= {d for d in waiting if not self._exchange.has_fetched(work.run, work.round, d)}
            for device in sorted((unheard & waiting) - sent_again - set(answers)):
                self._service.send(device, Channel.TRAIN, tasks[device])
                sent_again.add(device)
            waiting -= {device for device in waiting if self._is_complete(work, device, answers.get(device))}
        self._report(Progress(f"round {work.round}", len(tasks), len(tasks)))
        return answers

    def _is_complete(self, work: RoundWork, device: str, answer: TrainUpdate | None) -> bool:
        """Whether a device has said all: an answer, and the bytes of the very weights that it names."""
        if answer is None or answer.weights is None:
            return answer is not None
        payload = self._exchange.upload(work.run, work.round, device)
        return payload is not None and hashlib.sha256(payload).hexdigest() == answer.weights.sha256

    def _judge(self, work: RoundWork, device: str, answer: TrainUpdate | None, length_bytes: int) -> DeviceUpdate:
        if answer is None:
            return DeviceUpdate(device=device, state="timed out", reason=f"no answer within {work.deadline_s:g} s")
        if answer.state == "declined":
            return DeviceUpdate(device=device, state="declined", examples=answer.examples, reason=answer.reason)
        if answer.state != "done":
            return DeviceUpdate(device=device, state="failed", reason=answer.reason)
        payload = self._exchange.upload(work.run, work.round, device)
        if payload is None or not self._is_complete(work, device, answer):
            reason = "expected the weights that it announced, found none or others"
            return DeviceUpdate(device=device, state="timed out", reason=reason)
        try:
            # Whether they are weights of this model is judged with those of the others, by the grid.
            weights = decode_arrays(payload, f"update of {device}", limit_bytes=length_bytes + _SLACK_BYTES)
        except DecodeError as exc:
            return DeviceUpdate(device=device, state="failed", reason=str(exc))
        return DeviceUpdate(
            device=device, state="done", examples=answer.examples, metrics=answer.metrics, weights=weights
        )


def _next(inbox: "queue.SimpleQueue[FleetEvent | str]", timeout_s: float) -> "FleetEvent | str | None":
    try:
        return inbox.get(timeout=timeout_s)
    except queue.Empty:
        return None


def _came_back(event: DeviceChanged) -> bool:
    before = event.before
    return event.device.online and before is not None and (not before.online or before.boot != event.device.boot)
