"""Plug-in tables: a name, where its code is, which extra it needs; imported on use, never at import time."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from hedgerow.errors import ExtraNotInstalledError, UnknownNameError

__all__ = ["Plugin", "load_plugin"]


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
        if exc.name is not None and exc.name.split(".")[0] == "hedgerow":
            raise
        raise ExtraNotInstalledError(f"the {kind} {name!r}", plugin.extra, exc.name) from exc
