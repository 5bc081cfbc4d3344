"""The only module that touches Flower's internals; it refuses versions of Flower that it was not tested with.

Flower's public API is enough for strategies and ClientApps. A grid of our own also needs the process's task identity,
which ``Message(...)`` reads, and must give each message the id that SuperLink would have given it.
"""

import logging
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from hedgerow.server.errors import FlowerVersionError

__all__ = [
    "TESTED_VERSIONS",
    "adopt_flower",
    "aggregation_errors",
    "array_record",
    "check_flower_version",
    "empty_run",
    "error_codes",
    "is_array_record",
    "numpy_arrays",
    "received_message",
    "set_message_id",
]

TESTED_VERSIONS = ("1.41", "1.42")
SERVER_NODE_ID = 1
"""Flower's own id of the server side (``flwr.common.constant.SUPERLINK_NODE_ID``)."""


def check_flower_version(found: str, tested: Sequence[str] = TESTED_VERSIONS) -> None:
    """Refuse a version of Flower whose ``major.minor`` is not one of *tested*.

    Raises:
        FlowerVersionError: It is another.
    """
    if ".".join(found.split(".")[:2]) not in tested:
        raise FlowerVersionError(found, tested)


def adopt_flower() -> None:
    """Prepare this process for grids of our own; call it before the first message is made.

    Sets the identity that ``Message(...)`` reads, unless Flower itself runs this process and has set it, and hands
    Flower's log lines to the program's logging instead of a console of their own.

    Raises:
        FlowerVersionError: The installed Flower was not tested.
    """
    check_flower_version(version("flwr"))
    from flwr.supercore.logger import FLOWER_LOGGER, console_handler
    from flwr.supercore.task_identity import TaskIdentity

    identity: Any = TaskIdentity  # its annotation does not admit that nothing is set at first
    if identity._run_id is None:  # noqa: SLF001 (its property raises when it is not set)
        identity.run_id, identity.task_id, identity.node_id = 1, 1, SERVER_NODE_ID
        FLOWER_LOGGER.removeHandler(console_handler)
        FLOWER_LOGGER.setLevel(logging.WARNING)
        FLOWER_LOGGER.propagate = True


def set_message_id(message: Any, message_id: str) -> None:
    """Give *message* the id that SuperLink would have given it; replies refer to it."""
    message.metadata.__dict__["_message_id"] = message_id


def received_message(message: Any, content: Any) -> Any:
    """Return *message* as its receiver gets it: the same metadata around *content* of its own."""
    from flwr.app import Message

    make: Any = Message  # the keyword is Flower's own and in no overload
    return make(content, metadata=message.metadata)


def empty_run(run_id: int) -> Any:
    """Return Flower's record of a run, as far as a grid without SuperLink knows it."""
    from flwr.supercore.run import Run

    return Run.create_empty(run_id)


def aggregation_errors() -> tuple[type[Exception], ...]:
    """Return the exceptions by which a strategy says that it cannot aggregate these replies."""
    from flwr.serverapp.exception import AggregationError, InconsistentMessageReplies

    return (AggregationError, InconsistentMessageReplies)


def error_codes() -> Any:
    """Return Flower's table of error codes."""
    from flwr.common.constant import ErrorCode

    return ErrorCode


def array_record(arrays: Mapping[str, Any]) -> Any:
    """Return *arrays* as an ``ArrayRecord`` in the order of names: some strategies pair arrays by position."""
    from flwr.app import Array, ArrayRecord

    return ArrayRecord({name: Array(arrays[name]) for name in sorted(arrays)})


def is_array_record(value: object) -> bool:
    """Tell whether *value* is Flower's record of arrays."""
    from flwr.app import ArrayRecord

    return isinstance(value, ArrayRecord)


def numpy_arrays(record: Any) -> dict[str, Any]:
    """Return an ``ArrayRecord`` as numpy arrays by name."""
    return {name: array.numpy() for name, array in record.items()}
