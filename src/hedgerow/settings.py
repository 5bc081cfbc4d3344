"""What a process can be told: each setting declared once, and read from a file, the environment and options.

A process's settings are a frozen dataclass below :class:`Settings`. Each field's metadata, made by :func:`told`, holds
its help, its bounds and its option. The sources have one order: a TOML file, then environment variables, then what was
given on the command line; the later wins. What is wrong is refused with the place where it stands.

Whatever the source, numbers are finite, whole numbers have 64 bits, no path is empty, and text and paths hold neither
control characters nor halves of characters, which no system call takes. No setting says "never" by infinity.
"""

import math
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, fields
from pathlib import Path
from types import UnionType
from typing import Any, ClassVar, Self, get_args, get_origin
from urllib.parse import urlsplit

from hedgerow.decode import decode_toml
from hedgerow.errors import DecodeError, HedgerowError

__all__ = [
    "HOST",
    "HTTP_ADDRESS",
    "Bound",
    "Given",
    "Settings",
    "at_least",
    "between",
    "has_default",
    "matching",
    "told",
]

_FILE_LIMIT_BYTES = 2**16
_WORDS = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}


@dataclass(frozen=True, slots=True)
class Bound:
    """Which values a setting may have.

    Attributes:
        expected: The rest of a sentence that begins with "expected", such as ``a time above 0``.
        holds: Whether a value is one; a NaN is none.
    """

    expected: str
    holds: Callable[[Any], bool]


def at_least(least: float) -> Bound:
    """Return the bound of numbers from *least* on."""
    return Bound(f"at least {least:g}", lambda value: value >= least)


def between(low: float, high: float, expected: str, *, is_open: bool = False) -> Bound:
    """Return the bound of numbers from *low* to *high*; *is_open*: without *low* itself."""
    return Bound(expected, lambda value: (low < value if is_open else low <= value) and value <= high)


def matching(pattern: Any) -> Bound:
    """Return the bound of names that match a regular expression as a whole."""
    return Bound(f"a name like {pattern.pattern}", lambda value: pattern.fullmatch(value) is not None)


def _is_host(value: str) -> bool:
    try:
        return bool(value.encode("idna")) and not any(letter.isspace() for letter in value)
    except UnicodeError:
        # A label is empty or has more than 63 characters, or one that no name may have.
        return False


HOST = Bound("the name or the address of a host", _is_host)
"""The bound of hosts: names that a resolver can be asked for, and addresses."""


def _is_http_address(value: str) -> bool:
    try:
        parts = urlsplit(value)
        # The port is read when it is asked for.
        return parts.scheme in {"http", "https"} and _is_host(parts.hostname or "") and parts.port != 0
    except ValueError:
        return False


HTTP_ADDRESS = Bound("an address like http://127.0.0.1:8080", _is_http_address)
"""The bound of addresses of a service."""


def told(
    help_text: str, bound: Bound | None = None, *, flag: str | None = None, metavar: str | None = None
) -> Mapping[str, Any]:
    """Return the metadata of a setting's field.

    Args:
        help_text: What it is for.
        bound: Which values it may have; None: all of its type.
        flag: The option that sets it; None: there is none.
        metavar: What stands for its value in a help text.
    """
    return {"help": help_text, "bound": bound, "flag": flag, "metavar": metavar}


@dataclass(frozen=True, slots=True)
class Given:
    """A value, and where it stands.

    Attributes:
        value: A value of the setting's type.
        place: Such as ``agent.toml, port``, ``HEDGEROW_FLEET_PORT`` or ``--port``.
    """

    value: Any
    place: str


class Settings(ABC):
    """The base of a process's settings.

    Attributes:
        PREFIX: What the environment variables begin with.
    """

    __slots__ = ()
    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]
    PREFIX: ClassVar[str]

    @classmethod
    @abstractmethod
    def refused(cls, place: str, value: str, expected: str) -> HedgerowError:
        """Return the error that says that at *place* stands *value* where something else was expected."""

    def __post_init__(self) -> None:
        for name, found in type(self).declared().items():
            self._check(found, getattr(self, name), name)

    @classmethod
    def read(
        cls, *, file: Path | None = None, env: Mapping[str, str] | None = None, options: Mapping[str, Any] | None = None
    ) -> Self:
        """Build the settings.

        Args:
            file: A TOML file with settings as keys; None: none.
            env: Environment variables, usually ``os.environ``: the prefix and a setting's name in capitals.
            options: Setting -> what was given on the command line; None counts as not given.

        Raises:
            HedgerowError: What :meth:`refused` makes of a file that cannot be read, a key or a variable that is no
                setting, a value of another type or out of bounds, or a setting that is required and given nowhere.
        """
        found = cls.collect(file=file, env=env, options=options)
        missing = cls.required() - set(found)
        for name in sorted(missing):
            raise cls.refused(name, "none", f"a value, by {', '.join(cls._places(name))}")
        make: Callable[..., Self] = cls
        return make(**{name: given.value for name, given in found.items()})

    @classmethod
    def collect(
        cls, *, file: Path | None = None, env: Mapping[str, str] | None = None, options: Mapping[str, Any] | None = None
    ) -> dict[str, Given]:
        """Return what :meth:`read` would build them from: setting -> value and place, each within its bound."""
        found = cls._from_file(file) if file is not None else {}
        found |= cls._from_env(env or {})
        declared = cls.declared()
        for name, value in (options or {}).items():
            if value is not None:
                found[name] = Given(value, declared[name].metadata["flag"] or name)
        for name, given in found.items():
            cls._check(declared[name], given.value, given.place)
        return found

    @classmethod
    def from_env(cls, env: Mapping[str, str], prefix: str | None = None, **given: Any) -> Self:
        """Build the settings from environment variables such as ``HEDGEROW_FLEET_PORT``.

        Args:
            env: The variables, usually ``os.environ``.
            prefix: What ours begin with; None: :attr:`PREFIX`.
            given: Values that win over the environment; None counts as not given.

        Raises:
            HedgerowError: See :meth:`read`.
        """
        if prefix is not None and prefix != cls.PREFIX:
            env = {
                cls.PREFIX + name.removeprefix(prefix): text for name, text in env.items() if name.startswith(prefix)
            }
        return cls.read(env=env, options=given)

    @classmethod
    def required(cls) -> frozenset[str]:
        """Return the names of the settings that have no default."""
        return frozenset(name for name, found in cls.declared().items() if not has_default(found))

    @classmethod
    def declared(cls) -> dict[str, Field[Any]]:
        """Return setting -> its declaration, in order."""
        return {found.name: found for found in fields(cls)}

    @classmethod
    def _places(cls, name: str) -> tuple[str, ...]:
        flag = cls.declared()[name].metadata["flag"]
        return (*((flag,) if flag else ()), f"{cls.PREFIX}{name.upper()}", f"the key {name} of a settings file")

    @classmethod
    def _check(cls, declared: Field[Any], value: Any, place: str) -> None:
        bound: Bound | None = declared.metadata["bound"]
        for holds, expected in _EVERYWHERE:
            if not holds(value):
                raise cls.refused(place, _shown(value), expected)
        if bound is not None and value is not None and not bound.holds(value):
            raise cls.refused(place, _shown(value), bound.expected)

    @classmethod
    def _from_env(cls, env: Mapping[str, str]) -> dict[str, Given]:
        declared, found = cls.declared(), {}
        for variable, text in env.items():
            if not variable.startswith(cls.PREFIX):
                continue
            name = variable.removeprefix(cls.PREFIX).lower()
            if name not in declared:
                raise cls.refused(variable, _shown(text), f"a setting out of {', '.join(sorted(declared))}")
            kind = _plain_type(declared[name].type)
            parse, expected = _TEXTS[kind]
            try:
                found[name] = Given(parse(text), variable)
            except ValueError:
                raise cls.refused(variable, _shown(text), expected) from None
        return found

    @classmethod
    def _from_file(cls, path: Path) -> dict[str, Given]:
        try:
            with path.open("rb") as file:
                content = file.read(_FILE_LIMIT_BYTES + 1)
        except OSError as exc:
            raise cls.refused(str(path), exc.strerror or str(exc), "a settings file that can be read") from exc
        try:
            document = decode_toml(content, str(path), limit_bytes=_FILE_LIMIT_BYTES).plain()
        except DecodeError as exc:
            place = exc.where.replace(f"{path}.", f"{path}, ", 1)
            raise cls.refused(place, exc.found, f"settings, {exc.expected}") from exc
        declared, found = cls.declared(), {}
        for name, value in document.items():
            place = f"{path}, {name}"
            if name not in declared:
                raise cls.refused(place, _shown(value), f"a setting out of {', '.join(sorted(declared))}")
            kind = _plain_type(declared[name].type)
            if not _is_of(kind, value):
                raise cls.refused(place, _as_written(value), _TEXTS[kind][1])
            found[name] = Given(Path(value) if kind is Path else float(value) if kind is float else value, place)
        return found


def _is_finite(value: Any) -> bool:
    return not isinstance(value, float) or math.isfinite(value)


def _has_64_bits(value: Any) -> bool:
    return not isinstance(value, int) or -(2**63) <= value < 2**63


def _is_plain(value: Any) -> bool:
    text = str(value) if isinstance(value, str | Path) else ""
    return not any(unicodedata.category(letter) in {"Cc", "Cs"} for letter in text)


_EVERYWHERE = (
    (_is_finite, "a finite number"),
    (_has_64_bits, "a whole number of 64 bits"),
    (_is_plain, "text without control characters, in UTF-8"),
)


def has_default(declared: Field[Any]) -> bool:
    """Say whether a setting has a default."""
    return not (declared.default is MISSING and declared.default_factory is MISSING)


def _shown(value: Any) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value).lower() if isinstance(value, bool) else str(value)
    return text if len(text) <= 200 else text[:197] + "..."


def _as_written(value: Any) -> str:
    """Return a value of a file so that its type can be seen: 1.0 is no whole number, and "1" is no number."""
    return _shown(f'"{value}"' if isinstance(value, str) else repr(value) if isinstance(value, float) else value)


def _plain_type(declared: Any) -> Any:
    """Return the type of a setting's value: without None, and of a mapping the kind alone."""
    if isinstance(declared, UnionType):
        (declared,) = (each for each in get_args(declared) if each is not type(None))
    return get_origin(declared) or declared


def _boolean(text: str) -> bool:
    try:
        return _WORDS[text.strip().lower()]
    except KeyError:
        raise ValueError from None


def _path(text: str) -> Path:
    if not text:
        # Path("") is the working folder.
        raise ValueError
    return Path(text)


def _pairs(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for pair in text.split(",") if text else ():
        key, equals, value = pair.partition("=")
        if not key or not equals or key in found:
            raise ValueError
        found[key] = value
    return found


def _is_of(kind: Any, value: Any) -> bool:
    """Say whether a value of a TOML document is of the type of a setting; true and false are no numbers."""
    if kind is Mapping:
        return isinstance(value, dict) and all(isinstance(each, str) for each in value.values())
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if kind is Path:
        return isinstance(value, str) and value != ""
    return isinstance(value, bool if kind is bool else str)


# By declared type and never by truth: bool("false") is true.
_TEXTS: Mapping[Any, tuple[Callable[[str], Any], str]] = {
    str: (str, "text"),
    int: (int, "a whole number"),
    float: (float, "a number"),
    bool: (_boolean, "true or false"),
    Path: (_path, "a path"),
    Mapping: (_pairs, "KEY=VALUE pairs with commas between them, each key once"),
}
