"""The option ``--shape``: sizes of a file's inputs where the file leaves them open."""

import re
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from hedgerow.compile.errors import InputShapeError

__all__ = ["parse_shapes", "shape_option"]

F = TypeVar("F", bound=Callable[..., Any])

_EXAMPLE = "input=1x3x64x64"
_SIZES = re.compile(r"[1-9]\d{0,8}(x[1-9]\d{0,8}){0,7}")


def shape_option(command: F) -> F:
    """Give a command the option ``--shape``, whose values it takes as *shapes*."""
    option = click.option(
        "--shape",
        "shapes",
        multiple=True,
        metavar="NAME=SIZES",
        help=f"Sizes of an input, with its batch, where the file leaves one open, such as {_EXAMPLE}; repeat it for "
        "more.",
    )
    return option(command)


def parse_shapes(pairs: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Return what ``--shape`` says: input -> sizes.

    Raises:
        InputShapeError: It says no sizes, one below 1, more than eight, or an input twice.
    """
    found: dict[str, tuple[int, ...]] = {}
    for pair in pairs:
        name, separator, sizes = pair.rpartition("=")
        if not separator or not name:
            raise InputShapeError(sizes, f"a name and sizes, such as {_EXAMPLE}", repr(pair))
        if not _SIZES.fullmatch(sizes):
            raise InputShapeError(
                name, f"one to eight sizes of 1 or more with x between them, such as {_EXAMPLE}", repr(sizes)
            )
        if name in found:
            raise InputShapeError(name, "its sizes once", "twice")
        found[name] = tuple(map(int, sizes.split("x")))
    return found
