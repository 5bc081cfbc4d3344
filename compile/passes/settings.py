"""Settings of a pass as a frozen dataclass: read from a recipe's plain mapping, refused when they make no sense.

A pass declares its settings as fields with :func:`between` or :func:`one_of`; a field with a default may be left out.
"""

import math
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, TypeVar

from hedgerow.compile.errors import PassSettingsError
from hedgerow.compile.stage import Settings

__all__ = ["NoSettings", "between", "one_of", "read_settings", "yes_or_no"]

S = TypeVar("S")


@dataclass(frozen=True, slots=True)
class NoSettings:
    """Settings of a pass that has none."""


def between(low: float, high: float, *, default: Any = MISSING) -> Any:
    """Return a field for a number from *low* to *high*, both included."""
    return field(default=default, metadata={"range": (low, high)})


def one_of(*choices: str | int, default: Any = MISSING) -> Any:
    """Return a field for one of *choices*."""
    return field(default=default, metadata={"choices": choices})


def yes_or_no(*, default: Any = MISSING) -> Any:
    """Return a field for a truth value."""
    return field(default=default, metadata={"choices": (False, True)})


def read_settings(step: str, kind: type[S], settings: Settings) -> S:
    """Return *settings* as *kind*.

    Args:
        step: Name of the pass, for messages.
        kind: A frozen dataclass; its fields are ``int``, ``float``, ``bool`` or ``str``.
        settings: As in a recipe.

    Raises:
        PassSettingsError: A setting is unknown, missing, of another type or out of its range.
    """
    known = {entry.name: entry for entry in fields(kind)}  # type: ignore[arg-type]
    listed = ", ".join(sorted(known)) or "none"
    if unknown := sorted(set(settings) - set(known)):
        raise PassSettingsError(step, unknown[0], f"one of its settings ({listed})", "a setting that it does not have")
    values: dict[str, Any] = {}
    for name, entry in known.items():
        if name not in settings:
            if entry.default is MISSING:
                raise PassSettingsError(step, name, "a value", "none")
            continue
        value = settings[name]
        wanted: Any = entry.type
        if wanted is float and type(value) is int:
            value = float(value)
        if type(value) is not wanted:
            raise PassSettingsError(step, name, wanted.__name__, f"{type(value).__name__} {value!r}")
        _check_value(step, name, value, entry.metadata)
        values[name] = value
    return kind(**values)


def _check_value(step: str, name: str, value: Any, metadata: Any) -> None:
    if "choices" in metadata and value not in metadata["choices"]:
        raise PassSettingsError(step, name, f"one of {', '.join(map(str, metadata['choices']))}", repr(value))
    if "range" in metadata:
        low, high = metadata["range"]
        if not (math.isfinite(value) and low <= value <= high):
            raise PassSettingsError(step, name, f"a number from {low:g} to {high:g}", repr(value))
