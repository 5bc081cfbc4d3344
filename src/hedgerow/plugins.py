"""Plug-ins: a table of our own, and what users bring; imported on use, never at import time.

A table holds a name, where its code is, and which extra it needs. What is in no table may be an entry point of another
distribution, or stand in a file or module of the user's own, as ``file.py:attribute`` or ``module:attribute``.
"""

import logging
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from typing import Any

from hedgerow.errors import ExtraNotInstalledError, PluginError, TaskError, UnknownNameError
from hedgerow.installation import is_installed

__all__ = ["Plugin", "is_reference", "load_plugin", "load_user_plugin", "offered_names", "raise_missing"]

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Plugin:
    """One entry of a table.

    Attributes:
        reference: ``module:attribute``.
        extra: The extra of Hedgerow that installs what the module imports; empty for the base install.
    """

    reference: str
    extra: str = ""


def load_plugin(kind: str, table: Mapping[str, Plugin], name: str) -> Any:
    """Import and return what *table* holds under *name*.

    Raises:
        UnknownNameError: The table has no such name.
        ExtraNotInstalledError: The module imports a package that is absent.
    """
    try:
        plugin = table[name]
    except KeyError:
        raise UnknownNameError(kind, name, table) from None
    module, _, attribute = plugin.reference.partition(":")
    try:
        return getattr(import_module(module), attribute)
    except ModuleNotFoundError as exc:
        raise_missing(exc, f"the {kind} {name!r}", plugin.extra)
        raise


def raise_missing(exc: ModuleNotFoundError, feature: str, extra: str) -> None:
    """Raise what says how to install the package that *exc* misses; return when no package is absent, but we are wrong.

    Raises:
        ExtraNotInstalledError: The package is absent.
    """
    if exc.name is not None and exc.name.partition(".")[0] != "hedgerow" and not is_installed(exc.name):
        raise ExtraNotInstalledError(feature, extra, exc.name) from exc


def is_reference(name: str) -> bool:
    """Tell whether *name* has the form ``file.py:attribute`` or ``module:attribute``; nothing is imported.

    One word before the colon must be a module that is there: else it is a name of ours, misspelt, with an argument.
    """
    place, separator, attribute = name.rpartition(":")
    if not separator or not attribute.isidentifier():
        return False
    return place.endswith(".py") or "." in place or (place.isidentifier() and _is_module(place))


def _is_module(name: str) -> bool:
    # What runs is a module without a specification, for which looking would raise.
    return sys.modules.get(name) is not None or (name not in sys.modules and find_spec(name) is not None)


def offered_names(group: str, *, reserved: str = "") -> tuple[str, ...]:
    """Return the names of what installed distributions offer under the entry-point *group*; nothing is imported.

    Args:
        group: The group of entry points.
        reserved: A sign that says something else where a name is asked for; names that hold it are left out with a
            warning. Empty: any name will do.
    """
    names = {point.name for point in entry_points(group=group)}
    unfit = {name for name in names if reserved and reserved in name}
    for name in sorted(unfit):
        _LOG.warning(
            "%r, which an installed package offers under %s, cannot be chosen: its name holds %r, which says something "
            "else there; have the package offer it under another name",
            name,
            group,
            reserved,
        )
    return tuple(sorted(names - unfit))


def _file_hint(kind: str, name: str) -> str:
    """Return what to write where *name* means a Python file, or nothing."""
    bare = name.removesuffix(":").removesuffix(".py")
    # Unlike pathlib's, it takes names too long for a path, which is what names from outside may be.
    if bare == name and not os.path.isfile(f"{name}.py"):  # noqa: PTH113
        return ""
    return f"name the {kind} in the file, as {bare}.py:attribute"


def load_user_plugin(kind: str, name: str, *, group: str, known: Iterable[str] = (), reserved: str = "") -> Any:
    """Import and return what a user brings.

    Args:
        kind: What it is to be, such as ``strategy``; for errors.
        name: The name of an entry point, or ``file.py:attribute`` or ``module:attribute``.
        group: The group of entry points, such as ``hedgerow.strategies``.
        known: Names of the table that does not hold this one; for errors.
        reserved: See :func:`offered_names`.

    Raises:
        UnknownNameError: No distribution offers it, and it is no reference.
        PluginError: It cannot be imported, or several distributions offer it.
        ExtraNotInstalledError: It imports what an extra of ours brings and is absent.
    """
    from hedgerow.task import load_attribute  # which builds on tables that are read before it

    points = {_reference(point) for point in entry_points(group=group, name=name)}
    if not points and not is_reference(name):
        raise UnknownNameError(
            kind, name, {*known, *offered_names(group, reserved=reserved)}, hint=_file_hint(kind, name)
        )
    if len(points) > 1:
        offers = " and ".join(sorted(points))
        raise PluginError(kind, name, f"expected one distribution that offers it, found {offers}; uninstall one")
    try:
        return load_attribute(next(iter(points), name))
    except TaskError as exc:
        raise PluginError(kind, name, "; ".join(exc.mistakes)) from exc


def _reference(point: EntryPoint) -> str:
    """Return what an entry point names, without the extras that it may ask for."""
    parts = point.pattern.match(point.value)
    return point.value if parts is None or not parts["attr"] else f"{parts['module']}:{parts['attr']}"
