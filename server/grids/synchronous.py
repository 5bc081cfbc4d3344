"""A Flower grid without SuperLink: messages are answered within the call that sends them."""

import itertools
import logging
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from flwr.app import Error, Message, MessageType, RecordDict
from flwr.serverapp import Grid

from hedgerow.errors import DecodeError
from hedgerow.server.flower import adopt_flower, empty_run, numpy_arrays, set_message_id
from hedgerow.weights import Arrays, check_same_arrays

__all__ = ["SynchronousGrid", "error_reply", "mismatch", "narrowed", "own_copy", "sent_arrays", "unusable"]

_LOG = logging.getLogger(__name__)


class SynchronousGrid(Grid):
    """What our grids share; a subclass says who its nodes are and how they answer.

    Replies come in the order of node ids, so that sums of floats do not depend on who was fastest.
    """

    def __init__(self) -> None:
        adopt_flower()
        self._run = empty_run(1)
        self._numbers = itertools.count(1)
        self._replies: dict[str, Any] = {}

    @property
    @abstractmethod
    def kind(self) -> str:
        """Where this grid trains, for the run's record, such as ``in-process``."""

    @abstractmethod
    def get_node_ids(self) -> Sequence[int]:
        """Return the ids of all nodes, sorted."""

    @abstractmethod
    def node_name(self, node_id: int) -> str:
        """Return what people call a node."""

    @abstractmethod
    def answer(self, messages: Sequence[Any], timeout_s: float | None) -> Iterable[Any]:
        """Return one reply for each message, in any order."""

    def set_run(self, run: Any) -> None:
        """Take over Flower's record of the run."""
        self._run = run

    @property
    def run(self) -> Any:
        """Flower's record of the run."""
        return self._run

    def create_message(
        self, content: Any, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Any:
        """Make a message; kept because Flower's interface still has it."""
        return Message(content, dst_node_id, message_type, group_id=group_id, ttl=ttl)

    def send_and_receive(self, messages: Iterable[Any], *, timeout: float | None = None) -> list[Any]:
        """Send, wait, and return the replies in the order of node ids."""
        sent = list(messages)
        for message in sent:
            set_message_id(message, str(next(self._numbers)))
        replies = sorted(self.answer(sent, timeout), key=lambda reply: reply.metadata.src_node_id)
        for reply in replies:
            set_message_id(reply, str(next(self._numbers)))
        return replies

    def push_messages(self, messages: Iterable[Any]) -> list[str]:
        """Send; the replies wait for :meth:`pull_messages`."""
        sent = list(messages)
        replies = self.send_and_receive(sent)
        self._replies.update({reply.metadata.reply_to_message_id: reply for reply in replies})
        return [message.metadata.message_id for message in sent]

    def pull_messages(self, message_ids: Iterable[str]) -> list[Any]:
        """Return the replies to *message_ids* that are there; each is returned once."""
        return [self._replies.pop(message_id) for message_id in message_ids if message_id in self._replies]


def error_reply(message: Any, code: int, node: str, reason: str) -> Any:
    """Return a Flower error reply to *message*, and log why."""
    _LOG.warning("round %s: the update of %s is not used: %s", _round_of(message), node, reason)
    return Message(Error(code, reason), reply_to=message)


def mismatch(arrays: Mapping[str, Any], like: Arrays, where: str) -> str | None:
    """Return why *arrays* cannot be averaged with *like*, or None if they can.

    Args:
        arrays: What a node sent.
        like: What it was sent.
        where: Names the node's arrays in the sentence.
    """
    try:
        check_same_arrays(arrays, like, where)
    except DecodeError as exc:
        return str(exc)
    return None


def unusable(reply: Any, sent: Arrays | None, node: str) -> str | None:
    """Return why the arrays in *reply* cannot be averaged with what was *sent*, or None if they can or hold none."""
    if sent is None or not reply.has_content():
        return None
    for record in reply.content.array_records.values():
        # Apps that were sent float64, as strategies with server-side optimizers do, may answer with it.
        wrong = mismatch(narrowed(numpy_arrays(record)), sent, f"node {node}")
        if wrong is not None:
            return wrong
    return None


def sent_arrays(message: Any) -> Arrays | None:
    """Return the weights that a train message carries as the devices' float32, or None if it carries none.

    Strategies with server-side optimizers hand out float64 (``FedAdam`` multiplies by a float64 scalar), which no
    train graph takes.
    """
    records = message.content.array_records
    if message.metadata.message_type.split(".")[0] != MessageType.TRAIN or len(records) != 1:
        return None
    return narrowed(numpy_arrays(next(iter(records.values()))))


def narrowed(arrays: Arrays) -> Arrays:
    """Return *arrays* with float64 narrowed to float32, the type of weights everywhere in Hedgerow."""
    return {name: array.astype("float32") if array.dtype == "float64" else array for name, array in arrays.items()}


def own_copy(content: Any) -> Any:
    """Return *content* as one node would receive it: records of its own.

    Strategies put one record object into all messages, and a ClientApp may empty what it receives.
    """
    return RecordDict({name: record.copy() for name, record in content.items()})


def _round_of(message: Any) -> object:
    for record in message.content.config_records.values():
        if "server-round" in record:
            return record["server-round"]
    return "?"
