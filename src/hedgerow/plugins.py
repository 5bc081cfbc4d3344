"""Plug-ins: tables of our own, packages that are installed, and files of the user's; imported on use alone."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from hedgerow.errors import ExtraNotInstalledError, PluginError, TaskError, UnknownNameError
from hedgerow.installation import is_installed

__all__ = ["Plugin", "find_plugin", "is_user_module", "load_plugin", "raise_missing"]


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


def find_plugin(kind: str, table: Mapping[str, Any], group: str, name: str) -> Any:
    """Return what a name stands for: ours, an installed package's, or what is in a file of the user's.

    Args:
        kind: What is looked for, such as ``recipe``.
        table: Ours, by name.
        group: Entry points under which packages bring theirs, such as ``hedgerow.recipes``.
        name: A key of *table*, the name of an entry point, or ``module:attribute`` or ``file.py:attribute``.

    Raises:
        UnknownNameError: There is none.
        PluginError: It cannot be imported.
        ExtraNotInstalledError: It imports a package that an extra of ours brings.
    """
    if name in table:
        return table[name]
    if ":" in name:
        return _load_reference(kind, name, name)
    installed = {entry.name: entry for entry in entry_points(group=group)}
    if name not in installed:
        raise UnknownNameError(kind, name, {*table, *installed})
    return _load_reference(kind, name, installed[name].value)


def _load_reference(kind: str, name: str, reference: str) -> Any:
    # It imports this module's neighbours, which a table of names does not need.
    from hedgerow.task import load_attribute

    try:
        return load_attribute(reference)
    except TaskError as exc:
        raise PluginError(kind, name, "; ".join(exc.mistakes)) from exc


def is_user_module(name: str) -> bool:
    """Say whether a module was imported from a file that the user named, and has no name that others import it by."""
    from hedgerow.task import USER_MODULE

    return name.startswith(USER_MODULE)
