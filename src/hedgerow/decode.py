"""Read JSON and TOML from outside, strictly: every field named, every type and bound checked, nothing unknown accepted.

Devices and servers of different ages talk to each other, so a document that is not understood must be refused with a
sentence that says where and why. This module decodes; it does not define any document.
"""

import json
import math
import re
import sys
import tomllib
from collections.abc import Callable, Mapping
from typing import Any, Self, TypeVar

from hedgerow.errors import DecodeError

__all__ = ["SHA256", "Fields", "decode_json", "decode_toml", "encode_json"]

T = TypeVar("T")

SHA256 = re.compile(r"[0-9a-f]{64}")
_MAX_DEPTH = 32
_ABSENT = object()


def encode_json(document: Mapping[str, Any]) -> bytes:
    """Encode *document* as canonical JSON: sorted keys, no spaces, no NaN; equal documents give equal bytes."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False).encode()


def decode_json(payload: bytes, where: str, *, limit_bytes: int) -> "Fields":
    """Parse *payload* as one JSON object.

    Args:
        payload: The bytes received.
        where: What they are, for messages.
        limit_bytes: Longer payloads are refused before they are parsed.

    Raises:
        DecodeError: The payload is too long, not UTF-8 JSON, nested too deeply, repeats a key, holds NaN, infinity or
            half a character, or is not an object.
    """
    if len(payload) > limit_bytes:
        raise DecodeError(where, f"at most {limit_bytes} bytes", f"{len(payload)} bytes")

    def no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        record = dict(pairs)
        if len(record) != len(pairs):
            raise DecodeError(where, "each key once", "a repeated key")
        return record

    def no_constants(name: str) -> Any:
        raise DecodeError(where, "finite numbers", name)

    try:
        document = json.loads(payload.decode("utf-8"), object_pairs_hook=no_repeats, parse_constant=no_constants)
    except (UnicodeDecodeError, json.JSONDecodeError) as exc:
        raise DecodeError(where, "JSON in UTF-8", str(exc)) from exc
    except (RecursionError, ValueError) as exc:
        raise DecodeError(where, "JSON of bounded depth and digits", type(exc).__name__) from exc
    if not isinstance(document, dict):
        raise DecodeError(where, "a JSON object", type(document).__name__)
    _check_depth(document, where)
    _check_text(document, where)
    return Fields(document, where)


def decode_toml(content: bytes, where: str, *, limit_bytes: int) -> "Fields":
    """Parse *content* as one TOML document.

    Args:
        content: What the file holds.
        where: Which file it is, for messages.
        limit_bytes: Longer ones are refused before they are parsed.

    Raises:
        DecodeError: The content is too long, not UTF-8 TOML, nested too deeply, or holds a whole number beyond the 64
            bits that TOML has.
    """
    if len(content) > limit_bytes:
        raise DecodeError(where, f"at most {limit_bytes} bytes", "more")
    try:
        document = tomllib.loads(content.decode("utf-8"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as exc:
        raise DecodeError(where, "a TOML document in UTF-8", _cut(str(exc))) from exc
    except (RecursionError, ValueError) as exc:
        # Python reads no decimal number of more than 4300 digits, and nothing nested more deeply than its stack.
        raise DecodeError(where, "a TOML document of bounded depth and digits", type(exc).__name__) from exc
    _check_depth(document, where)
    _check_integers(document, where)
    return Fields(document, where)


def _check_integers(value: Any, where: str) -> None:
    if isinstance(value, dict):
        for key, child in value.items():
            _check_integers(child, f"{where}.{key}")
    elif isinstance(value, list):
        for index, child in enumerate(value):
            _check_integers(child, f"{where}[{index}]")
    elif isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise DecodeError(where, "a whole number of 64 bits", f"one of {value.bit_length()} bits")


def _check_depth(document: Any, where: str) -> None:
    level = [document]
    for _ in range(_MAX_DEPTH):
        level = [
            child
            for node in level
            if isinstance(node, dict | list)
            for child in (node.values() if isinstance(node, dict) else node)
        ]
        if not level:
            return
    raise DecodeError(where, f"at most {_MAX_DEPTH} levels", "more")


def _check_text(document: Any, where: str) -> None:
    # An escape such as \\ud800 alone is JSON, but no text: no file, database or message could hold it.
    try:
        json.dumps(document, ensure_ascii=False).encode()
    except UnicodeEncodeError as exc:
        raise DecodeError(where, "text in Unicode", "half of a surrogate pair") from exc


def _is_finite(value: Any) -> bool:
    # 1e999 parses as infinity, and an integer of 400 digits does not fit a float.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _cut(text: str) -> str:
    return text if len(text) <= 80 else text[:77] + "..."


class Fields:
    """One JSON object, read field by field; :meth:`finish` refuses the fields that nobody read."""

    def __init__(self, record: Mapping[str, Any], where: str) -> None:
        self._record, self.where = record, where
        self._read: set[str] = set()

    def names(self) -> tuple[str, ...]:
        """Return the names of all fields, for objects whose keys are data."""
        return tuple(self._record)

    def plain(self) -> dict[str, Any]:
        """Return everything as plain JSON values, for a document that is passed on as it is."""
        return dict(self._record)

    def _take(self, key: str, default: Any = _ABSENT) -> Any:
        self._read.add(key)
        value = self._record.get(key, _ABSENT)
        if value is _ABSENT or (value is None and default is not _ABSENT):
            if default is _ABSENT:
                raise DecodeError(f"{self.where}.{key}", "a value", "nothing")
            return default
        return value

    def _refuse(self, key: str, expected: str, value: Any) -> DecodeError:
        return DecodeError(f"{self.where}.{key}", expected, _cut(repr(value)))

    def text(self, key: str, *, maximum_chars: int = 1024, pattern: re.Pattern[str] | None = None) -> str:
        """Return a string, bounded in length and matching *pattern* as a whole when one is given."""
        value = self._take(key)
        if not isinstance(value, str) or len(value) > maximum_chars:
            raise self._refuse(key, f"a string of at most {maximum_chars} characters", value)
        if pattern is not None and not pattern.fullmatch(value):
            raise self._refuse(key, f"a string like {pattern.pattern}", value)
        return value

    def optional_text(
        self, key: str, *, maximum_chars: int = 1024, pattern: re.Pattern[str] | None = None
    ) -> str | None:
        """Return a string, or None when the field is absent or null."""
        if self._take(key, None) is None:
            return None
        return self.text(key, maximum_chars=maximum_chars, pattern=pattern)

    def choice(self, key: str, options: Mapping[str, T]) -> T:
        """Return the value that *options* holds for the field's string."""
        value = self._take(key)
        if not isinstance(value, str) or value not in options:
            raise self._refuse(key, f"one of {', '.join(sorted(options))}", value)
        return options[value]

    def integer(self, key: str, *, minimum: int = 0, maximum: int = 2**53 - 1) -> int:
        """Return a whole number within the bounds."""
        value = self._take(key)
        if not isinstance(value, int) or isinstance(value, bool) or not minimum <= value <= maximum:
            raise self._refuse(key, f"a whole number from {minimum} to {maximum}", value)
        return value

    def optional_integer(self, key: str, *, minimum: int = 0, maximum: int = 2**53 - 1) -> int | None:
        """Return a whole number, or None when the field is absent or null."""
        return None if self._take(key, None) is None else self.integer(key, minimum=minimum, maximum=maximum)

    def number(self, key: str, *, minimum: float = -math.inf, maximum: float = math.inf) -> float:
        """Return a finite number within the bounds."""
        value = self._take(key)
        if not _is_finite(value) or not minimum <= value <= maximum:
            raise self._refuse(key, f"a finite number from {minimum} to {maximum}", value)
        return float(value)

    def optional_number(self, key: str, *, minimum: float = -math.inf, maximum: float = math.inf) -> float | None:
        """Return a finite number, or None when the field is absent or null."""
        return None if self._take(key, None) is None else self.number(key, minimum=minimum, maximum=maximum)

    def boolean(self, key: str) -> bool:
        """Return true or false."""
        value = self._take(key)
        if not isinstance(value, bool):
            raise self._refuse(key, "true or false", value)
        return value

    def integers(
        self, key: str, *, minimum: int = 0, maximum: int = 2**53 - 1, maximum_items: int = 4096
    ) -> tuple[int, ...]:
        """Return a bounded list of whole numbers within the bounds."""
        value = self._list(key, maximum_items)
        if not all(
            isinstance(item, int) and not isinstance(item, bool) and minimum <= item <= maximum for item in value
        ):
            raise self._refuse(key, f"whole numbers from {minimum} to {maximum}", value)
        return tuple(value)

    def numbers(self, key: str, *, maximum_items: int = 4096) -> tuple[float, ...]:
        """Return a bounded list of finite numbers."""
        value = self._list(key, maximum_items)
        if not all(_is_finite(item) for item in value):
            raise self._refuse(key, "finite numbers", value)
        return tuple(float(item) for item in value)

    def texts(self, key: str, *, maximum_items: int = 4096, maximum_chars: int = 256) -> tuple[str, ...]:
        """Return a bounded list of bounded strings."""
        value = self._list(key, maximum_items)
        if not all(isinstance(item, str) and len(item) <= maximum_chars for item in value):
            raise self._refuse(key, f"strings of at most {maximum_chars} characters", value)
        return tuple(value)

    def nested(self, key: str) -> Self:
        """Return an object inside this one."""
        return self._nest(key, self._take(key))

    def optional(self, key: str) -> Self | None:
        """Return an object inside this one, or None when the field is absent or null."""
        value = self._take(key, None)
        return None if value is None else self._nest(key, value)

    def sequence(self, key: str, decode: "Callable[[Fields], T]", *, maximum_items: int = 4096) -> tuple[T, ...]:
        """Decode a bounded list of objects, each with *decode*."""
        value = self._list(key, maximum_items)
        return tuple(decode(self._nest(f"{key}[{index}]", item)) for index, item in enumerate(value))

    def mapping(self, key: str, decode: "Callable[[Fields], T]", *, maximum_items: int = 4096) -> dict[str, T]:
        """Decode an object whose keys are data and whose values are objects, each with *decode*."""
        value = self._take(key)
        if not isinstance(value, dict) or len(value) > maximum_items:
            raise self._refuse(key, f"an object of at most {maximum_items} entries", value)
        return {name: decode(self._nest(f"{key}[{name}]", item)) for name, item in value.items()}

    def scalars(self, key: str, *, maximum_items: int = 256) -> dict[str, str | int | float | bool]:
        """Return an object of plain values: strings, numbers, true and false."""
        value = self._take(key)
        if not isinstance(value, dict) or len(value) > maximum_items:
            raise self._refuse(key, f"an object of at most {maximum_items} entries", value)
        for name, item in value.items():
            if not isinstance(item, str | int | float | bool):
                raise self._refuse(f"{key}.{name}", "a plain value", item)
        return dict(value)

    def finish(self) -> None:
        """Refuse fields that nobody read: a newer sender means something by them that we would miss."""
        unknown = sorted(set(self._record) - self._read)
        if unknown:
            raise DecodeError(
                self.where, f"only the fields {', '.join(sorted(self._read))}", f"also {', '.join(unknown)}"
            )

    def _nest(self, key: str, value: Any) -> Self:
        if not isinstance(value, dict):
            raise self._refuse(key, "an object", value)
        return type(self)(value, f"{self.where}.{key}")

    def _list(self, key: str, maximum_items: int) -> list[Any]:
        value = self._take(key)
        if not isinstance(value, list) or len(value) > maximum_items:
            raise self._refuse(key, f"a list of at most {maximum_items} items", value)
        return value
