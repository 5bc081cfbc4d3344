"""What a run folder says of a run: its settings, one record a round, where it stands. Plain values and their JSON."""

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hedgerow.checkpoint import Checkpoint
from hedgerow.decode import Fields
from hedgerow.local_work import LocalWork
from hedgerow.server.privacy import NoisyMean
from hedgerow.weights import Arrays, encode_arrays

__all__ = ["RoundRecord", "RunSettings", "SavedRound"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSettings:
    """What makes a run the run it is. Runs with equal settings give equal weights, but for the noise of private ones.

    The number of rounds is free.

    Attributes:
        run: Identity, made once; the only field that is not compared.
        task, strategy, seed: What the checkpoint says too.
        grid: ``in-process``, ``fleet``, ...
        clients: In-process clients; 0 on other grids.
        fraction: Share of the clients that each round samples.
        epochs, learning_rate, batch_size: What the local steps are.
        data_fingerprint: Hash of the training data; empty when devices trained.
        initial_sha256: Hash of the weights that it starts from.
        parent: The release that it starts from, or None.
        more: Further settings of simulations, such as ``cohort``; plain values.
    """

    run: str
    task: str
    strategy: str
    seed: int
    grid: str
    clients: int
    fraction: float
    epochs: int
    learning_rate: float
    batch_size: int
    data_fingerprint: str
    initial_sha256: str
    parent: str | None = None
    more: Mapping[str, str | int | float | bool] = field(default_factory=dict)

    def to_record(self) -> dict[str, Any]:
        """Return this as plain JSON values."""
        record = {name: getattr(self, name) for name in self.__slots__ if name != "more"}
        return {**record, "more": dict(self.more)} if self.more else record

    def checkpoint(self, weights: Arrays, round_number: int, metrics: Mapping[str, float]) -> Checkpoint:
        """Return *weights* with the run's record."""
        return Checkpoint(
            weights=weights,
            task=self.task,
            run=self.run,
            round=round_number,
            strategy=self.strategy,
            grid=self.grid,
            seed=self.seed,
            data_fingerprint=self.data_fingerprint,
            parent=self.parent,
            metrics=metrics,
        )

    @classmethod
    def begun(
        cls,
        task: str,
        work: LocalWork,
        weights: Arrays,
        *,
        strategy: str,
        grid: str,
        clients: int,
        fraction: float,
        data_fingerprint: str,
        parent: str | None = None,
        more: Mapping[str, str | int | float | bool] | None = None,
    ) -> "RunSettings":
        """Return the settings of a new run, under an identity of its own.

        Args:
            task: The task's name.
            work: What clients do; its seed is the run's.
            weights: The run starts from them.
            strategy: The name of the strategy.
            grid: Where clients train.
            clients: How many there are in this process; 0 on other grids.
            fraction: The share of them that each round samples.
            data_fingerprint: The hash of the training data; empty when devices train.
            parent: The release that *weights* belong to, or None.
            more: Further settings of a simulation.
        """
        return cls(
            run=f"{task}-{secrets.token_hex(4)}",
            task=task,
            strategy=strategy,
            seed=work.seed,
            grid=grid,
            clients=clients,
            fraction=fraction,
            epochs=work.epochs,
            learning_rate=work.learning_rate,
            batch_size=work.batch_size,
            data_fingerprint=data_fingerprint,
            initial_sha256=hashlib.sha256(encode_arrays(weights)).hexdigest(),
            parent=parent,
            more=dict(more or {}),
        )

    @classmethod
    def from_fields(cls, fields: Fields) -> "RunSettings":
        """Decode the settings.

        Raises:
            DecodeError: A field is absent or unknown.
        """
        return cls(
            run=fields.text("run"),
            task=fields.text("task"),
            strategy=fields.text("strategy"),
            seed=fields.integer("seed"),
            grid=fields.text("grid"),
            clients=fields.integer("clients"),
            fraction=fields.number("fraction"),
            epochs=fields.integer("epochs"),
            learning_rate=fields.number("learning_rate"),
            batch_size=fields.integer("batch_size"),
            data_fingerprint=fields.text("data_fingerprint"),
            initial_sha256=fields.text("initial_sha256"),
            parent=fields.optional_text("parent"),
            more=fields.scalars("more") if "more" in fields.names() else {},
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundRecord:
    """What one finished round was.

    Attributes:
        round: The round's number, from 1.
        loss, score: On held-out data after the round; None without such data, and after rounds that were not evaluated.
            There is no score of outputs whose target values are not known.
        train_loss: Mean of the participants' losses, weighted by examples; None when nobody reported one.
        seconds: Wall-clock time of the round, with its evaluation.
        examples: Samples that all participants trained on.
        participants: Names of the clients or devices whose updates were averaged, sorted; empty where *clients* is
            set.
        failures: Name -> why its update was not used, of the first hundred.
        refused: Why updates were not used, in a word (``hedgerow.server.replies.Kind``) -> how many.
        privacy: What the round gave away; None: nothing, or it promised nothing.
        clients: How many clients' updates were averaged where they are too many to be named: the seed and the round say
            which. None: *participants* names them.
        virtual_s: Time at the end of the round on the virtual clock of a device model; None without one.
        score_key: What the mean score is called in the line: ``accuracy`` for classes, else ``score``.
    """

    round: int
    loss: float | None
    score: float | None
    train_loss: float | None
    seconds: float
    examples: int
    participants: tuple[str, ...]
    failures: Mapping[str, str] = field(default_factory=dict)
    refused: Mapping[str, int] = field(default_factory=dict)
    virtual_s: float | None = None
    clients: int | None = None
    privacy: NoisyMean | None = None
    score_key: str = "score"

    @property
    def used(self) -> int:
        """How many updates were used."""
        return len(self.participants) if self.clients is None else self.clients

    def to_record(self) -> dict[str, Any]:
        """Return this as plain JSON values."""
        optional = {"virtual_s": self.virtual_s, "clients": self.clients}
        return {
            "round": self.round,
            "loss": self.loss,
            self.score_key: self.score,
            "train_loss": self.train_loss,
            "seconds": self.seconds,
            "examples": self.examples,
            "participants": list(self.participants),
            "failures": {name: reason[:256] for name, reason in self.failures.items()},
            **({"refused": dict(self.refused)} if self.refused else {}),
            **({} if self.privacy is None else {"privacy": self.privacy.to_record()}),
            **{name: value for name, value in optional.items() if value is not None},
        }

    @classmethod
    def from_fields(cls, fields: Fields) -> "RoundRecord":
        """Decode a line.

        Raises:
            DecodeError: A field is absent or unknown.
        """
        failures = fields.nested("failures")
        score_key = "accuracy" if "accuracy" in fields.names() else "score"
        refused = fields.nested("refused") if "refused" in fields.names() else None
        record = cls(
            round=fields.integer("round", minimum=1),
            loss=fields.optional_number("loss"),
            score=fields.optional_number(score_key),
            score_key=score_key,
            train_loss=fields.optional_number("train_loss"),
            seconds=fields.number("seconds", minimum=0),
            examples=fields.integer("examples"),
            participants=fields.texts("participants", maximum_items=100_000),
            failures={name: failures.text(name) for name in failures.names()},
            refused={} if refused is None else {name: refused.integer(name) for name in refused.names()},
            virtual_s=fields.optional_number("virtual_s", minimum=0),
            clients=fields.optional_integer("clients"),
            privacy=_noisy_mean_of(fields.nested("privacy")) if "privacy" in fields.names() else None,
        )
        fields.finish()
        return record


def _noisy_mean_of(fields: Fields) -> NoisyMean:
    mean = NoisyMean(
        nodes=fields.integer("nodes"),
        asked=fields.integer("asked"),
        answered=fields.integer("answered"),
        clip=fields.number("clip", minimum=0),
        noise_std=fields.number("noise_std", minimum=0),
    )
    fields.finish()
    return mean


@dataclass(frozen=True, slots=True)
class SavedRound:
    """Where a run stands.

    Attributes:
        checkpoint: Weights after the round.
        state: What the strategy carries on.
        grid: What the grid carries on, as plain JSON values; None: nothing.
    """

    checkpoint: Checkpoint
    state: Arrays
    grid: Mapping[str, Any] | None = None
