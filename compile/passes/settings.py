"""Settings of a pass: the fields of its frozen dataclass, refused when they make no sense.

A pass declares its settings as fields with :func:`between`, :func:`one_of` or :func:`yes_or_no`, or as plain ones of
type ``int``, ``float``, ``bool`` or ``str``; a field with a default may be left out.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, field, fields
from functools import cache
from typing import Any, get_type_hints

from hedgerow.compile.errors import PassSettingsError

__all__ = ["Setting", "between", "check_names", "check_values", "one_of", "shown", "yes_or_no"]

Setting = str | int | float | bool
"""What a setting may be: what every record and message can hold."""

_PLAIN = (str, int, float, bool)
_SHOWN_BITS = 128


def between(low: float, high: float, *, default: Any = MISSING) -> Any:
    """Return a field for a number from *low* to *high*, both included."""
    return field(default=default, metadata={"range": (low, high)})


def one_of(*choices: str | int, default: Any = MISSING) -> Any:
    """Return a field for one of *choices*."""
    return field(default=default, metadata={"choices": choices})


def yes_or_no(*, default: Any = MISSING) -> Any:
    """Return a field for a truth value."""
    return field(default=default, metadata={"choices": (False, True)})


def check_names(step: str, kind: type, given: Iterable[str]) -> None:
    """Refuse settings that a pass does not have, and the absence of those that it needs.

    Args:
        step: Name of the pass, for messages.
        kind: Its dataclass.
        given: Names of the settings that it is made with.

    Raises:
        PassSettingsError: A setting is unknown or missing.
    """
    known = {entry.name: entry for entry in fields(kind)}
    named = set(given)
    if unknown := sorted(named - set(known)):
        listed = ", ".join(sorted(known)) or "none"
        raise PassSettingsError(step, unknown[0], f"one of its settings ({listed})", "a setting that it does not have")
    for name, entry in known.items():
        if name not in named and entry.default is MISSING and entry.default_factory is MISSING:
            raise PassSettingsError(step, name, "a value", "none")


def check_values(step: str, value: Any) -> None:
    """Refuse settings that make no sense; a whole number becomes a float where one is wanted.

    Args:
        step: Name of the pass, for messages.
        value: The pass, just made.

    Raises:
        PassSettingsError: A setting is of another type or out of its range.
    """
    kind: type = type(value)
    types = _types(kind)
    for entry in fields(value):
        found, wanted = getattr(value, entry.name), types[entry.name]
        if wanted not in _PLAIN:
            raise PassSettingsError(step, entry.name, "a field of type int, float, bool or str", repr(wanted))
        if wanted is float and type(found) is int:
            try:
                number = float(found)
            except OverflowError:
                raise PassSettingsError(step, entry.name, "a finite number", shown(found)) from None
            # A frozen dataclass has no other way to change a field while it is made.
            object.__setattr__(value, entry.name, found := number)
        if type(found) is not wanted:
            raise PassSettingsError(step, entry.name, wanted.__name__, f"{type(found).__name__} {shown(found)}")
        _check_value(step, entry.name, found, entry.metadata)


@cache
def _types(kind: type) -> Mapping[str, Any]:
    """Return the types of a dataclass's fields, also where its module postpones annotations."""
    hints = get_type_hints(kind)
    return {entry.name: hints[entry.name] for entry in fields(kind)}


def _check_value(step: str, name: str, value: Any, metadata: Mapping[Any, Any]) -> None:
    if "choices" in metadata and value not in metadata["choices"]:
        raise PassSettingsError(step, name, f"one of {', '.join(map(str, metadata['choices']))}", repr(value))
    if isinstance(value, float) and not math.isfinite(value):
        raise PassSettingsError(step, name, "a finite number", repr(value))
    if "range" in metadata:
        low, high = metadata["range"]
        if not low <= value <= high:
            raise PassSettingsError(step, name, f"a number from {_bound(low)} to {_bound(high)}", shown(value))
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise PassSettingsError(step, name, "a whole number of at most 64 bits", shown(value))


def shown(value: object) -> str:
    """Return *value* for a message; Python refuses to write whole numbers of thousands of digits."""
    if isinstance(value, int) and value.bit_length() > _SHOWN_BITS:
        return f"a whole number of {value.bit_length()} bits"
    return repr(value)


def _bound(value: float) -> str:
    return shown(value) if isinstance(value, int) and value.bit_length() > _SHOWN_BITS else f"{value:g}"
