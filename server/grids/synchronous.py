"""A Flower grid without SuperLink: messages are answered within the call that sends them."""

import itertools
import math
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from flwr.app import Message, RecordDict

from hedgerow.server.flower import FlowerRun, adopt_flower, empty_run, set_message_id
from hedgerow.server.grids.judging import judged_replies
from hedgerow.server.grids.round_grid import RoundGrid
from hedgerow.server.replies import ReplyLimits

__all__ = ["SynchronousGrid", "own_copy"]


class SynchronousGrid(RoundGrid):
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
        self._limits = self._own_limits = limits or ReplyLimits()
        self._declared = dict(declared or {})
        self._check_updates = check_updates
        self._run = empty_run(1)
        self._numbers = itertools.count(1)
        self._replies: dict[str, Message] = {}

    @abstractmethod
    def get_node_ids(self) -> Sequence[int]:
        """Return the ids of all nodes, sorted."""

    @abstractmethod
    def answer(self, messages: Sequence[Message], timeout_s: float | None) -> Iterable[Message]:
        """Return one reply for each message, in any order."""

    def judge(self, messages: Sequence[Message], replies: Iterable[Message]) -> list[Message]:
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
        """Fit the border to a strategy, whatever it was fitted to before."""
        own = self._own_limits
        norm = math.inf if clips and own.norm is None else own.norm
        self._limits = replace(own, needed={**own.needed, **needed}, norm=norm)

    def set_run(self, run: FlowerRun) -> None:
        """Take over Flower's record of the run."""
        self._run = run

    @property
    def run(self) -> FlowerRun:
        """Flower's record of the run."""
        return self._run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """Make a message; kept because Flower's interface still has it."""
        return Message(content, dst_node_id, message_type, group_id=group_id, ttl=ttl)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """Send, wait, and return the replies in the order of node ids."""
        sent = list(messages)
        for message in sent:
            set_message_id(message, str(next(self._numbers)))
        answered = self.judge(sent, self.answer(sent, timeout))
        replies = sorted(answered, key=lambda reply: reply.metadata.src_node_id)
        for reply in replies:
            set_message_id(reply, str(next(self._numbers)))
        return replies

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Send; the replies wait for :meth:`pull_messages`."""
        sent = list(messages)
        replies = self.send_and_receive(sent)
        self._replies.update({reply.metadata.reply_to_message_id: reply for reply in replies})
        return [message.metadata.message_id for message in sent]

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Return the replies to *message_ids* that are there; each is returned once."""
        return [self._replies.pop(message_id) for message_id in message_ids if message_id in self._replies]


def own_copy(content: RecordDict) -> RecordDict:
    """Return *content* as one node would receive it: records of its own.

    Strategies put one record object into all messages, and a ClientApp may empty what it receives.
    """
    return RecordDict({name: record.copy() for name, record in content.items()})
