"""The only module that touches Flower's internals; it refuses versions of Flower that it was not tested with.

Flower's public API is enough for strategies and ClientApps. A grid of our own also needs the process's task identity,
which ``Message(...)`` reads, and must give each message the id that SuperLink would have given it.
"""

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeGuard

import numpy as np
from numpy.typing import NDArray

from hedgerow.server.errors import FlowerVersionError
from hedgerow.weights import Arrays

if TYPE_CHECKING:
    from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
    from flwr.supercore.run import Run

__all__ = [
    "TESTED_VERSIONS",
    "ClientCall",
    "ErrorCodes",
    "FlowerRun",
    "adopt_flower",
    "aggregation_errors",
    "answering_clients",
    "array_record",
    "check_flower_version",
    "clipping_keys",
    "empty_run",
    "error_codes",
    "is_array_record",
    "metric_number",
    "numpy_arrays",
    "received_message",
    "refusal_kind",
    "set_answering_clients",
    "set_message_id",
    "set_refusal_kind",
]

TESTED_VERSIONS = ("1.41", "1.42")
ClientCall = Callable[["Message", "Context"], "Message"]
"""A ``flwr.clientapp.ClientApp``, or whatever answers a message as one does."""
FlowerRun: TypeAlias = "Run"
"""Flower's record of a run."""
_TELEMETRY = "FLWR_TELEMETRY_ENABLED"
SERVER_NODE_ID = 1
"""Flower's own id of the server side (``flwr.common.constant.SUPERLINK_NODE_ID``)."""


class ErrorCodes(Protocol):
    """Flower's codes for why a message has no answer."""

    UNKNOWN: int
    LOAD_CLIENT_APP_EXCEPTION: int
    CLIENT_APP_RAISED_EXCEPTION: int
    MESSAGE_UNAVAILABLE: int
    REPLY_MESSAGE_UNAVAILABLE: int
    NODE_UNAVAILABLE: int
    MOD_FAILED_PRECONDITION: int
    CLIENT_APP_CRASHED: int


def check_flower_version(found: str, tested: Sequence[str] = TESTED_VERSIONS) -> None:
    """Refuse a version of Flower whose ``major.minor`` is not one of *tested*.

    Raises:
        FlowerVersionError: It is another.
    """
    if ".".join(found.split(".")[:2]) not in tested:
        raise FlowerVersionError(found, tested)


def adopt_flower() -> None:
    """Prepare this process for grids of our own; call it before the first message is made.

    Sets the identity that ``Message(...)`` reads, unless Flower itself runs this process and has set it, hands Flower's
    log lines to the program's logging instead of a console of their own, and turns off Flower's telemetry where the
    variable ``FLWR_TELEMETRY_ENABLED`` does not decide that. The process's environment stays as it is.

    Raises:
        FlowerVersionError: The installed Flower was not tested.
    """
    check_flower_version(version("flwr"))
    from flwr.supercore import telemetry
    from flwr.supercore.logger import FLOWER_LOGGER, console_handler
    from flwr.supercore.task_identity import TaskIdentity

    if _TELEMETRY not in os.environ:
        telemetry.FLWR_TELEMETRY_ENABLED = "0"
    identity: Any = TaskIdentity  # its annotation does not admit that nothing is set at first
    if identity._run_id is None:  # noqa: SLF001 (its property raises when it is not set)
        identity.run_id, identity.task_id, identity.node_id = 1, 1, SERVER_NODE_ID
        FLOWER_LOGGER.removeHandler(console_handler)
        FLOWER_LOGGER.setLevel(logging.WARNING)
        FLOWER_LOGGER.propagate = True


def set_message_id(message: "Message", message_id: str) -> None:
    """Give *message* the id that SuperLink would have given it; replies refer to it."""
    message.metadata.__dict__["_message_id"] = message_id


def received_message(message: "Message", content: "RecordDict") -> "Message":
    """Return *message* as its receiver gets it: the same metadata around *content* of its own."""
    from flwr.app import Message

    make: Any = Message  # the keyword is Flower's own and in no overload
    received: Message = make(content, metadata=message.metadata)
    return received


def empty_run(run_id: int) -> "FlowerRun":
    """Return Flower's record of a run, as far as a grid without SuperLink knows it."""
    from flwr.supercore.run import Run

    return Run.create_empty(run_id)


def aggregation_errors() -> tuple[type[Exception], ...]:
    """Return the exceptions by which a strategy says that it cannot aggregate these replies."""
    from flwr.serverapp.exception import AggregationError, InconsistentMessageReplies

    return (AggregationError, InconsistentMessageReplies)


def error_codes() -> ErrorCodes:
    """Return Flower's table of error codes."""
    from flwr.common.constant import ErrorCode

    return ErrorCode


def clipping_keys() -> tuple[str, str]:
    """Return the names of Flower's clipping norm in a configuration and of its norm bit in metrics."""
    from flwr.supercore.differential_privacy import KEY_CLIPPING_NORM, KEY_NORM_BIT

    return KEY_CLIPPING_NORM, KEY_NORM_BIT


def set_answering_clients(reply: "Message", clients: Sequence[int]) -> None:
    """Note on *reply*, which stands for several clients, whose updates it holds."""
    reply.metadata.__dict__["_answering_clients"] = clients


def answering_clients(reply: "Message") -> Sequence[int] | None:
    """Return what :func:`set_answering_clients` noted, or None for a reply of one node."""
    noted: Sequence[int] | None = reply.metadata.__dict__.get("_answering_clients")
    return noted


def set_refusal_kind(reply: "Message", kind: str) -> None:
    """Note on an error *reply* of what kind its reason is; Flower's error codes know fewer."""
    reply.metadata.__dict__["_refusal_kind"] = kind


def refusal_kind(reply: "Message") -> str | None:
    """Return what :func:`set_refusal_kind` noted, or None for an error that somebody else made."""
    noted: str | None = reply.metadata.__dict__.get("_refusal_kind")
    return noted


class _HeldArrayMaker(Protocol):
    def __call__(self, array: NDArray[np.generic], *, shared: bool) -> "Array": ...


@cache
def _held_array() -> _HeldArrayMaker:
    """Return the class of arrays that are not serialized; made on use, so that importing this does not import Flower.

    Flower's ``Array`` writes an ``.npy`` document when it is made and parses it in each ``numpy()``.
    """
    from flwr.app import Array

    class HeldArray(Array):
        """An ``Array`` that holds a numpy array and is serialized only if somebody asks for its bytes."""

        def __init__(self, array: NDArray[np.generic], *, shared: bool) -> None:
            # Not through Array's attributes: each assignment there costs as much as all of this.
            self.__dict__.update(
                dtype=str(array.dtype), shape=tuple(array.shape), stype="numpy.ndarray", _held=array, _shared=shared
            )

        @property
        def data(self) -> bytes:
            held = self.__dict__["_held"]
            return self.__dict__["_bytes"] if held is None else Array.from_numpy_ndarray(held).data

        @data.setter
        def data(self, value: bytes) -> None:
            self.__dict__.update(_held=None, _bytes=value)

        def numpy(self) -> NDArray[Any]:
            """Return the array itself if it is shared, else a copy that the caller may change."""
            held = self.__dict__["_held"]
            if held is None:
                return super().numpy()
            own: NDArray[Any] = held if self.__dict__["_shared"] else held.copy()
            return own

        def deflate(self) -> bytes:
            """Return the bytes that go over a network: those of a plain ``Array``, which the other side knows."""
            return Array(self.dtype, self.shape, self.stype, self.data).deflate()

        def __reduce__(self) -> tuple[Any, ...]:
            # Between processes of one installation the array travels as it is.
            held = self.__dict__["_held"]
            if held is None:
                return Array, (self.dtype, self.shape, self.stype, self.data)
            return _restored, (held,)

        def __eq__(self, other: object) -> bool:
            if not isinstance(other, Array):
                return NotImplemented
            mine = (self.dtype, self.shape, self.stype, self.data)
            return mine == (other.dtype, other.shape, other.stype, other.data)

        __hash__ = None  # type: ignore[assignment]  # as Array

    return HeldArray


def _restored(array: NDArray[np.generic]) -> "Array":
    return _held_array()(array, shared=False)


def array_record(arrays: Mapping[str, NDArray[np.generic]], *, shared: bool = False) -> "ArrayRecord":
    """Return *arrays* as an ``ArrayRecord`` in the order of names: some strategies pair arrays by position.

    The record holds the arrays themselves and serializes them only when it goes over a network: they must not be
    changed as long as it lives.

    Args:
        arrays: numpy arrays by name.
        shared: ``numpy()`` of an entry returns the array itself instead of a copy. Some strategies change what it
            returns, so this is for arrays that belong to the record's reader alone.
    """
    from flwr.app import ArrayRecord

    held = _held_array()
    record = ArrayRecord()
    for name in sorted(arrays):
        record[name] = held(arrays[name], shared=shared)
    return record


def metric_number(record: "MetricRecord", name: str, default: float | None = None) -> int | float:
    """Return one number of a reply's metrics, whose form the border has judged.

    Raises:
        KeyError: There is none, and no *default*.
        TypeError: It is a list.
    """
    found = record[name] if default is None or name in record else default
    if isinstance(found, list):
        raise TypeError(f"expected one number as {name}, found a list")
    return found


def is_array_record(value: object) -> TypeGuard["ArrayRecord"]:
    """Tell whether *value* is Flower's record of arrays."""
    from flwr.app import ArrayRecord

    return isinstance(value, ArrayRecord)


def numpy_arrays(record: "ArrayRecord") -> Arrays:
    """Return an ``ArrayRecord`` as numpy arrays by name, for reading only: they may be the record's own."""
    return {
        name: held if (held := array.__dict__.get("_held")) is not None else array.numpy()
        for name, array in record.items()
    }
