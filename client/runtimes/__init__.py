"""What runs an artifact on a device: a table of runtimes, each in its own file, imported when an artifact needs it."""

from collections.abc import Mapping
from importlib.util import find_spec

from hedgerow.client.runtimes.base import LoadedModel, Runtime, TrainStep
from hedgerow.errors import HedgerowError, PluginError, UnknownNameError
from hedgerow.plugins import Plugin, load_plugin, load_user_plugin, offered_names

__all__ = ["RUNTIMES", "RUNTIMES_GROUP", "LoadedModel", "Runtime", "TrainStep", "available_runtimes", "load_runtime"]

RUNTIMES_GROUP = "hedgerow.runtimes"
"""Entry points of installed packages that bring runtimes: the name of one -> a class like :class:`Runtime`."""

RUNTIMES: Mapping[str, Plugin] = {
    "onnxruntime": Plugin("hedgerow.client.runtimes.ort:OrtRuntime"),
    "litert": Plugin("hedgerow.client.runtimes.litert:LiteRtRuntime", "litert"),
}

# Any one of these packages will do. Looking does not import: a device should not hold a runtime that it never uses.
_PACKAGES: Mapping[str, tuple[str, ...]] = {
    "onnxruntime": ("onnxruntime",),
    "litert": ("ai_edge_litert", "tflite_runtime"),
}


def available_runtimes() -> tuple[str, ...]:
    """Return the names of the runtimes whose packages are installed, ours and those of others, sorted."""
    ours = {name for name, packages in _PACKAGES.items() if any(map(find_spec, packages))}
    return tuple(sorted(ours | {name for name in offered_names(RUNTIMES_GROUP) if name not in RUNTIMES}))


def load_runtime(name: str) -> Runtime:
    """Import and return the runtime called *name*.

    Args:
        name: As a manifest has it: ours, or an entry point's. Never a file or module: a release must not choose what
            code of the device is run.

    Raises:
        UnknownNameError: No runtime has this name.
        PluginError: What an installed package offers under the name cannot be used.
        ExtraNotInstalledError: Its packages are not installed.
    """
    offered = offered_names(RUNTIMES_GROUP) if name not in RUNTIMES else ()
    if name in offered:
        return _made(name, load_user_plugin("runtime", name, group=RUNTIMES_GROUP, known=RUNTIMES))
    if name not in RUNTIMES:
        raise UnknownNameError("runtime", name, {*RUNTIMES, *offered})
    runtime: Runtime = load_plugin("runtime", RUNTIMES, name)()
    return runtime


def _made(name: str, kind: object) -> Runtime:
    """Make a runtime that an installed package offers.

    Raises:
        PluginError: It is no class, cannot be made or loads nothing.
    """
    if not callable(kind):
        raise PluginError("runtime", name, f"expected a class with a method load, found {type(kind).__name__}")
    try:
        found: Runtime = kind()
    except HedgerowError:
        raise
    # The package's code may raise anything; the report must name it all the same.
    except (Exception, SystemExit) as exc:
        raised = " ".join(f"{type(exc).__name__}: {exc}".split())
        advice = "let it take no arguments, or correct it"
        raise PluginError("runtime", name, f"making it raised {raised}; {advice}") from exc
    if not callable(getattr(found, "load", None)):
        raise PluginError("runtime", name, f"expected a class with a method load, found {type(found).__name__}")
    return found
