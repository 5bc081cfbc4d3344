"""Hedgerow: train a model across devices, compile it for each one's hardware, roll it out, watch it, train again.

This package holds what both ends of the wire share. What a user writes is a :class:`Task`; the rest of the public
surface is in ``hedgerow.client``, ``hedgerow.compile``, ``hedgerow.server``, ``hedgerow.fleet`` and
``hedgerow.hardware``.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hedgerow.errors import HedgerowError
    from hedgerow.model_schema import ModelSchema
    from hedgerow.outputs import Classes, Custom, Labels, Reconstruction, Tokens, Values
    from hedgerow.partition import Partition
    from hedgerow.schema import TensorSpec
    from hedgerow.state import State
    from hedgerow.task import Dataset, LocalTraining, Task, TaskData

    __version__: str

__all__ = [
    "Classes",
    "Custom",
    "Dataset",
    "HedgerowError",
    "Labels",
    "LocalTraining",
    "ModelSchema",
    "Partition",
    "Reconstruction",
    "State",
    "Task",
    "TaskData",
    "TensorSpec",
    "Tokens",
    "Values",
    "__version__",
]

_PLACES = {
    "Classes": "outputs",
    "Custom": "outputs",
    "Dataset": "task",
    "HedgerowError": "errors",
    "Labels": "outputs",
    "LocalTraining": "task",
    "ModelSchema": "model_schema",
    "Partition": "partition",
    "Reconstruction": "outputs",
    "State": "state",
    "Task": "task",
    "TaskData": "task",
    "TensorSpec": "schema",
    "Tokens": "outputs",
    "Values": "outputs",
}


def __getattr__(name: str) -> Any:
    # On first use: a command must be able to answer to signals before it spends its time on importing numpy.
    if name == "__version__":
        from importlib.metadata import version

        found: Any = version("hedgerow")
    elif name in _PLACES:
        found = getattr(import_module(f"hedgerow.{_PLACES[name]}"), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = found
    return found
