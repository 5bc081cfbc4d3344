"""The options that ``hedgerow train`` and ``hedgerow simulate`` share. Importing this module imports no torch."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from hedgerow.options import json_option

__all__ = ["folder_options", "rounds_option", "seed_option", "start_option"]

Command = TypeVar("Command", bound=Callable[..., Any])


def rounds_option(default: int) -> Callable[[Command], Command]:
    """Return what adds ``--rounds``."""
    return click.option(
        "--rounds",
        default=default,
        show_default=True,
        type=click.IntRange(1),
        help="Rounds in all, finished ones included.",
    )


def seed_option(command: Command) -> Command:
    """Add ``--seed``."""
    return click.option(
        "--seed",
        default=0,
        show_default=True,
        type=click.IntRange(0, 2**53 - 1),
        help="Seed of everything random, but for what privacy keeps secret.",
    )(command)


def start_option(command: Command) -> Command:
    """Add ``--from``, which a command gets as ``start``."""
    return click.option(
        "--from",
        "start",
        type=click.Path(path_type=Path),
        metavar="PATH",
        help="Start from these weights: a checkpoint's folder, or a file as `hedgerow checkpoint import` takes it.  "
        "[default: new ones, drawn by the seed]",
    )(command)


def folder_options(default: str, *, holds: str, found: str) -> Callable[[Command], Command]:
    """Return what adds ``--out``, ``--resume`` and ``--json``.

    Args:
        default: The folder.
        holds: What is in it, for the help of ``--out``.
        found: What ``--resume`` goes on with, for its help.
    """
    out = click.option(
        "--out",
        type=click.Path(path_type=Path, file_okay=False),
        default=Path(default),
        show_default=True,
        metavar="DIR",
        help=f"Folder of {holds}.",
    )
    resume = click.option(
        "--resume/--fresh",
        default=True,
        show_default=True,
        help=f"Go on with {found}, or forget it and begin anew.",
    )

    def add(command: Command) -> Command:
        return out(resume(json_option(command)))

    return add
