"""Which settings a sweep varies, and over what. Pure."""

import hashlib
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote

from hedgerow.errors import UnknownNameError
from hedgerow.partition import parse_partition
from hedgerow.server.simulation.errors import SimulationError
from hedgerow.server.simulation.plan import SimulationPlan

__all__ = ["VARIABLE", "Choice", "Choices", "Span", "Variation", "grid_of", "named", "parse_variations", "plan_with"]

Choice = str | int | float
Choices = Mapping[str, Choice]
"""Setting -> its value in one trial."""

_MAX_VALUES = 10_000
_NAME_CHARS = 180
VARIABLE: Mapping[str, type[str] | type[int] | type[float]] = {
    "batch-size": int,
    "clients": int,
    "cohort": int,
    "deadline": float,
    "epochs": int,
    "learning-rate": float,
    "momentum": float,
    "optimizer": str,
    "partition": str,
    "samples": int,
    "seed": int,
    "strategy": str,
    "weight-decay": float,
}
"""The settings that can be varied, by the names of their options."""


@dataclass(frozen=True, slots=True)
class Span:
    """A range to search in, both ends included.

    Attributes:
        low, high: Its ends.
        logarithmic: Equal factors are equally likely, not equal differences.
    """

    low: float
    high: float
    logarithmic: bool = False


@dataclass(frozen=True, slots=True)
class Variation:
    """One setting of a sweep.

    Attributes:
        name: A key of :data:`VARIABLE`.
        values: All of them are tried; empty when *span* is given.
        span: The search goes on within it.
    """

    name: str
    values: tuple[Choice, ...] = ()
    span: Span | None = None


def parse_variations(texts: Sequence[str]) -> tuple[Variation, ...]:
    """Read what a sweep varies.

    Args:
        texts: Each ``name=`` and either values with commas between them (semicolons, when a value itself has commas),
            or a range ``low..high`` or ``log:low..high``. A range of seeds is all of them.

    Raises:
        UnknownNameError: A setting cannot be varied.
        SimulationError: Values are no numbers, or a range is empty.
    """
    found: dict[str, Variation] = {}
    for text in texts:
        name, equals, values = text.partition("=")
        name = name.strip().lower().replace("_", "-")
        if name not in VARIABLE:
            raise UnknownNameError("setting that can be varied", name, VARIABLE)
        if name in found:
            raise SimulationError("each setting varied once", f"{name} twice", "put all its values into one --vary")
        if not equals or not values.strip():
            raise _malformed(text, name)
        found[name] = _span(text, name, values) if _is_span(name, values) else _listed(text, name, values)
    return tuple(found.values())


def grid_of(variations: Sequence[Variation]) -> Iterator[Choices]:
    """Yield every combination of the values of *variations*, none of which is a span."""
    names = [variation.name for variation in variations]
    for values in itertools.product(*(variation.values for variation in variations)):
        yield dict(zip(names, values, strict=True))


def plan_with(plan: SimulationPlan, choices: Choices) -> SimulationPlan:
    """Return *plan* with the settings of one trial.

    Raises:
        PartitionError: A partition is malformed.
        SimulationError: A deadline is varied without a device model.
    """
    changes: dict[str, Any] = {name.replace("-", "_"): value for name, value in choices.items()}
    if "partition" in changes:
        changes["partition"] = parse_partition(changes["partition"])
    if "deadline" in changes:
        if plan.devices is None:
            raise SimulationError(
                "a device model whose deadline can be varied", "none", "add --population phones, or --trace"
            )
        changes["devices"] = replace(plan.devices, deadline_s=changes.pop("deadline"))
    return replace(plan, **changes)


def named(choices: Choices) -> str:
    """Return *choices* as one word that can name a folder, the same for the same choices."""
    word = ",".join(f"{name}={_shown(value)}" for name, value in sorted(choices.items())) or "as-given"
    quoted = quote(word, safe="=,:+;")
    if len(quoted) <= _NAME_CHARS:
        return quoted
    return f"{quoted[:_NAME_CHARS]}-{hashlib.sha256(word.encode()).hexdigest()[:16]}"


def _shown(value: Choice) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _is_span(name: str, values: str) -> bool:
    return VARIABLE[name] is not str and ".." in values and "," not in values


def _span(text: str, name: str, values: str) -> Variation:
    logarithmic = values.strip().startswith("log:")
    ends = values.strip().removeprefix("log:").split("..")
    if len(ends) != 2:
        raise _malformed(text, name)
    low, high = (_value(text, name, end) for end in ends)
    if isinstance(low, str) or isinstance(high, str) or not low < high or (logarithmic and low <= 0):
        raise _malformed(text, name)
    if name == "seed":
        if high - low >= _MAX_VALUES:
            raise _malformed(text, name)
        return Variation(name, tuple(range(int(low), int(high) + 1)))
    return Variation(name, span=Span(low, high, logarithmic))


def _listed(text: str, name: str, values: str) -> Variation:
    parts = values.split(";" if ";" in values else ",")
    listed = tuple(dict.fromkeys(_value(text, name, part) for part in parts))
    if len(listed) > _MAX_VALUES:
        raise _malformed(text, name)
    return Variation(name, listed)


def _value(text: str, name: str, part: str) -> Choice:
    kind = VARIABLE[name]
    if not part.strip():
        raise _malformed(text, name)
    try:
        value = kind(part.strip())
    except ValueError:
        raise _malformed(text, name) from None
    if isinstance(value, float) and not math.isfinite(value):
        raise _malformed(text, name)
    return value


def _malformed(text: str, name: str) -> SimulationError:
    examples = {str: f"{name}=one,other", int: f"{name}=1,10 or {name}=1..10", float: f"{name}=log:0.001..1"}
    return SimulationError(f"values to vary as in --vary {examples[VARIABLE[name]]}", repr(text), "correct it")
