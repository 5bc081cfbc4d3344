"""Messages and topics of the wire protocol (docs/wire.md). Pure: bytes in, dataclasses out, and back.

Every message from a device carries (boot, sequence) or (rollout, attempt), so that repeats are harmless and gaps
show. Nothing relies on the broker keeping a message: state is versioned and sent again.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar, Self

from hedgerow.decode import Fields, decode_json, encode_json
from hedgerow.errors import DecodeError
from hedgerow.link import PAYLOAD_LIMIT_BYTES
from hedgerow.manifest import RELEASE_ID, Blob
from hedgerow.window import WINDOW_SAMPLES_LIMIT, Window

__all__ = [
    "CHANNELS",
    "NAME",
    "VERSION_JUMP",
    "VERSION_LIMIT",
    "Channel",
    "Desired",
    "Execution",
    "ExecutionState",
    "Presence",
    "Reported",
    "Telemetry",
    "TrainTask",
    "TrainUpdate",
    "device_topic",
    "fleet_filter",
    "parse_topic",
]

PROTOCOL = "hedgerow/v1"
VERSION = 1
_LONGEST_AGE_S = 100 * 366 * 86400
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_PROBLEMS_LIMIT, _PROBLEM_CHARS = 16, 256

VERSION_JUMP = 1000
"""How far above the last version that a device accepted the next one may lie.

A number that may rise by anything is lost to the first liar. A service that is further ahead hears from the device's
report where it stands and goes on from there.
"""

VERSION_LIMIT = 2**40
"""No desired version lies above. A device reports at most half of it, so that there is always a next one."""

_SEQUENCE_LIMIT = 2**40
_ROUND_LIMIT = 10**6
_EXAMPLES_LIMIT = 10**9
_WEIGHTS_LIMIT_BYTES = 2**30
_METRICS_LIMIT = 64


class Channel(StrEnum):
    """The last level of a topic."""

    DESIRED = "desired"
    REPORTED = "reported"
    PRESENCE = "presence"
    EXECUTION = "execution"
    TELEMETRY = "telemetry"
    TRAIN = "train"
    UPDATE = "update"


CHANNELS = {channel.value: channel for channel in Channel}


def device_topic(fleet: str, device: str, channel: Channel) -> str:
    """Return the topic of one device's channel.

    Raises:
        ValueError: A name holds characters that are not allowed in topics.
    """
    for name in (fleet, device):
        if not NAME.fullmatch(name):
            raise ValueError(f"expected a name like {NAME.pattern}, found {name!r}")
    return f"{PROTOCOL}/{fleet}/{device}/{channel}"


def fleet_filter(fleet: str, channel: Channel) -> str:
    """Return the subscription for one channel of all devices."""
    return f"{PROTOCOL}/{fleet}/+/{channel}"


def parse_topic(topic: str) -> tuple[str, str, Channel] | None:
    """Return (fleet, device, channel), or None for a topic that is not ours."""
    parts = topic.split("/")
    if len(parts) != 5 or "/".join(parts[:2]) != PROTOCOL or parts[4] not in CHANNELS:
        return None
    if not NAME.fullmatch(parts[2]) or not NAME.fullmatch(parts[3]):
        return None
    return parts[2], parts[3], CHANNELS[parts[4]]


class _Message(ABC):
    """What all messages share: a name for errors, a version, canonical JSON."""

    KIND: ClassVar[str]

    @abstractmethod
    def to_record(self) -> dict[str, Any]:
        """Return this as plain JSON values."""

    @classmethod
    @abstractmethod
    def from_fields(cls, fields: Fields) -> Self:
        """Decode the fields."""

    def encode(self) -> bytes:
        """Encode as canonical JSON."""
        return encode_json({"v": VERSION, **self.to_record()})

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        """Decode a message.

        Raises:
            DecodeError: The payload is not one, is too long, or is of another protocol version.
        """
        fields = decode_json(payload, cls.KIND, limit_bytes=PAYLOAD_LIMIT_BYTES)
        fields.integer("v", minimum=VERSION, maximum=VERSION)
        message = cls.from_fields(fields)
        fields.finish()
        return message


@dataclass(frozen=True, slots=True, kw_only=True)
class Desired(_Message):
    """What the fleet wants of a device (retained).

    Attributes:
        version: Rises with every change, from 1. To a version that it has seen, a device answers with its report and
            the end of its last installation, for they may have been lost; 0 wants nothing and only asks for that.
        release: The release to run; None: none.
        rollout: The rollout that asks for it; None for a plain assignment.
        attempt: Which try of this device in that rollout, from 1.
        compare: Run the model before on the same inputs too, and count (see :class:`PairedCounts`).
    """

    KIND: ClassVar[str] = "desired"
    version: int
    release: str | None
    rollout: str | None = None
    attempt: int = 1
    compare: bool = False

    def to_record(self) -> dict[str, Any]:
        """Return this as plain JSON values."""
        return {
            "version": self.version,
            "release": self.release,
            "rollout": self.rollout,
            "attempt": self.attempt,
            "compare": self.compare,
        }

    @classmethod
    def from_fields(cls, fields: Fields) -> Self:
        """Decode the fields."""
        return cls(
            version=fields.integer("version", maximum=VERSION_LIMIT),
            release=fields.optional_text("release", pattern=RELEASE_ID),
            rollout=fields.optional_text("rollout", pattern=NAME),
            attempt=fields.integer("attempt", minimum=1, maximum=100),
            compare=fields.boolean("compare"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Reported(_Message):
    """What a device says it is, on connecting and after every change.

    Attributes:
        boot: Random identity of this start of the agent.
        sequence: Rises with every report of this boot.
        desired_version: The last desired version it acted on.
        release: The active release; None: none.
        previous: The release in the other slot, ready to go back to.
        target: Its hardware target.
        agent_version: Version of Hedgerow on it.
        runtimes: The runtimes it can load.
        problems: What does not work on it now, as ``part: reason``; empty: all is well.
    """

    KIND: ClassVar[str] = "reported"
    boot: str
    sequence: int
    desired_version: int
    release: str | None
    previous: str | None
    target: str
    agent_version: str
    runtimes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()

    def to_record(self) -> dict[str, Any]:
        """Return this as plain JSON values."""
        record: dict[str, Any] = {
            "boot": self.boot,
            "sequence": self.sequence,
            "desired_version": self.desired_version,
            "release": self.release,
            "previous": self.previous,
            "target": self.target,
            "agent_version": self.agent_version,
            "runtimes": list(self.runtimes),
        }
        if self.problems:
            # Absent when all is well: a receiver that does not know the field would refuse the message.
            record["problems"] = [text[:_PROBLEM_CHARS] for text in self.problems[:_PROBLEMS_LIMIT]]
        return record

    @classmethod
    def from_fields(cls, fields: Fields) -> Self:
        """Decode the fields."""
        return cls(
            boot=fields.text("boot", pattern=NAME),
            sequence=fields.integer("sequence", maximum=_SEQUENCE_LIMIT),
            desired_version=fields.integer("desired_version", maximum=VERSION_LIMIT // 2),
            release=fields.optional_text("release", pattern=RELEASE_ID),
            previous=fields.optional_text("previous", pattern=RELEASE_ID),
            target=fields.text("target", pattern=NAME),
            agent_version=fields.text("agent_version", maximum_chars=64),
            runtimes=fields.texts("runtimes", maximum_items=16, maximum_chars=64),
            problems=(
                fields.texts("problems", maximum_items=_PROBLEMS_LIMIT, maximum_chars=_PROBLEM_CHARS)
                if "problems" in fields.names()
                else ()
            ),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Presence(_Message):
    """Whether a device is connected (retained; the offline form is its last will)."""

    KIND: ClassVar[str] = "presence"
    online: bool
    boot: str

    def to_record(self) -> dict[str, Any]:
        """Return this as plain JSON values."""
        return {"online": self.online, "boot": self.boot}

    @classmethod
    def from_fields(cls, fields: Fields) -> Self:
        """Decode the fields."""
        return cls(online=fields.boolean("online"), boot=fields.text("boot", pattern=NAME))


class ExecutionState(StrEnum):
    """One device's part in a rollout (AWS IoT Jobs' states)."""

    QUEUED = "QUEUED"
    IN_PROGRESS = "IN_PROGRESS"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    TIMED_OUT = "TIMED_OUT"
    REJECTED = "REJECTED"
    CANCELED = "CANCELED"
    REMOVED = "REMOVED"

    @property
    def is_terminal(self) -> bool:
        """Whether nothing follows."""
        return self not in {ExecutionState.QUEUED, ExecutionState.IN_PROGRESS}


_DEVICE_STATES = {
    state.value: state
    for state in (ExecutionState.IN_PROGRESS, ExecutionState.SUCCEEDED, ExecutionState.FAILED, ExecutionState.REJECTED)
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution(_Message):
    """A device's progress in a rollout.

    Attributes:
        rollout, attempt: Which part of which rollout.
        state: IN_PROGRESS, SUCCEEDED, FAILED (may be tried again) or REJECTED (must not be: wrong hardware, missing
            runtime, refused signature).
        step: What it is doing, such as ``verify``, ``download``, ``load``, ``replay``, ``commit``.
        reason: Why it failed; one sentence.
    """

    KIND: ClassVar[str] = "execution"
    rollout: str
    attempt: int
    state: ExecutionState
    step: str = ""
    reason: str = ""

    def to_record(self) -> dict[str, Any]:
        """Return this as plain JSON values."""
        return {
            "rollout": self.rollout,
            "attempt": self.attempt,
            "state": self.state.value,
            "step": self.step,
            "reason": self.reason[:1024],
        }

    @classmethod
    def from_fields(cls, fields: Fields) -> Self:
        """Decode the fields."""
        return cls(
            rollout=fields.text("rollout", pattern=NAME),
            attempt=fields.integer("attempt", minimum=1, maximum=100),
            state=fields.choice("state", _DEVICE_STATES),
            step=fields.text("step", maximum_chars=64),
            reason=fields.text("reason"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Telemetry(_Message):
    """One window, with what identifies it."""

    KIND: ClassVar[str] = "telemetry"
    boot: str
    sequence: int
    window: Window

    def to_record(self) -> dict[str, Any]:
        """Return this as plain JSON values."""
        return {"boot": self.boot, "sequence": self.sequence, "window": self.window.to_record()}

    @classmethod
    def from_fields(cls, fields: Fields) -> Self:
        """Decode the fields."""
        window = Window.from_fields(fields.nested("window"), limit_samples=WINDOW_SAMPLES_LIMIT)
        _check_paired(window, fields)
        return cls(
            boot=fields.text("boot", pattern=NAME),
            sequence=fields.integer("sequence", maximum=_SEQUENCE_LIMIT),
            window=window,
        )


def _check_paired(window: Window, fields: Fields) -> None:
    """Refuse a comparison that saw more of the new model than the window did: a gate judges by both."""
    paired = window.paired
    for found, most, what in (
        (paired.both_right + paired.only_new_right, window.correct, "right"),
        (paired.both_wrong + paired.only_old_right, window.labelled - window.correct, "wrong"),
    ):
        if found > most:
            expected = f"at most {most} samples on which the new model is {what}"
            raise DecodeError(f"{fields.where}.window.paired", expected, str(found))


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainTask(_Message):
    """One round's work for one device.

    Attributes:
        run: Identity of the training run.
        round: Round number, from 1.
        release: Whose train graph to use; the device must have it.
        weights: The global weights, fetched over HTTP from ``/v1/training/<run>/<round>/weights``.
        token: Lets this device fetch the weights and send its update, in this round only.
        epochs: Passes over the labelled buffer.
        learning_rate: Step size.
        seed: Of the order of samples; the device mixes its own identity in.
        minimum_samples: A device with fewer labelled samples declines.
        deadline_s: Seconds after which the round goes on without it.
        maximum_age_s: Samples that were labelled longer ago, before this device's world changed, are left out; a span
            and not a moment, since clocks differ. None, and then not in the message: all count.
    """

    KIND: ClassVar[str] = "train"
    run: str
    round: int
    release: str
    weights: Blob
    token: str = field(repr=False)
    epochs: int
    learning_rate: float
    seed: int
    minimum_samples: int
    deadline_s: float
    maximum_age_s: float | None = None

    def to_record(self) -> dict[str, Any]:
        """Return this as plain JSON values."""
        record = {
            "run": self.run,
            "round": self.round,
            "release": self.release,
            "weights": self.weights.to_record(),
            "token": self.token,
            "epochs": self.epochs,
            "learning_rate": self.learning_rate,
            "seed": self.seed,
            "minimum_samples": self.minimum_samples,
            "deadline_s": self.deadline_s,
        }
        return record | ({} if self.maximum_age_s is None else {"maximum_age_s": self.maximum_age_s})

    @classmethod
    def from_fields(cls, fields: Fields) -> Self:
        """Decode the fields."""
        weights = Blob.from_fields(fields.nested("weights"))
        _check_weights(weights, fields)
        return cls(
            run=fields.text("run", pattern=NAME),
            round=fields.integer("round", minimum=1, maximum=_ROUND_LIMIT),
            release=fields.text("release", pattern=RELEASE_ID),
            weights=weights,
            token=fields.text("token", maximum_chars=128),
            epochs=fields.integer("epochs", minimum=1, maximum=1000),
            learning_rate=fields.number("learning_rate", minimum=0, maximum=1000),
            seed=fields.integer("seed"),
            minimum_samples=fields.integer("minimum_samples", maximum=_EXAMPLES_LIMIT),
            deadline_s=fields.number("deadline_s", minimum=0, maximum=7 * 86400),
            maximum_age_s=fields.optional_number("maximum_age_s", minimum=0, maximum=_LONGEST_AGE_S),
        )


_UPDATE_STATES = {"done": "done", "declined": "declined", "failed": "failed"}


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainUpdate(_Message):
    """A device's answer to a round.

    Attributes:
        run, round: Which round.
        state: ``done``, ``declined`` (policy, too few samples) or ``failed``.
        examples: Samples that the update was trained on.
        metrics: Such as ``loss``.
        weights: Hash and length of the update that was sent over HTTP; None unless done.
        reason: Why it was declined or failed; one sentence.
    """

    KIND: ClassVar[str] = "update"
    run: str
    round: int
    state: str
    examples: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)
    weights: Blob | None = None
    reason: str = ""

    def to_record(self) -> dict[str, Any]:
        """Return this as plain JSON values."""
        return {
            "run": self.run,
            "round": self.round,
            "state": self.state,
            "examples": self.examples,
            "metrics": dict(self.metrics),
            "weights": self.weights.to_record() if self.weights else None,
            "reason": self.reason[:1024],
        }

    @classmethod
    def from_fields(cls, fields: Fields) -> Self:
        """Decode the fields."""
        metrics = fields.nested("metrics")
        if len(metrics.names()) > _METRICS_LIMIT:
            raise DecodeError(metrics.where, f"at most {_METRICS_LIMIT} metrics", str(len(metrics.names())))
        weights = fields.optional("weights")
        update = cls(
            run=fields.text("run", pattern=NAME),
            round=fields.integer("round", minimum=1, maximum=_ROUND_LIMIT),
            state=fields.choice("state", _UPDATE_STATES),
            examples=fields.integer("examples", maximum=_EXAMPLES_LIMIT),
            metrics={name: metrics.number(name) for name in metrics.names()},
            weights=Blob.from_fields(weights) if weights else None,
            reason=fields.text("reason"),
        )
        if (update.state == "done") != (update.weights is not None):
            raise DecodeError(f"{fields.where}.weights", "weights exactly when done", update.state)
        if update.weights is not None:
            _check_weights(update.weights, fields)
        return update


def _check_weights(blob: Blob, fields: Fields) -> None:
    if blob.length_bytes > _WEIGHTS_LIMIT_BYTES:
        where = f"{fields.where}.weights.length_bytes"
        raise DecodeError(where, f"at most {_WEIGHTS_LIMIT_BYTES} bytes", str(blob.length_bytes))
