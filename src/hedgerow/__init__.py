"""Hedgerow: train a model across devices, compile it for each one's hardware, roll it out, watch it, train again.

This package holds what both ends of the wire share. What a user writes is a :class:`Task`; the rest of the public
surface is in ``hedgerow.client``, ``hedgerow.compile``, ``hedgerow.server``, ``hedgerow.fleet`` and
``hedgerow.hardware``.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hedgerow.errors import HedgerowError
    from hedgerow.partition import Partition
    from hedgerow.schema import ModelSchema, TensorSpec
    from hedgerow.state import State
    from hedgerow.task import Dataset, LocalTraining, Task, TaskData, accuracy

    __version__: str

__all__ = [
    "Dataset",
    "HedgerowError",
    "LocalTraining",
    "ModelSchema",
    "Partition",
    "State",
    "Task",
    "TaskData",
    "TensorSpec",
    "__version__",
    "accuracy",
]

_PLACES = {
    "Dataset": "task",
    "HedgerowError": "errors",
    "LocalTraining": "task",
    "ModelSchema": "schema",
    "Partition": "partition",
    "State": "state",
    "Task": "task",
    "TaskData": "task",
    "TensorSpec": "schema",
    "accuracy": "task",
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
