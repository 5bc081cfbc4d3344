"""What a differential-privacy wrapper is asked for, and what it did: terms, means, and a statement of both. Pure.

The mechanism (McMahan et al. 2018, arXiv 1710.06963; Andrew et al. 2021, arXiv 1905.03871 for a norm that follows a
quantile): each client's update is clipped to the L2 norm C, the n that came are averaged with equal weights, and noise
of the standard deviation z C / n is added to every number of the mean. So one client moves the mean by at most C / n.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from hedgerow.errors import UnknownNameError
from hedgerow.server.errors import StrategyOptionError

__all__ = ["PRIVACY", "NoisyMean", "PrivacyTerms", "next_norm", "parse_privacy"]

PRIVACY: Mapping[str, str] = {
    "client-fixed": "clients clip to a fixed norm, and the server makes sure of it",
    "client-adaptive": "clients clip, and the server makes sure of it; the norm follows a quantile of the updates'",
    "server-fixed": "the server clips to a fixed norm",
    "server-adaptive": "the server clips; the norm follows a quantile of the updates'",
}
"""Central differential privacy: who clips, and to what. The server adds the noise."""

_BY_CLIENT = frozenset({"client-fixed", "client-adaptive"})
_ADAPTIVE = frozenset({"client-adaptive", "server-adaptive"})
_LARGEST, _LEAST_NOISE = 1e6, 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivacyTerms:
    """What is asked for.

    Attributes:
        kind: A key of :data:`PRIVACY`.
        clip: The norm that updates are clipped to, or the first one.
        noise: Multiplier z: noise on the sum of updates, as a multiple of the norm. 0 is clipping without privacy.
        delta: The delta of the statement; None: 1e-5, or a tenth of one in the number of clients if that is less.
        quantile: The share of updates that an adaptive norm shall not clip.
        rate: How fast an adaptive norm follows.
        count_noise: The standard deviation of the noise on the count of updates that an adaptive norm clipped; None: a
            twentieth of the clients, or the multiplier if that is more.
    """

    kind: str
    clip: float = 1.0
    noise: float = 1.0
    delta: float | None = None
    quantile: float = 0.5
    rate: float = 0.2
    count_noise: float | None = None

    @property
    def by_client(self) -> bool:
        """Whether clients are told to clip."""
        return self.kind in _BY_CLIENT

    @property
    def adaptive(self) -> bool:
        """Whether the norm follows a quantile."""
        return self.kind in _ADAPTIVE

    @property
    def is_private(self) -> bool:
        """Whether there is noise: without it this is clipping, and no privacy."""
        return self.noise > 0

    def noise_on_count(self, clients: int) -> float:
        """Return the standard deviation of the noise on the count of clipped updates.

        Args:
            clients: That are expected in a round.
        """
        if self.count_noise is not None:
            return self.count_noise
        return max(clients / 20, self.noise) if self.is_private else 0.0

    def noise_on_updates(self, clients: int) -> float:
        """Return the multiplier of the noise on updates; with that on the count it makes *noise* of both together.

        Andrew et al. 2021, theorem 1.
        """
        if not (self.adaptive and self.is_private):
            return self.noise
        return float((self.noise**-2 - (2 * self.noise_on_count(clients)) ** -2) ** -0.5)

    def stated_delta(self, clients: int) -> float:
        """Return the delta of the statement."""
        return min(1e-5, 0.1 / max(1, clients)) if self.delta is None else self.delta

    def to_record(self) -> dict[str, Any]:
        """Return what the mechanism is, as plain JSON values."""
        shown = {"mechanism": self.kind, "clip": self.clip, "noise": self.noise}
        return {**shown, "quantile": self.quantile, "rate": self.rate} if self.adaptive else shown


@dataclass(frozen=True, slots=True, kw_only=True)
class NoisyMean:
    """What one round gave away: the noisy mean of some clients' updates.

    Attributes:
        nodes: Clients that were there to be drawn.
        asked: Clients that were drawn, without replacement.
        answered: Clients whose updates were used.
        clip: The norm that they were clipped to.
        noise_std: Standard deviation of the noise that was added to each number of their mean.
    """

    nodes: int
    asked: int
    answered: int
    clip: float
    noise_std: float

    def to_record(self) -> dict[str, Any]:
        """Return this as plain JSON values."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def next_norm(terms: PrivacyTerms, norm: float, unclipped: float) -> float:
    """Return the norm of the next round (Andrew et al. 2021, section 2.1).

    Args:
        terms: The mechanism.
        norm: The norm that this round clipped to.
        unclipped: The noisy share of updates that the norm did not clip; noise may have carried it out of [0, 1], from
            where it says no more than the nearest share. To bring it back costs no privacy.
    """
    if not terms.adaptive:
        return norm
    moved = norm * math.exp(-terms.rate * (min(1.0, max(0.0, unclipped)) - terms.quantile))
    return min(_LARGEST, max(1 / _LARGEST, moved))


def parse_privacy(name: str, kind: str, text: str, *, clients: int | None = None) -> PrivacyTerms:
    """Return the terms that a strategy's name asks for.

    Args:
        name: The whole name, for messages.
        kind: A key of :data:`PRIVACY`.
        text: Options: ``clip=1,noise=0.5``; what is left out is said by :class:`PrivacyTerms`.
        clients: That are expected in a round, if that is known already.

    Raises:
        UnknownNameError: No wrapper has this name.
        StrategyOptionError: An option is unknown, is there twice, is no finite number, or is out of its range.
    """
    if kind not in PRIVACY:
        raise UnknownNameError("privacy wrapper", kind, PRIVACY)
    known = ("clip", "noise", "delta", *(("quantile", "rate", "count-noise") if kind in _ADAPTIVE else ()))
    given: dict[str, float] = {}
    for part in text.split(",") if text else ():
        key, _equals, value = part.partition("=")
        if key not in known:
            raise StrategyOptionError(name, f"an option {key!r} (there are {', '.join(known)})")
        if key in given:
            raise StrategyOptionError(name, f"the option {key} twice")
        try:
            given[key] = float(value)
        except ValueError:
            raise StrategyOptionError(name, f"{key}={value!r}, which is no number") from None
        if not math.isfinite(given[key]):
            raise StrategyOptionError(name, f"{key}={value}, which is no finite number")
    terms = PrivacyTerms(kind=kind, **{key.replace("-", "_"): value for key, value in given.items()})
    _check_ranges(name, terms, clients)
    return terms


def _check_ranges(name: str, terms: PrivacyTerms, clients: int | None) -> None:
    wrong = {
        f"clip={terms.clip:g}, which is not above 0 and at most {_LARGEST:g}": not 0 < terms.clip <= _LARGEST,
        f"noise={terms.noise:g}, which is not 0 and not from {_LEAST_NOISE:g} to {_LARGEST:g}": not (
            terms.noise == 0 or _LEAST_NOISE <= terms.noise <= _LARGEST
        ),
        f"delta={terms.delta}, which is not between 0 and 1": not 0 < (terms.delta or 0.5) < 1 or terms.delta == 0,
        f"quantile={terms.quantile:g}, which is not from 0 to 1": not 0 <= terms.quantile <= 1,
        f"rate={terms.rate:g}, which is not above 0 and at most 10": not 0 < terms.rate <= 10,
        f"count-noise={terms.count_noise}, which is not from 0 to {_LARGEST:g}": not (
            0 <= (terms.count_noise or 0.0) <= _LARGEST
        ),
    }
    for found, is_wrong in wrong.items():
        if is_wrong:
            raise StrategyOptionError(name, found)
    if terms.adaptive and terms.is_private and 2 * terms.noise_on_count(clients or 1) <= terms.noise:
        least = terms.noise / 2
        raise StrategyOptionError(
            name, f"count-noise={terms.count_noise:g}, which must be above {least:g}, half of the noise"
        )
