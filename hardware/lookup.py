"""Finds targets: ours by name, those of installed packages, and a user's own file."""

import os
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from importlib.resources import files
from pathlib import Path

from hedgerow.errors import PluginError, UnknownNameError
from hedgerow.hardware.operator_table import FILE_LIMIT_BYTES, OperatorTable, decode_operators
from hedgerow.hardware.target import Target, decode_recipe_lists, decode_target
from hedgerow.plugins import load_user_plugin, offered_names

__all__ = ["TARGETS_GROUP", "load_target", "target_names"]

TARGETS_GROUP = "hedgerow.targets"
"""Entry points of installed packages that bring targets: the name of one -> a :class:`Target` or its file's path."""


def target_names() -> tuple[str, ...]:
    """Return the names of all targets: those that come with Hedgerow, and those of installed packages, sorted."""
    return tuple(sorted({*_ours(), *offered_names(TARGETS_GROUP)}))


def load_target(name: str) -> Target:
    """Return one target.

    Args:
        name: Of a built-in target or of an entry point; a path that ends in ``.toml``, of which the target then has the
            file's name; or ``file.py:attribute`` or ``module:attribute``.

    Raises:
        UnknownNameError: There is no such target.
        PluginError: It cannot be read or imported, or is no target.
        DecodeError: Its file, or an operator table, is wrong.
    """
    if name in _ours():
        return _built_in(name)
    if name.endswith(".toml"):
        return _read(name, Path(name))
    try:
        found = load_user_plugin("target", name, group=TARGETS_GROUP, known=_ours())
    except UnknownNameError as exc:
        file = Path(f"{name}.toml")
        # Unlike pathlib's, it takes names too long for a path.
        if not os.path.isfile(file):  # noqa: PTH113
            raise
        place = str(file) if file.parent.name else f"./{file}"
        raise UnknownNameError("target", name, exc.known, hint=f"name the file, as {place}") from None
    if isinstance(found, str | Path):
        found = _read(name, Path(found))
    if not isinstance(found, Target):
        raise PluginError("target", name, f"expected a Target or the path of its file, found {type(found).__name__}")
    # What an installed package offers is called as it offers it.
    return replace(found, name=name) if name in offered_names(TARGETS_GROUP) else found


@cache
def _ours() -> tuple[str, ...]:
    return _stems("targets")


def _read(name: str, path: Path) -> Target:
    try:
        with path.open("rb") as file:
            content = file.read(FILE_LIMIT_BYTES + 1)
        text = content.decode("utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc)
        raise PluginError("target", name, f"expected a TOML file that can be read, found none ({reason})") from exc
    if len(content) > FILE_LIMIT_BYTES:
        raise PluginError("target", name, f"expected a file of at most {FILE_LIMIT_BYTES} bytes, found more")
    return decode_target(path.stem, text, _tables(), _recipe_lists())


@cache
def _built_in(name: str) -> Target:
    return decode_target(name, _text("targets", name), _tables(), _recipe_lists())


def _stems(folder: str) -> tuple[str, ...]:
    entries = (files("hedgerow.hardware") / folder).iterdir()
    return tuple(sorted(file.name.removesuffix(".toml") for file in entries if file.name.endswith(".toml")))


def _text(folder: str, name: str) -> str:
    return (files("hedgerow.hardware") / folder / f"{name}.toml").read_text("utf-8")


@cache
def _tables() -> Mapping[str, OperatorTable]:
    return {name: decode_operators(name, _text("operators", name)) for name in _stems("operators")}


@cache
def _recipe_lists() -> Mapping[str, tuple[str, ...]]:
    return decode_recipe_lists((files("hedgerow.hardware") / "recipes.toml").read_text("utf-8"))
