"""Flower's messages at the border of ``hedgerow.server.replies``: what comes back is judged, whichever grid brought it.

Needs Flower.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from tokenize import TokenError
from typing import TypeVar
from zipfile import BadZipFile

import numpy as np
from flwr.app import ArrayRecord, Error, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid

from hedgerow.server.flower import error_codes, numpy_arrays, refusal_kind, set_refusal_kind
from hedgerow.server.grids.round_grid import ForeignGrid
from hedgerow.server.replies import Kind, Refusal, ReplyContents, ReplyLimits, judge_answers, narrowed
from hedgerow.server.round_settings import SERVER_ROUND, message_settings
from hedgerow.server.run_records import RoundRecord
from hedgerow.weights import Arrays

__all__ = ["JudgedGrid", "error_reply", "judged_replies", "kinds_of", "reply_kind", "sent_arrays"]

Record = TypeVar("Record", ArrayRecord, MetricRecord)

_LOG = logging.getLogger(__name__)
_UNREADABLE = (
    ValueError,
    TypeError,
    KeyError,
    OSError,
    EOFError,
    MemoryError,
    OverflowError,
    RecursionError,
    SyntaxError,
    TokenError,
    BadZipFile,
    NotImplementedError,
)
"""What Flower and numpy raise about the bytes of an array that are none: numpy parses headers as Python, and opens what
begins like a ZIP archive as one."""
_REASON_CHARACTERS = 500
"""Clients' own words, such as names of arrays, stand in reasons."""


def sent_arrays(message: Message) -> Arrays | None:
    """Return the weights that a train message carries as the devices' float32, or None if it carries none.

    They are its first record: SCAFFOLD sends its corrections as a second one. Strategies with server-side optimizers
    hand out float64 (``FedAdam`` multiplies by a float64 scalar), which no train graph takes.
    """
    records = _records(message.content, ArrayRecord)
    if _kind(message) != MessageType.TRAIN or not records:
        return None
    return narrowed(numpy_arrays(records[0]))


def error_reply(message: Message, code: int, node: str, reason: str, kind: Kind | None = None) -> Message:
    """Return a Flower error reply to *message*, and log why.

    Args:
        message: What is not answered.
        code: Flower's.
        node: What people call it.
        reason: One sentence.
        kind: What kind of reason it is; None: the one that the code stands for.
    """
    reason = reason[:_REASON_CHARACTERS]
    _LOG.warning("round %s: the update of %s is not used: %s", _round_of(message) or "?", node, reason)
    reply = Message(Error(code, reason), reply_to=message)
    if kind is not None:
        set_refusal_kind(reply, kind)
    return reply


def reply_kind(reply: Message) -> Kind:
    """Return the kind of an error reply, also of one that Flower itself made."""
    noted = refusal_kind(reply)
    if noted is not None:
        return Kind(noted)
    codes = error_codes()
    return {
        codes.LOAD_CLIENT_APP_EXCEPTION: Kind.RAISED,
        codes.CLIENT_APP_RAISED_EXCEPTION: Kind.RAISED,
        codes.MESSAGE_UNAVAILABLE: Kind.LATE,
        codes.REPLY_MESSAGE_UNAVAILABLE: Kind.LATE,
        codes.NODE_UNAVAILABLE: Kind.ABSENT,
        codes.CLIENT_APP_CRASHED: Kind.CRASHED,
    }.get(reply.error.code, Kind.OTHER)


def kinds_of(replies: Iterable[Message]) -> dict[str, int]:
    """Return how many error replies there are of each kind, the most frequent first."""
    return dict(Counter(str(reply_kind(reply)) for reply in replies if reply.has_error()).most_common())


def judged_replies(
    messages: Sequence[Message],
    replies: Iterable[Message],
    limits: ReplyLimits,
    *,
    names: Callable[[int], str],
    declared: Mapping[int, int] | None = None,
    arrays: bool = True,
) -> list[Message]:
    """Return *replies* with an error reply in the place of each that cannot be used or did not come.

    Error replies, and answers to queries, pass as they are.

    Args:
        messages: What was sent; each has its id.
        replies: What came. Of several replies to one message only the first is looked at, and those to none are left
            out.
        limits: What they may say.
        names: Node id -> what people call it.
        declared: Node id -> so many samples it may have used.
        arrays: Trained weights must resemble those that were sent; else they may have any form, such as trees.
    """
    asked = {message.metadata.message_id: message for message in messages}
    found: dict[str, Message] = {}
    for reply in replies:
        message = asked.get(reply.metadata.reply_to_message_id)
        if message is None or reply.metadata.reply_to_message_id in found:
            _LOG.warning("a reply of node %s that nobody waits for is not used", reply.metadata.src_node_id)
            continue
        node = message.metadata.dst_node_id
        if reply.metadata.src_node_id != node:
            reason = f"expected the reply of node {node}, found one of node {reply.metadata.src_node_id}"
            reply = _refused(message, names(node), Refusal(Kind.FORM, reason))  # noqa: PLW2901
        found[message.metadata.message_id] = reply
    groups: dict[object, list[str]] = {}
    for key, reply in found.items():
        message = asked[key]
        if reply.has_error() or _kind(message) not in {MessageType.TRAIN, MessageType.EVALUATE}:
            continue
        # Messages of one round differ (corrections, fewer epochs), but carry the same weights.
        first = next(iter(_records(message.content, ArrayRecord)), None)
        groups.setdefault((_kind(message), id(first)), []).append(key)
    for keys in groups.values():
        first_message = asked[keys[0]]
        trained = _kind(first_message) == MessageType.TRAIN
        sent = sent_arrays(first_message) if trained and arrays else None
        answers = [_answer(found[key], (declared or {}).get(asked[key].metadata.dst_node_id)) for key in keys]
        for key, refusal in zip(keys, judge_answers(answers, sent, limits, trained=trained), strict=True):
            if refusal is not None:
                found[key] = _refused(asked[key], names(asked[key].metadata.dst_node_id), refusal)
    for key, message in asked.items():
        if key not in found:
            name = names(message.metadata.dst_node_id)
            code = error_codes().REPLY_MESSAGE_UNAVAILABLE
            found[key] = error_reply(message, code, name, "expected a reply to its message, found none", Kind.LATE)
    return list(found.values())


class JudgedGrid(ForeignGrid):
    """Flower's own grid, or any other, behind the border; it keeps account of what passed."""

    def __init__(self, grid: Grid, limits: ReplyLimits | None = None) -> None:
        super().__init__(grid)
        self._limits = limits or ReplyLimits()
        self._used: Counter[int] = Counter()
        self._refused: dict[int, Counter[str]] = {}
        self._failures: dict[int, dict[str, str]] = {}

    def history(self, rounds: int) -> list[RoundRecord]:
        """Return what became of the updates of each round; of the other numbers nothing is known here."""
        return [
            RoundRecord(
                round=number,
                loss=None,
                score=None,
                train_loss=None,
                seconds=0.0,
                examples=0,
                participants=(),
                failures=self._failures.get(number, {}),
                refused=dict(self._refused.get(number, Counter()).most_common()),
                clients=self._used[number],
            )
            for number in range(1, rounds + 1)
        ]

    def made_nothing(self, round_number: int) -> None:
        """Note that the strategy made nothing of the updates of a round, whose weights are those before it."""
        if unused := self._used.pop(round_number, 0):
            self._refused.setdefault(round_number, Counter())[str(Kind.STRATEGY)] += unused

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Have the grid send; replies that are pulled later are not judged, for nobody knows then what they answer."""
        return self._grid.push_messages(messages)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """Send, wait, and return the replies, with error replies for those that cannot be used."""
        sent = list(messages)
        replies = judged_replies(sent, self._grid.send_and_receive(sent, timeout=timeout), self._limits, names=str)
        if sent and _kind(sent[0]) == MessageType.TRAIN:
            number = _round_of(sent[0]) or 0
            self._used[number] += sum(reply.has_content() for reply in replies)
            tally = self._refused.setdefault(number, Counter())
            tally.update(kinds_of(replies))
            failures = self._failures.setdefault(number, {})
            failures.update((str(r.metadata.src_node_id), str(r.error.reason)) for r in replies if r.has_error())
        return replies


def _answer(reply: Message, declared: int | None) -> ReplyContents:
    arrays: list[Mapping[str, object]] = []
    for record in _records(reply.content, ArrayRecord):
        try:
            read = numpy_arrays(record)
            # Apps that were sent float64, as strategies with server-side optimizers do, may answer with it.
            arrays.append(narrowed(read) if all(isinstance(array, np.ndarray) for array in read.values()) else read)
        except _UNREADABLE as exc:
            arrays.append({"(unreadable)": exc})
    return ReplyContents(arrays, _records(reply.content, MetricRecord), declared)


def _records(content: RecordDict, kind: type[Record]) -> list[Record]:
    """Return the records of one *kind*; Flower's own properties make dictionaries that check each entry again."""
    return [record for record in content.values() if isinstance(record, kind)]


def _refused(message: Message, node: str, refusal: Refusal) -> Message:
    return error_reply(message, error_codes().MOD_FAILED_PRECONDITION, node, refusal.reason, refusal.kind)


def _kind(message: Message) -> str:
    kind: str = message.metadata.message_type.split(".")[0]
    return kind


def _round_of(message: Message) -> int | None:
    found = message_settings(message).get(SERVER_ROUND)
    return None if found is None else int(found)
