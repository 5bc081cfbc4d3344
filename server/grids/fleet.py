"""A grid whose nodes are enrolled devices: Flower's strategies here, the train graph there, a transport between."""

import hashlib
import logging
from collections.abc import Iterable, Sequence

from flwr.app import Message, MetricRecord, RecordDict

from hedgerow.local_work import LocalWork
from hedgerow.server.errors import LocalTermError
from hedgerow.server.flower import array_record, clipping_keys, error_codes
from hedgerow.server.grids.judging import error_reply, sent_arrays
from hedgerow.server.grids.synchronous import SynchronousGrid
from hedgerow.server.grids.transport import DeviceUpdate, RoundTransport, RoundWork
from hedgerow.server.replies import EXAMPLES, Kind, ReplyContents, ReplyLimits, judge_answers
from hedgerow.server.round_settings import PROXIMAL_MU, message_settings, work_of
from hedgerow.task import LocalTraining
from hedgerow.weights import Arrays

__all__ = ["FleetGrid", "device_node_id"]

_LOG = logging.getLogger(__name__)
_METRICS = frozenset({"loss", "seconds"})
"""What an agent reports of its training, beside the number of its samples."""
_EXAMPLES = 100_000
"""Fifty times the labelled samples that an agent keeps unless told otherwise (``--buffer-samples``)."""


def device_node_id(device: str) -> int:
    """Return a device's Flower node id: a hash of its name, so that it is the same in every run."""
    return int.from_bytes(hashlib.sha256(device.encode()).digest()[:8], "big") >> 1


class FleetGrid(SynchronousGrid):
    """Trains on devices that a :class:`RoundTransport` reaches.

    A train message becomes a :class:`RoundWork` and an update a reply. The message's configuration overrides this
    grid's defaults through the keys ``run`` and those of ``hedgerow.server.round_settings``. An update that failed,
    was declined, is late, missing or cannot be used (``hedgerow.server.replies``) becomes a Flower error reply, which
    strategies leave out; so do all of a round whose transport raises. Devices do not evaluate: evaluation messages get
    error replies.
    """

    def __init__(
        self,
        transport: RoundTransport,
        *,
        run: str = "run",
        work: LocalWork | None = None,
        deadline_s: float = 600.0,
        limits: ReplyLimits | None = None,
    ) -> None:
        """Make a grid.

        Args:
            transport: Reaches the devices.
            run: The training run's identity.
            work: What devices do where a message says nothing else; None: what a task says by default.
            deadline_s: The longest that a round may take; a shorter timeout of the strategy wins.
            limits: What updates may say; None: at most 100,000 samples each, no metrics but those that agents report,
                and the defaults of ``hedgerow.server.replies``.

        Raises:
            FlowerVersionError: The installed Flower was not tested.
        """
        super().__init__(limits or ReplyLimits(examples=_EXAMPLES, metrics=_METRICS))
        self._transport = transport
        self._default_run, self._default_work = run, work or LocalWork.of_training(LocalTraining())
        self._deadline_s = deadline_s
        self._trouble = ""
        self._names: dict[int, str] = {}
        self._present: set[int] = set()

    @property
    def kind(self) -> str:
        """The kind ``fleet``: enrolled devices train."""
        return "fleet"

    @property
    def trouble(self) -> str:
        """What the transport raised when it was asked last; empty if it answered."""
        return self._trouble

    def get_node_ids(self) -> Sequence[int]:
        """Return the ids of the devices that can train now, sorted.

        Between two rounds the answer only grows: Flower waits without end when a node vanishes between two calls of
        one round. A device that did vanish times out and becomes an error reply.
        """
        try:
            devices = self._transport.devices()
        # As in a round: what it raises is no reason to end a run, but for one if it goes on.
        except Exception as exc:  # noqa: BLE001
            trouble = f"the transport raised {type(exc).__name__}: {exc}"
            if trouble != self._trouble:  # who waits for devices asks five times a second
                _LOG.exception("the transport raised")
            self._trouble = trouble
            return sorted(self._present)
        self._trouble = ""
        for device in devices:
            node = device_node_id(device)
            self._names[node] = device
            self._present.add(node)
        return sorted(self._present)

    def node_name(self, node_id: int) -> str:
        """Return the device's name."""
        return self._names.get(node_id, str(node_id))

    def judge(self, messages: Sequence[Message], replies: Iterable[Message]) -> list[Message]:
        """Return *replies*: updates are judged before they become replies."""
        del messages
        return list(replies)

    def answer(self, messages: Sequence[Message], timeout_s: float | None) -> Iterable[Message]:
        """Carry the messages, one round of the transport for each distinct content."""
        self._present = set()
        replies: list[Message] = []
        groups: dict[int, list[Message]] = {}
        for message in messages:
            groups.setdefault(id(message.content), []).append(message)
        for group in groups.values():
            weights = sent_arrays(group[0]) if len(group[0].content.array_records) == 1 else None
            if weights is None:
                replies.extend(self._refuse(message) for message in group)
            else:
                replies.extend(self._train(group, weights, timeout_s))
        return replies

    def _refuse(self, message: Message) -> Message:
        kind = message.metadata.message_type
        reason = f"devices take train messages with one ArrayRecord, not {kind}"
        return error_reply(
            message, error_codes().MOD_FAILED_PRECONDITION, self.node_name(message.metadata.dst_node_id), reason
        )

    def _train(self, messages: Sequence[Message], weights: Arrays, timeout_s: float | None) -> list[Message]:
        by_device = {self.node_name(message.metadata.dst_node_id): message for message in messages}
        work = self._work(messages[0], weights, tuple(sorted(by_device)), timeout_s)
        try:
            answered = list(self._transport.run_round(work))
        # A transport is somebody else's code behind a seam. What it raises costs this round and not the run; three
        # such rounds end that, with this reason.
        except Exception as exc:  # noqa: BLE001
            _LOG.exception("round %d: the transport raised", work.round)
            reason = f"the transport raised {type(exc).__name__}: {exc}"
            return [
                self._error(by_device[device], error_codes().UNKNOWN, Kind.TRANSPORT, reason) for device in work.devices
            ]
        updates: dict[str, DeviceUpdate] = {}
        for update in answered:
            if update.device in by_device:
                updates.setdefault(update.device, update)
            else:
                _LOG.warning("round %d: %s answered without being asked", work.round, update.device)
        done = [device for device in work.devices if device in updates and updates[device].state == "done"]
        answers = [_answer(updates[device]) for device in done]
        refusals = dict(zip(done, judge_answers(answers, weights, self._limits), strict=True))
        replies = []
        for device in work.devices:
            message, refusal = by_device[device], refusals.get(device)
            if device not in refusals:
                replies.append(self._error(message, *_unfinished(updates.get(device), work)))
            elif refusal is not None:
                code = error_codes().MOD_FAILED_PRECONDITION
                replies.append(self._error(message, code, refusal.kind, refusal.reason))
            else:
                replies.append(_reply(message, updates[device]))
        return replies

    def _error(self, message: Message, code: int, kind: Kind, reason: str) -> Message:
        return error_reply(message, code, self.node_name(message.metadata.dst_node_id), reason, kind)

    def _work(self, message: Message, weights: Arrays, devices: tuple[str, ...], timeout_s: float | None) -> RoundWork:
        settings = message_settings(message)
        for setting in (PROXIMAL_MU, clipping_keys()[0], "momentum", "weight-decay"):
            value = float(settings.get(setting, 0.0))
            if value != 0.0:
                raise LocalTermError(setting, value)
        return RoundWork(
            run=str(settings.get("run", self._default_run)),
            weights=weights,
            devices=devices,
            local=work_of(settings, self._default_work),
            deadline_s=self._deadline_s if timeout_s is None else min(timeout_s, self._deadline_s),
        )


def _answer(update: DeviceUpdate) -> ReplyContents:
    weights = [] if update.weights is None else [update.weights]
    return ReplyContents(weights, [{**update.metrics, EXAMPLES: update.examples}])


def _reply(message: Message, update: DeviceUpdate) -> Message:
    metrics = {name: float(update.metrics[name]) for name in sorted(update.metrics) if name != EXAMPLES}
    content = RecordDict(
        {
            "arrays": array_record(update.weights or {}),
            "metrics": MetricRecord({**metrics, EXAMPLES: update.examples}),
        }
    )
    return Message(content, reply_to=message)


def _unfinished(update: DeviceUpdate | None, work: RoundWork) -> tuple[int, Kind, str]:
    """Return Flower's error code, the kind and the reason of a device that is not done."""
    codes = error_codes()
    if update is None or update.state == "timed out":
        late = f"no answer within {work.deadline_s:g} s"
        return codes.REPLY_MESSAGE_UNAVAILABLE, Kind.LATE, (update.reason if update and update.reason else late)
    reason = f"{update.state}: {update.reason or 'no reason given'}"
    if update.state == "declined":
        return codes.NODE_UNAVAILABLE, Kind.DECLINED, reason
    return codes.CLIENT_APP_RAISED_EXCEPTION, Kind.RAISED, reason
