"""Compile a trained task for hardware targets: export, quantize, verify, and the graph that trains on devices.

Importing this package is light: torch and the converters load when something is compiled, and then in processes of
their own. ``compile_checkpoint`` gives a :class:`~hedgerow.compile.build.Build` of all targets or an error;
``compile_targets`` a build of those that passed, with what was refused and why.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hedgerow.compile.budget import Budget
    from hedgerow.compile.build import Build, load_build, save_build
    from hedgerow.compile.outcome import Outcome
    from hedgerow.compile.pipeline import compile_checkpoint, compile_targets
    from hedgerow.compile.workers import CompileWorkers

__all__ = [
    "Budget",
    "Build",
    "CompileWorkers",
    "Outcome",
    "compile_checkpoint",
    "compile_targets",
    "load_build",
    "save_build",
]

_PLACES = {
    "Budget": "hedgerow.compile.budget",
    "Build": "hedgerow.compile.build",
    "CompileWorkers": "hedgerow.compile.workers",
    "Outcome": "hedgerow.compile.outcome",
    "compile_checkpoint": "hedgerow.compile.pipeline",
    "compile_targets": "hedgerow.compile.pipeline",
    "load_build": "hedgerow.compile.build",
    "save_build": "hedgerow.compile.build",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is used."""
    from importlib import import_module

    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)
