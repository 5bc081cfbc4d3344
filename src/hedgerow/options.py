"""Options that several commands share, each written once. Needs click."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

__all__ = ["json_option"]

Command = TypeVar("Command", bound=Callable[..., Any])


def json_option(command: Command) -> Command:
    """Add ``--json``, which a command gets as ``as_json``."""
    option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object, the last line of stdout.")
    return option(command)
