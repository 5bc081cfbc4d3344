"""Whether an unexpected exception is a bug of ours, or what foreign code said of what it was given."""

import sysconfig
from collections.abc import Iterator
from pathlib import PurePath
from types import TracebackType

__all__ = ["frames", "is_library", "is_ours", "is_raised_by_hedgerow", "line_of"]

_OURS = "hedgerow"
_INSTALLED = ("site-packages", "dist-packages")
_LIBRARY = tuple(sysconfig.get_path(name) for name in ("stdlib", "platstdlib"))
_MISTAKES = (LookupError, TypeError, AttributeError, NameError, AssertionError, ArithmeticError)


def is_raised_by_hedgerow(exc: BaseException) -> bool:
    """Say whether a line of ours made the mistake behind *exc* itself, and no library that it called.

    Native code leaves no frame, so only kinds of errors count that it does not raise for what it was given.
    """
    found = list(frames(exc.__traceback__))
    return isinstance(exc, _MISTAKES) and bool(found) and is_ours(found[-1].tb_frame.f_globals.get("__name__", ""))


def line_of(exc: BaseException) -> str:
    """Return the last line of a user's that led to *exc*, as `` (task.py, line 12)``; empty where none did."""
    for traceback in reversed(list(frames(exc.__traceback__))):
        code = traceback.tb_frame.f_code
        if not is_ours(traceback.tb_frame.f_globals.get("__name__", "")) and not is_library(code.co_filename):
            return f" ({PurePath(code.co_filename).name}, line {traceback.tb_lineno})"
    return ""


def frames(traceback: TracebackType | None) -> Iterator[TracebackType]:
    """Yield the frames of a traceback, the one that was called last at the end."""
    while traceback is not None:
        yield traceback
        traceback = traceback.tb_next


def is_ours(module: str) -> bool:
    """Say whether a module of this name is Hedgerow's."""
    return module.partition(".")[0] == _OURS


def is_library(path: str) -> bool:
    """Say whether a frame's file belongs to Python or to an installed distribution."""
    return path.startswith("<") or path.startswith(_LIBRARY) or any(f"/{name}/" in path for name in _INSTALLED)
