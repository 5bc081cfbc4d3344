"""A Flower grid without SuperLink: messages are answered within the call that sends them."""

import itertools
import math
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from hedgerow.server.flower import adopt_flower, empty_run, set_message_id
from hedgerow.server.grids.border import judged_replies
from hedgerow.server.replies import ReplyLimits

__all__ = ["SynchronousGrid", "own_copy"]


class SynchronousGrid(Grid):
    """What our grids share; a subclass says who its nodes are and how they answer.

    Replies come in the order of node ids, so that sums of floats do not depend on who was fastest. Each passes the
    border of ``hedgerow.server.replies``; what cannot be used becomes an error reply, which strategies leave out.
    """

    def __init__(
        self,
        limits: ReplyLimits | None = None,
        *,
        declared: Mapping[int, int] | None = None,
        check_updates: bool = True,
    ) -> None:
        """Make a grid.

        Args:
            limits: What replies may say; None: the default ones.
            declared: Node id -> so many samples it has; nodes without an entry are held against the limits.
            check_updates: Trained weights must resemble those that were sent.

        Raises:
            FlowerVersionError: The installed Flower was not tested.
        """
        adopt_flower()
        self._limits, self._declared = limits or ReplyLimits(), dict(declared or {})
        self._check_updates = check_updates
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

    def judge(self, messages: Sequence[Any], replies: Iterable[Any]) -> list[Any]:
        """Return *replies* with an error reply in the place of each that cannot be used."""
        return judged_replies(
            messages,
            replies,
            self._limits,
            names=self.node_name,
            declared=self._declared,
            arrays=self._check_updates,
        )

    def fit_to(self, needed: Mapping[str, tuple[float, float]], *, clips: bool) -> None:
        """Fit the border to a strategy.

        Args:
            needed: Metrics that trained replies must have, for it computes with them -> between what they may lie.
            clips: It clips each update itself, so that updates may be of any length unless a norm was declared.
        """
        norm = math.inf if clips and self._limits.norm is None else self._limits.norm
        self._limits = replace(self._limits, needed=dict(needed), norm=norm)

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
        answered = self.judge(sent, self.answer(sent, timeout))
        replies = sorted(answered, key=lambda reply: reply.metadata.src_node_id)
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


def own_copy(content: Any) -> Any:
    """Return *content* as one node would receive it: records of its own.

    Strategies put one record object into all messages, and a ClientApp may empty what it receives.
    """
    return RecordDict({name: record.copy() for name, record in content.items()})
