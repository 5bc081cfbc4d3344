"""Carry an error of Hedgerow from a worker to the process that asked, as the same class with the same facts."""

import json
from importlib import import_module
from typing import Any

from hedgerow.decode import Fields
from hedgerow.errors import DecodeError, HedgerowError

__all__ = ["decode_failure", "encode_failure"]


def encode_failure(error: HedgerowError) -> dict[str, Any]:
    """Return an error as plain JSON values."""
    kind = type(error)
    return {
        "module": kind.__module__,
        "kind": kind.__qualname__,
        "message": str(error),
        "facts": json.dumps({name: value for name, value in vars(error).items() if _is_plain(value)}),
    }


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(_is_plain(item) for item in value)
    return value is None or isinstance(value, str | int | float | bool)


def decode_failure(fields: Fields) -> HedgerowError:
    """Return the error that :func:`encode_failure` wrote.

    Only classes under ``hedgerow.`` that are a :class:`HedgerowError` are made; any other name becomes that root class.

    Raises:
        DecodeError: A field is wrong.
    """
    module, kind = fields.text("module", maximum_chars=256), fields.text("kind", maximum_chars=256)
    message, facts = fields.text("message", maximum_chars=100_000), fields.text("facts", maximum_chars=1_000_000)
    fields.finish()
    try:
        known: dict[str, Any] = json.loads(facts)
    except json.JSONDecodeError as exc:
        raise DecodeError(f"{fields.where}.facts", "JSON", str(exc)) from exc
    if not isinstance(known, dict):
        raise DecodeError(f"{fields.where}.facts", "an object", type(known).__name__)
    error = HedgerowError(message)
    if module.split(".")[0] == "hedgerow":
        try:
            found = getattr(import_module(module), kind, None)
        except ImportError:
            found = None
        if isinstance(found, type) and issubclass(found, HedgerowError):
            # The message is already made: the class's own __init__ would make it again from other arguments.
            error = found.__new__(found)
            error.args = (message,)
    for name, value in known.items():
        setattr(error, name, _as_tuple(value))
    return error


def _as_tuple(value: Any) -> Any:
    return tuple(_as_tuple(item) for item in value) if isinstance(value, list) else value
