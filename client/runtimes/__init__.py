"""What runs an artifact on a device: a table of runtimes, each in its own file, imported when an artifact needs it."""

from collections.abc import Mapping
from importlib.util import find_spec

from hedgerow.client.runtimes.base import LoadedModel, Runtime, TrainStep
from hedgerow.plugins import Plugin, load_plugin

__all__ = ["RUNTIMES", "LoadedModel", "Runtime", "TrainStep", "available_runtimes", "load_runtime"]

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
    """Return the names of the runtimes whose packages are installed, sorted."""
    return tuple(sorted(name for name, packages in _PACKAGES.items() if any(map(find_spec, packages))))


def load_runtime(name: str) -> Runtime:
    """Import and return the runtime called *name*.

    Raises:
        UnknownNameError: No runtime has this name.
        ExtraNotInstalledError: Its packages are not installed.
    """
    runtime: Runtime = load_plugin("runtime", RUNTIMES, name)()
    return runtime
