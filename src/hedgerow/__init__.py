"""Hedgerow: train a model across devices, compile it for each one's hardware, roll it out, watch it, train again.

This package holds what both ends of the wire share. What a user writes is a :class:`Task`; the rest of the public
surface is in ``hedgerow.client``, ``hedgerow.compile``, ``hedgerow.server``, ``hedgerow.fleet`` and
``hedgerow.hardware``.
"""

from importlib.metadata import version as _version

from hedgerow.errors import HedgerowError
from hedgerow.partition import Partition
from hedgerow.schema import ModelSchema, TensorSpec
from hedgerow.task import Dataset, LocalTraining, Task, TaskData, accuracy

__all__ = [
    "Dataset",
    "HedgerowError",
    "LocalTraining",
    "ModelSchema",
    "Partition",
    "Task",
    "TaskData",
    "TensorSpec",
    "__version__",
    "accuracy",
]

__version__ = _version("hedgerow")
