"""Plug-in tables: a name, where its code is, which extra it needs; imported on use, never at import time."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from hedgerow.errors import ExtraNotInstalledError, UnknownNameError
from hedgerow.installation import is_installed

__all__ = ["Plugin", "load_plugin", "raise_missing"]


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
