"""Options of a command that are settings: flag, type, help and default come from the setting's declaration."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from hedgerow.settings import Settings, has_default

__all__ = ["PathOption", "given_options", "settings_file_option", "settings_option"]

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


class PathOption(click.Path):
    """A path on the command line that is not empty: ``Path("")`` is the working folder, which nobody has named."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path, or say that there is none."""
        if value == "":
            self.fail("expected a path, found an empty one", param, ctx)
        return super().convert(value, param, ctx)


def settings_option(kind: type[Settings], name: str, **keywords: Any) -> Decorator:
    """Return the option of a setting. What is not given on the command line is left to the other sources.

    Args:
        kind: The settings.
        name: The setting; it has a flag.
        keywords: More for ``click.option``, such as a type that says whether a path is a folder.
    """
    declared = kind.declared()[name]
    text = declared.metadata["help"]
    text = text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")
    if not has_default(declared):
        text += "  [required]"
    elif isinstance(declared.default, str | int | float) and not isinstance(declared.default, bool):
        text += f"  [default: {declared.default}]"
    if declared.type in (int, float):
        keywords.setdefault("type", declared.type)
    if declared.metadata["metavar"] is not None:
        keywords.setdefault("metavar", declared.metadata["metavar"])
    return click.option(declared.metadata["flag"], name, help=text, **keywords)


def settings_file_option() -> Decorator:
    """Return the option that names a file of settings."""
    return click.option(
        "--settings",
        "settings_file",
        type=PathOption(path_type=Path, dir_okay=False),
        metavar="FILE",
        help="A TOML file of settings, by their names; environment variables and options win over it.",
    )


def given_options(context: click.Context, kind: type[Settings]) -> dict[str, Any]:
    """Return setting -> value of the options that were given on the command line."""
    return {
        name: value
        for name, value in context.params.items()
        if name in kind.declared() and context.get_parameter_source(name) is ParameterSource.COMMANDLINE
    }
