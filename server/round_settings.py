"""What a round's messages say of the clients' work: the configuration of a train message <-> ``LocalWork``.

The keys are ``server-round`` and the others of :func:`settings_of`, FedProx's ``proximal-mu`` and Flower's
``clipping_norm``; what a message leaves out is said by whoever receives it.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from hedgerow.local_work import LocalWork
from hedgerow.server.flower import clipping_keys

if TYPE_CHECKING:
    from flwr.app import Message

__all__ = ["PROXIMAL_MU", "SERVER_ROUND", "message_settings", "settings_of", "work_of"]

N = TypeVar("N", int, float)

SERVER_ROUND = "server-round"
"""The key under which Flower's strategies name the round."""
PROXIMAL_MU = "proximal-mu"
"""The key under which ``FedProx`` names the weight of its term."""


def settings_of(work: LocalWork) -> dict[str, str | int | float]:
    """Return what a strategy is told of *work*, for the configuration of its messages.

    What strategies themselves set is left out: the round, the proximal term and the norm to clip to.
    """
    return {
        "seed": work.seed,
        "epochs": work.epochs,
        "learning-rate": work.learning_rate,
        "batch-size": work.batch_size,
        "optimizer": work.optimizer,
        "momentum": work.momentum,
        "weight-decay": work.weight_decay,
        "minimum-samples": work.minimum_samples,
    }


def message_settings(message: "Message") -> dict[str, Any]:
    """Return all configuration of a Flower message; of two records with one key the later one counts."""
    settings: dict[str, Any] = {}
    for record in message.content.config_records.values():
        settings.update(record)
    return settings


def work_of(settings: Mapping[str, Any], default: LocalWork) -> LocalWork:
    """Return what the *settings* of a message ask of every client that receives it.

    Args:
        settings: As :func:`message_settings` returns them, of any strategy.
        default: What a key says that is absent.

    Raises:
        ValueError: A value is no number, or one that no client can follow.
    """
    norm_key = clipping_keys()[0]
    clip_norm = settings.get(norm_key, default.clip_norm)

    def number(key: str, kind: type[N], known: N) -> N:
        value = settings.get(key, known)
        try:
            return kind(value)
        except (TypeError, OverflowError) as exc:
            raise ValueError(f"expected a number as {key}, found {value!r:.80}") from exc

    return replace(
        default,
        round=number(SERVER_ROUND, int, default.round),
        seed=number("seed", int, default.seed),
        epochs=number("epochs", int, default.epochs),
        learning_rate=number("learning-rate", float, default.learning_rate),
        batch_size=number("batch-size", int, default.batch_size),
        optimizer=str(settings.get("optimizer", default.optimizer)),
        momentum=number("momentum", float, default.momentum),
        weight_decay=number("weight-decay", float, default.weight_decay),
        proximal_mu=number(PROXIMAL_MU, float, default.proximal_mu),
        clip_norm=None if clip_norm is None else number(norm_key, float, clip_norm),
        minimum_samples=number("minimum-samples", int, default.minimum_samples),
    )
