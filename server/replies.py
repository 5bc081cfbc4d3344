"""Which replies of clients may be used: the one border that every grid's replies pass. Pure.

A reply is judged by itself (its form, the names, shapes, types and values of its arrays, its count of samples, its
metrics) and then beside the others of its round: the names of its metrics are those that most replies have, and its
update is no outlier in length. What fails is left out, with a kind that can be counted and a sentence that names what
was expected and what was found; the round goes on with the others.

**How long an update may be.** It is refused when it is both longer than the whole model (the norm of the weights that
were sent, plus one for each root mean square, so that a model of zeros may learn) and ``outlier_factor`` times as long
as the round's median; and in any case when it is a million times as long as the model. Both conditions together, for an
honest first round may do either: statistics of batches jump by more than the model's length when inputs are not
normalized, and then they do so for everybody; and a client with much data moves a hundred times as far as one with
little, but seldom further than the model is long. This keeps out numbers that destroy the mean, not a clever attacker:
that is what robust strategies are for. A number that is known to be enough may be declared instead.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hedgerow.errors import DecodeError
from hedgerow.weights import Arrays, check_same_arrays

__all__ = [
    "EXAMPLES",
    "Kind",
    "Refusal",
    "ReplyContents",
    "ReplyLimits",
    "judge_answers",
    "longest_update",
    "model_length",
    "narrowed",
    "too_long",
]

EXAMPLES = "num-examples"
"""The metric that says how many samples a client used."""
_WHOLE = {"steps": (1, 2**31), "norm_bit": (0, 1)}
"""Metrics that strategies compute with, and between what they may lie: SCAFFOLD's steps, Flower's bit of clipping."""
_LARGEST_CHANGE = 10**9
"""So far a whole number in the weights, such as BatchNorm's count of batches, may move in a round."""
_LARGEST_METRIC = 1e30
"""The sum of many numbers is finite if none is larger."""
_ABSURD = 1e6
"""No update may be so many times as long as the model."""


class Kind(StrEnum):
    """Why an update is not used, in a word that can be counted."""

    RAISED = "raised"
    CRASHED = "crashed"
    LATE = "late"
    ABSENT = "absent"
    DROPPED = "dropped out"
    DECLINED = "declined"
    TRANSPORT = "transport"
    FORM = "form"
    NOT_FINITE = "not finite"
    NORM = "norm"
    COUNT = "count"
    METRICS = "metrics"
    STRATEGY = "strategy"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a reply is not used.

    Attributes:
        kind: The reason in a word.
        reason: The same in a sentence.
    """

    kind: Kind
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplyLimits:
    """What a reply may say.

    Attributes:
        examples: So many samples a client may have used at most, where it declared no number before.
        norm: The longest update (L2 norm over all floats); None: see this module.
        outlier_factor: So many times the median's length, as this module says.
        metrics: Names that may stand beside ``num-examples``; None: those that most replies of the round have.
        needed: Names that trained replies must have, for the strategy computes with them -> between what they may lie.
    """

    examples: int = 1_000_000
    norm: float | None = None
    outlier_factor: float = 100.0
    metrics: frozenset[str] | None = None
    needed: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.examples < 1 or not self.outlier_factor >= 1 or not (self.norm is None or self.norm > 0):
            raise ValueError(f"expected limits that something can keep, found {self}")


@dataclass(frozen=True, slots=True)
class ReplyContents:
    """What one client said; nothing in it has been looked at.

    Attributes:
        arrays: Each record of arrays in it.
        metrics: Each record of metrics.
        examples: So many samples it declared before; None: it declared nothing.
    """

    arrays: Sequence[Mapping[str, object]]
    metrics: Sequence[Mapping[str, object]]
    examples: int | None = None


def judge_answers(
    answers: Sequence[ReplyContents], sent: Arrays | None, limits: ReplyLimits, *, trained: bool = True
) -> list[Refusal | None]:
    """Judge the answers to one message that went to several clients.

    Args:
        answers: What came in one round, in any order.
        sent: The weights that they were sent, whose names, shapes and types trained ones must have; None: arrays of
            any form pass.
        limits: What they may say.
        trained: They were asked to train: each holds one record of arrays.

    Returns:
        For each answer why it cannot be used, or None if it can.
    """
    limits = limits if trained else replace(limits, needed={})
    refusals = [_judge_alone(answer, sent, limits, trained=trained) for answer in answers]
    good = [place for place, refusal in enumerate(refusals) if refusal is None]
    names = _agreed([frozenset(answers[place].metrics[0]) for place in good])
    for place in good:
        found = frozenset(answers[place].metrics[0])
        if found != names:
            reason = f"expected the metrics {_listed(names)}, as most replies have, found {_listed(found)}"
            refusals[place] = Refusal(Kind.METRICS, reason)
    good = [place for place in good if refusals[place] is None]
    if trained and sent is not None and good:
        norms = np.array([_change_norm(answers[place].arrays[0], sent) for place in good])
        longest = longest_update(norms, model_length(sent), limits)
        for place, norm in zip(good, norms.tolist(), strict=True):
            if norm > longest:
                refusals[place] = too_long(norm, longest)
    return refusals


def too_long(norm: float, longest: float) -> Refusal:
    """Return the refusal of an update of a length above the *longest*."""
    return Refusal(Kind.NORM, f"expected an update no longer than {longest:.4g} (L2 norm), found {norm:.4g}")


def longest_update(norms: NDArray[np.float64], length: float, limits: ReplyLimits) -> float:
    """Return how long an update of a round may be.

    Args:
        norms: How long all updates are that are usable otherwise, ``float64[n]``.
        length: How long the model is, as :func:`model_length` says it.
        limits: What was declared.
    """
    if limits.norm is not None:
        return limits.norm
    finite = np.sort(norms[np.isfinite(norms)])
    # The lower one of two in the middle: of two clients the shorter update is the measure.
    median = float(finite[(len(finite) - 1) // 2]) if len(finite) else 0.0
    return min(_ABSURD * length, max(length, limits.outlier_factor * median))


def model_length(sent: Mapping[str, NDArray[np.generic]]) -> float:
    """Return the L2 norm of all floats in *sent*, plus the square root of their number."""
    floats = [array for array in sent.values() if array.dtype.kind == "f"]
    squares = sum(_squares(array) for array in floats)
    return float(np.sqrt(squares) + np.sqrt(sum(array.size for array in floats)))


def narrowed(arrays: Mapping[str, NDArray[np.generic]]) -> Arrays:
    """Return *arrays* with float64 narrowed to float32, the type of weights everywhere in Hedgerow."""
    with np.errstate(over="ignore"):  # what is too large becomes infinity, which is refused
        return {name: array.astype("float32") if array.dtype == "float64" else array for name, array in arrays.items()}


def _judge_alone(answer: ReplyContents, sent: Arrays | None, limits: ReplyLimits, *, trained: bool) -> Refusal | None:
    if trained and len(answer.arrays) != 1:
        return Refusal(Kind.FORM, f"expected one record of arrays, found {len(answer.arrays)}")
    if len(answer.metrics) != 1:
        return Refusal(Kind.FORM, f"expected one record of metrics, found {len(answer.metrics)}")
    wrong = _judge_arrays(answer.arrays[0], sent) if trained and sent is not None else None
    return wrong or _judge_metrics(answer.metrics[0], answer.examples, limits)


def _judge_arrays(found: Mapping[str, object], sent: Arrays) -> Refusal | None:
    arrays = {name: array for name, array in found.items() if isinstance(array, np.ndarray)}
    foreign = sorted(set(found) - set(arrays))
    if foreign:
        return Refusal(Kind.FORM, f"expected arrays, found {found[foreign[0]]!r:.120}")
    try:
        check_same_arrays(arrays, sent, "update")
    except DecodeError as exc:
        finite = all(np.isfinite(array).all() for array in arrays.values() if array.dtype.kind == "f")
        return Refusal(Kind.FORM if finite else Kind.NOT_FINITE, str(exc))
    for name, array in arrays.items():
        if array.dtype.kind in "iu" and array.size:
            change = np.abs(array.astype(np.float64) - sent[name].astype(np.float64)).max()
            if change > _LARGEST_CHANGE:
                reason = f"expected {name} to change by at most {_LARGEST_CHANGE}, found {change:.4g}"
                return Refusal(Kind.NORM, reason)
    return None


def _judge_metrics(metrics: Mapping[str, Any], declared: int | None, limits: ReplyLimits) -> Refusal | None:
    most = limits.examples if declared is None else declared
    examples = metrics.get(EXAMPLES)
    if not _is_whole(examples, 1, most):
        whose = "" if declared is None else ", which it declared"
        found = "none" if examples is None else _shown(examples)
        return Refusal(Kind.COUNT, f"expected a whole number of samples from 1 to {most}{whose}, found {found:.60}")
    for name, value in metrics.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            return Refusal(Kind.METRICS, f"expected one number as {name:.60}, found {type(value).__name__}")
        if isinstance(value, float) and not math.isfinite(value):
            return Refusal(Kind.METRICS, f"expected a finite number as {name:.60}, found {value}")
        if abs(value) > _LARGEST_METRIC:
            reason = f"expected a number within {_LARGEST_METRIC:g} as {name:.60}, found a larger one"
            return Refusal(Kind.METRICS, reason)
        if name in _WHOLE and not _is_whole(value, *_WHOLE[name]):
            low, high = _WHOLE[name]
            return Refusal(Kind.METRICS, f"expected a whole number from {low} to {high} as {name}, found {value}")
    for name, (least, greatest) in limits.needed.items():
        if name not in metrics or not least <= metrics[name] <= greatest:
            said = f"{metrics[name]:g}" if name in metrics else "none"
            reason = f"expected {name} from {least:g} to {greatest:g}, which the strategy computes with, found {said}"
            return Refusal(Kind.METRICS, reason)
    if limits.metrics is not None:
        extra = sorted(set(metrics) - limits.metrics - {EXAMPLES})
        if extra:
            declared_names = _listed(limits.metrics)
            return Refusal(Kind.METRICS, f"expected no metrics but {declared_names}, found {extra[0]:.60}")
    return None


def _is_whole(value: object, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _shown(value: object) -> str:
    """Return *value* as text; Python refuses to write very long whole numbers."""
    if isinstance(value, int) and abs(value) >= 10**60:
        return f"a whole number of {value.bit_length()} bits"
    return repr(value)


def _agreed(names: Sequence[frozenset[str]]) -> frozenset[str]:
    """Return the set of names that occurs most often; of several the smallest, so that extras never win."""
    if not names:
        return frozenset()
    counts = Counter(names)
    return min(counts, key=lambda each: (-counts[each], len(each), sorted(each)))


def _change_norm(arrays: Mapping[str, object], sent: Arrays) -> float:
    squares = 0.0
    for name, array in arrays.items():
        if isinstance(array, np.ndarray) and array.dtype.kind == "f":
            with np.errstate(over="ignore"):
                squares += _squares(array - sent[name])
    return float(np.sqrt(squares))


def _squares(array: NDArray[np.generic]) -> float:
    """Return the sum of squares; of numbers that overflow in their own type in float64."""
    flat = array.reshape(-1)
    with np.errstate(over="ignore", invalid="ignore"):
        total = float(np.dot(flat, flat))
    if np.isfinite(total):
        return total
    wide = flat.astype(np.float64)
    return float(np.dot(wide, wide))


def _listed(names: frozenset[str]) -> str:
    shown = sorted(names)[:8]
    return ", ".join(f"{name:.60}" for name in shown) + (", ..." if len(names) > len(shown) else "") or "(none)"
