"""A round of training: what a device is asked for, and what it answers. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

from hedgerow.decode import Fields
from hedgerow.errors import DecodeError
from hedgerow.manifest.content import Blob
from hedgerow.manifest.release import RELEASE_ID
from hedgerow.wire.message import WireMessage, one_line
from hedgerow.wire.topics import NAME

__all__ = ["TrainTask", "TrainUpdate"]

_LONGEST_AGE_S = 100 * 366 * 86400
_ROUND_LIMIT = 10**6
_EXAMPLES_LIMIT = 10**9
_WEIGHTS_LIMIT_BYTES = 2**30
_METRICS_LIMIT = 64
_UPDATE_STATES = {"done": "done", "declined": "declined", "failed": "failed"}


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainTask(WireMessage):
    """One round's work for one device.

    Attributes:
        run: Identity of the training run.
        round: Round number, from 1.
        release: Whose train graph to use; the device must have it.
        weights: The global weights, fetched over HTTP from ``/v1/training/<run>/<round>/weights``.
        token: Lets this device fetch the weights and send its update, in this round only.
        epochs: Passes over the labelled buffer.
        learning_rate: Step size.
        seed: The seed of the order of samples; the device mixes its own identity in.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainUpdate(WireMessage):
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
            reason=one_line(fields.text("reason")),
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
