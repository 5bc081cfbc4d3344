"""One round of a training over the wire: tasks and answers as messages, weights as downloads and uploads.

The HTTP server's half, :class:`TrainingExchange`, hands the weights out and takes the updates; it knows no HTTP. The
half of the training run, :class:`WireRoundTransport`, sends the tasks, waits for both, and judges what came.

Every device of a round has a random token of its own; only hashes of tokens are kept, and they go with the round.
"""

import hashlib
import hmac
import queue
import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from hedgerow.errors import DecodeError
from hedgerow.fleet.errors import TrainingRoundError
from hedgerow.fleet.registry import Device
from hedgerow.fleet.service.events import DeviceChanged, FleetEvent, UpdateArrived
from hedgerow.local_work import train_task_of
from hedgerow.manifest.content import Blob
from hedgerow.progress import Progress, Report, silent
from hedgerow.server.grids.transport import DeviceUpdate, RoundWork
from hedgerow.weights import decode_arrays, encode_arrays
from hedgerow.wire.topics import Channel
from hedgerow.wire.training import TrainTask, TrainUpdate

__all__ = ["RoundService", "TrainingExchange", "Upload", "WireRoundTransport"]

# Equal arrays encode to equal lengths; the rest is for a header that another version might write.
_SLACK_BYTES = 64 * 1024
# A device that has not even fetched the weights after this long has probably not heard of them.
_RESEND_AFTER_S = 5.0


@dataclass(slots=True)
class _OpenRound:
    """What is known of a round while it is open.

    Attributes:
        weights: What is offered, encoded.
        token_hashes: Device -> the SHA-256 of its token.
        on_upload: Told whose update came.
        updates: Device -> its update, encoded, and the SHA-256 of that in hexadecimal.
        arriving: Device -> its update on its way.
        fetched: Devices that took the weights.
    """

    weights: bytes
    token_hashes: dict[str, bytes]
    on_upload: Callable[[str], None]
    updates: dict[str, tuple[bytes, str]] = field(default_factory=dict)
    arriving: "dict[str, Upload]" = field(default_factory=dict)
    fetched: set[str] = field(default_factory=set)


class Upload:
    """An update on its way; a device has one at a time, the one that was begun last.

    Args:
        limit_bytes: How long it may be.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self._pieces: bytearray | None = bytearray()

    def add(self, piece: bytes) -> None:
        """Take the next bytes.

        Raises:
            TrainingRoundError: The update is too long, another one came after it, or its round is over.
        """
        pieces = self._open()
        if len(pieces) + len(piece) > self.limit_bytes:
            self.drop()
            detail = f"expected at most {self.limit_bytes} bytes, found more; send weights like the round's"
            raise TrainingRoundError(413, detail)
        pieces += piece

    def take(self) -> bytes:
        """Return all bytes and keep none; errors as for :meth:`add`."""
        whole = bytes(self._open())
        self.drop()
        return whole

    def drop(self) -> None:
        """Keep nothing, and take nothing more."""
        self._pieces = None

    def _open(self) -> bytearray:
        if self._pieces is None:
            raise TrainingRoundError(409, "expected the only update of this device, found a later one or no open round")
        return self._pieces


class TrainingExchange:
    """The open rounds. Every method may be called from any thread."""

    def __init__(self) -> None:
        self._rounds: dict[tuple[str, int], _OpenRound] = {}
        self._lock = threading.Lock()

    def open_round(
        self, run: str, number: int, weights: bytes, devices: Sequence[str], on_upload: Callable[[str], None]
    ) -> dict[str, str]:
        """Offer *weights* to *devices* until the round is closed.

        Args:
            run: Identity of the training run.
            number: Number of the round.
            weights: The encoded global weights.
            devices: Who may fetch them and send an update.
            on_upload: Called with a device's name after its update came, in the thread that brought it.

        Returns:
            Each device's token. It is not kept and cannot be asked for again.
        """
        tokens = {device: secrets.token_urlsafe(32) for device in devices}
        hashes = {device: _hash(token) for device, token in tokens.items()}
        with self._lock:
            self._rounds[run, number] = _OpenRound(weights, hashes, on_upload)
        return tokens

    def close_round(self, run: str, number: int) -> None:
        """Forget a round, its tokens and its updates."""
        with self._lock:
            work = self._rounds.pop((run, number), None)
            for upload in work.arriving.values() if work is not None else ():
                upload.drop()

    def weights(self, run: str, number: int, token: str) -> bytes:
        """Return a round's weights to the holder of one of its tokens.

        Raises:
            TrainingRoundError: The round is not open, or the token is none of its tokens.
        """
        with self._lock:
            work = self._open(run, number)
            presented, owner = _hash(token), None
            for device, known in work.token_hashes.items():
                if hmac.compare_digest(known, presented):
                    owner = device
            if owner is None:
                raise _refused()
            work.fetched.add(owner)
            return work.weights

    def begin(self, run: str, number: int, device: str, token: str) -> Upload:
        """Let a device send its update; one that it began earlier and did not finish is dropped.

        Raises:
            TrainingRoundError: The round is not open, or the token is not this device's.
        """
        with self._lock:
            work = self._authorized(run, number, device, token)
            if device in work.arriving:
                # Its connection may have broken without our noticing; half an update is kept once, not for each try.
                work.arriving[device].drop()
            work.arriving[device] = Upload(_limit_bytes(work.weights))
            return work.arriving[device]

    def finish(self, run: str, number: int, device: str, upload: Upload) -> None:
        """Keep a device's update, now that it came whole; a later one of the same round replaces it.

        Raises:
            TrainingRoundError: The round is over, or the device began another update.
        """
        with self._lock:
            work = self._open(run, number)
            payload = upload.take()
            work.updates[device] = payload, hashlib.sha256(payload).hexdigest()
            if work.arriving.get(device) is upload:
                del work.arriving[device]
        work.on_upload(device)

    def accept(self, run: str, number: int, device: str, token: str, payload: bytes) -> None:
        """Take a whole update at once.

        Raises:
            TrainingRoundError: The round is not open, the token is not this device's, or the payload is too long.
        """
        upload = self.begin(run, number, device, token)
        upload.add(payload)
        self.finish(run, number, device, upload)

    def update(self, run: str, number: int, device: str, sha256: str) -> bytes | None:
        """Return the update of a device that has this SHA-256; None while none or another one has come."""
        with self._lock:
            work = self._rounds.get((run, number))
            payload, found = work.updates.get(device, (None, "")) if work is not None else (None, "")
            return payload if found == sha256 else None

    def has_fetched(self, run: str, number: int, device: str) -> bool:
        """Return whether a device has fetched the round's weights."""
        with self._lock:
            work = self._rounds.get((run, number))
            return work is not None and device in work.fetched

    def _open(self, run: str, number: int) -> _OpenRound:
        try:
            return self._rounds[run, number]
        except KeyError:
            detail = f"expected an open training round, found that round {number} of {run} is not; wait for the next"
            raise TrainingRoundError(404, detail) from None

    def _authorized(self, run: str, number: int, device: str, token: str) -> _OpenRound:
        work = self._open(run, number)
        # A device outside the round is compared too, so that the answer takes as long.
        known = work.token_hashes.get(device, b"\0" * 32)
        if not hmac.compare_digest(known, _hash(token)):
            raise _refused()
        return work


class RoundService(Protocol):
    """What a round needs of the fleet service."""

    def devices(self) -> Sequence[Device]:
        """Return all devices."""

    def send(self, device: str, channel: Channel, payload: bytes) -> None:
        """Publish a message to one device."""

    def subscribe(self, callback: Callable[[FleetEvent], None]) -> Callable[[], None]:
        """Call *callback* with every event until the returned function is called."""


class WireRoundTransport:
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
            return [
                self._judge(work, device, answers.get(device), _limit_bytes(weights)) for device in sorted(work.devices)
            ]
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
        return self._exchange.update(work.run, work.round, device, answer.weights.sha256) is not None

    def _judge(self, work: RoundWork, device: str, answer: TrainUpdate | None, limit_bytes: int) -> DeviceUpdate:
        if answer is None:
            return DeviceUpdate(device=device, state="timed out", reason=f"no answer within {work.deadline_s:g} s")
        if answer.state == "declined":
            return DeviceUpdate(device=device, state="declined", examples=answer.examples, reason=answer.reason)
        if answer.state != "done":
            return DeviceUpdate(device=device, state="failed", reason=answer.reason)
        announced = answer.weights.sha256 if answer.weights is not None else ""
        payload = self._exchange.update(work.run, work.round, device, announced)
        if payload is None:
            reason = "expected the weights that it announced, found none or others"
            return DeviceUpdate(device=device, state="timed out", reason=reason)
        try:
            # Whether they are weights of this model is judged with those of the others, by the grid.
            weights = decode_arrays(payload, f"update of {device}", limit_bytes=limit_bytes)
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


def _limit_bytes(weights: bytes) -> int:
    """Return how long an update may be that answers these weights."""
    return len(weights) + _SLACK_BYTES


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def _refused() -> TrainingRoundError:
    return TrainingRoundError(401, "expected this round's token, found another; take it from the training task")
