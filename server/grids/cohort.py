"""A grid whose nodes are virtual clients that an engine trains all at once: no message is answered by itself."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from flwr.app import Message, MessageType, MetricRecord, RecordDict
from numpy.typing import NDArray

from hedgerow.local_work import LocalWork
from hedgerow.server.client_app import CORRECTION, STEPS, correction_in
from hedgerow.server.cohort.clients import ClientIndex
from hedgerow.server.cohort.engine import CohortEngine, CohortUpdate, Weights
from hedgerow.server.cohort.evaluation import CohortEvaluator
from hedgerow.server.flower import (
    array_record,
    clipping_keys,
    error_codes,
    numpy_arrays,
    set_answering_clients,
)
from hedgerow.server.grids.judging import error_reply
from hedgerow.server.grids.synchronous import SynchronousGrid
from hedgerow.server.replies import (
    EXAMPLES,
    Kind,
    Refusal,
    ReplyLimits,
    longest_update,
    model_length,
    narrowed,
    too_long,
)
from hedgerow.server.round_settings import message_settings, work_of
from hedgerow.task import Dataset, Task, TaskData
from hedgerow.weights import Arrays

__all__ = ["CohortGrid"]

_Waiting = dict[int, list[Message]]
"""Messages that wait for a reply, by the client's number."""


class CohortGrid(SynchronousGrid):
    """Trains and evaluates virtual clients in cohorts; any Flower strategy runs on it unchanged.

    Node i (from 1) is client i - 1. All messages with the same weights and configuration are one cohort and one call
    of the engine. The configuration's keys are those of our ClientApp (``hedgerow.server.round_settings``);
    Flower's ``clipping_norm`` is answered with ``norm_bit`` in each client's reply, as ``adaptiveclipping_mod`` does.

    Replies hold the engine's arrays themselves, until the next messages are sent; nothing is serialized. With
    *partial_sums* a reply stands for all clients that the engine trained together: their mean weighted by examples,
    ``num-examples`` their sum, ``loss`` the mean weighted likewise. That is exact for strategies that average by
    ``num-examples`` (``StrategySpec.mean``), and wrong for all others. A client whose update or loss is not finite, or
    whose update is too long (``hedgerow.server.replies``), becomes an error reply and is left out of the mean.

    What crosses between the engine and the strategy, a round: on a CPU nothing is copied but what Flower's own
    arithmetic makes anew, and Flower writes its result as ``.npy`` bytes once; from a GPU the mean (or each update,
    where the strategy needs it) comes down once, and the new weights go up once.
    """

    def __init__(
        self,
        task: Task,
        data: TaskData | Dataset,
        clients: ClientIndex,
        engine: CohortEngine,
        *,
        partial_sums: bool = False,
        work: LocalWork | None = None,
        device: str = "cpu",
        limits: ReplyLimits | None = None,
    ) -> None:
        """Make a grid.

        Args:
            task: What to learn.
            data: Its data; only training samples are used.
            clients: Who owns which of them.
            engine: Made for the same task, samples and clients. It remains the caller's to close.
            partial_sums: One reply for each slice that the engine trains instead of one for each client.
            work: What clients do where a message says nothing else; None: what the task says, with the seed 0.
            device: Torch's, where evaluate messages are answered; the engine knows its own.
            limits: How long updates may be (``hedgerow.server.replies``); None: the default.

        Raises:
            FlowerVersionError: The installed Flower was not tested.
            ValueError: There are no clients.
        """
        if len(clients) < 1:
            raise ValueError("there must be at least one client")
        super().__init__(limits)
        dataset = data.train if isinstance(data, TaskData) else data
        self._task, self._dataset, self._clients, self._engine = task, dataset, clients, engine
        self._partial_sums = partial_sums
        self._work = work or LocalWork.of_training(task.local)
        self._device = device
        self._like = {name: tuple(tensor.shape) for name, tensor in task.model().state_dict().items()}
        # Flower copies the whole list for each round; of a list that is there, which takes 4 ms for a million.
        self._nodes = list(range(1, len(clients) + 1))
        self._evaluator: CohortEvaluator | None = None

    @property
    def kind(self) -> str:
        """The kind ``cohort``: an engine trains all clients at once."""
        return "cohort"

    @property
    def engine(self) -> CohortEngine:
        """What trains the cohorts."""
        return self._engine

    def get_node_ids(self) -> Sequence[int]:
        """Return 1..clients: always the same list, which must not be changed."""
        return self._nodes

    def node_name(self, node_id: int) -> str:
        """Return the client's number, which also seeds its order of samples."""
        return str(node_id - 1)

    def judge(self, messages: Sequence[Message], replies: Iterable[Message]) -> list[Message]:
        """Return *replies*: what the engine brings is judged by its numbers, before a mean hides them."""
        del messages
        return list(replies)

    def answer(self, messages: Sequence[Message], timeout_s: float | None) -> Iterable[Message]:
        """Train or evaluate each cohort; *timeout_s* does not apply, because nothing here waits."""
        del timeout_s
        replies: list[Message] = []
        cohorts = _cohorts(messages)
        for number, cohort in enumerate(cohorts, start=1):
            kind = cohort[0].metadata.message_type.split(".")[0]
            if kind == MessageType.QUERY:
                reason = "virtual clients train and evaluate; they run no code that could answer a query"
                replies.extend(self._refuse(message, reason) for message in cohort)
                continue
            weights, reason = self._weights(cohort[0])
            if reason:
                replies.extend(self._refuse(message, reason) for message in cohort)
                continue
            waiting: _Waiting = {}
            for message in cohort:
                client = message.metadata.dst_node_id - 1
                if not 0 <= client < len(self._clients):
                    replies.append(self._refuse(message, "there is no such client", error_codes().NODE_UNAVAILABLE))
                elif not self._clients.size(client):
                    replies.append(self._refuse(message, "it has no samples", error_codes().NODE_UNAVAILABLE))
                else:
                    waiting.setdefault(client, []).append(message)
            if waiting and kind == MessageType.TRAIN:
                # An engine may write over what it brought when it is called again.
                replies.extend(self._train(waiting, weights, own_copies=number < len(cohorts)))
            elif waiting:
                replies.extend(self._evaluate(waiting, weights))
        return replies

    def _refuse(self, message: Message, reason: str, code: int | None = None, kind: Kind | None = None) -> Message:
        name = self.node_name(message.metadata.dst_node_id)
        return error_reply(message, error_codes().MOD_FAILED_PRECONDITION if code is None else code, name, reason, kind)

    def _weights(self, message: Message) -> tuple[Weights, str]:
        """Return the weights that *message* carries, or why they cannot be used; engines take them to their device."""
        records = [record for name, record in message.content.array_records.items() if name != CORRECTION]
        if len(records) != 1:
            return {}, f"expected one ArrayRecord in the message, found {len(records)}"
        arrays = narrowed(numpy_arrays(records[0]))
        found = {name: array.shape for name, array in arrays.items()}
        if found != self._like:
            differing = sorted(n for n in {*found, *self._like} if found.get(n) != self._like.get(n))
            first = differing[0]
            return {}, (
                f"expected the weights of the model of task {self._task.name!r}, found others: {first} is "
                f"{found.get(first)} instead of {self._like.get(first)}"
            )
        # In the model's order, and not from read-only arrays, which torch warns of.
        ordered = {name: arrays[name] if arrays[name].flags.writeable else arrays[name].copy() for name in self._like}
        return {name: torch.from_numpy(array) for name, array in ordered.items()}, ""

    def _train(self, waiting: _Waiting, weights: Weights, *, own_copies: bool) -> Iterator[Message]:
        work = work_of(message_settings(next(iter(waiting.values()))[0]), self._work)
        again: list[int] = []
        each = not self._partial_sums
        clients, corrections = _asked(waiting), self._corrections(waiting)
        # Taken from the engine's device slice by slice, and judged when all are there: beside each other.
        slices = [
            self._taken(update, own_copies=own_copies)
            for update in self._engine.train(weights, clients, work, each=each, corrections=corrections)
        ]
        longest = self._longest(slices, weights)
        for part in slices:
            usable = part.finite & (part.update.norms <= longest)
            if not usable.all():
                yield from self._unusable(part, longest, waiting)
                if not each:  # the mean holds them; the others are few and are trained again without them
                    again.extend(client for client, fine in zip(part.update.clients, usable, strict=True) if fine)
                    continue
            if each:
                yield from self._each(part, usable, work, waiting)
            else:
                yield self._mean(part, waiting)
        if again:
            rows = [clients.index(client) for client in again]
            corrections = {name: stack[rows] for name, stack in corrections.items()} if corrections else None
            for update in self._engine.train(weights, again, work, each=False, corrections=corrections):
                yield self._mean(self._taken(update, own_copies=False), waiting)

    def _taken(self, update: CohortUpdate, *, own_copies: bool) -> "_Slice":
        """Return what an engine brought, off its device."""
        brought = update.mean if self._partial_sums else update.each
        if brought is None:
            wanted = "a mean" if self._partial_sums else "each update"
            raise ValueError(f"the engine {self._engine.name} was asked for {wanted} and brought none")
        arrays = _numpy(brought)
        if own_copies and not self._partial_sums:
            arrays = {name: array.copy() for name, array in arrays.items()}
        return _Slice(replace(update, mean=None, each=None), arrays)

    def _longest(self, slices: Sequence["_Slice"], weights: Weights) -> float:
        norms = [part.update.norms[part.finite] for part in slices]
        return longest_update(
            np.concatenate(norms) if norms else np.zeros(0), model_length(_numpy(weights)), self._limits
        )

    def _corrections(self, waiting: _Waiting) -> dict[str, torch.Tensor] | None:
        """Return what is added to the gradients, a row for each client that is asked; None: nothing."""
        records = [correction_in(message) for client in sorted(waiting) for message in waiting[client]]
        if all(record is None for record in records):
            return None
        rows = [narrowed(numpy_arrays(record)) if record is not None else {} for record in records]
        names = {name for row in rows for name in row if name in self._like}
        zeros = {name: np.zeros(self._like[name], np.float32) for name in sorted(names)}
        return {name: torch.from_numpy(np.stack([row.get(name, zero) for row in rows])) for name, zero in zeros.items()}

    def _unusable(self, part: "_Slice", longest: float, waiting: _Waiting) -> Iterator[Message]:
        norms = part.update.norms.tolist()
        for client, finite, norm in zip(part.update.clients, part.finite.tolist(), norms, strict=True):
            if finite and norm <= longest:
                continue
            refusal = too_long(norm, longest)
            if not finite:
                refusal = Refusal(Kind.NOT_FINITE, "NaN or infinity in its update or loss")
            reason = f"{refusal.reason} (is a learning rate too large?)"
            yield self._refuse(waiting[client].pop(), reason, kind=refusal.kind)

    def _mean(self, part: "_Slice", waiting: _Waiting) -> Message:
        update = part.update
        messages = [waiting[client].pop() for client in update.clients]
        examples = int(update.examples.sum())
        loss = float(np.dot(update.losses, update.examples) / examples)
        # The first node's reply: replies are sorted by node, and slices keep their order.
        reply = _reply(messages[0], part.arrays, {"loss": loss, EXAMPLES: examples})
        set_answering_clients(reply, update.clients)
        return reply

    def _each(self, part: "_Slice", usable: NDArray[np.bool_], work: LocalWork, waiting: _Waiting) -> Iterator[Message]:
        update, norm_bit = part.update, clipping_keys()[1]
        for row in np.flatnonzero(usable).tolist():
            examples = int(update.examples[row])
            metrics: dict[str, int | float] = {"loss": float(update.losses[row]), EXAMPLES: examples}
            if work.clip_norm is not None:
                metrics[norm_bit] = int(update.norms[row] > work.clip_norm)
            if CORRECTION in waiting[update.clients[row]][-1].content:
                metrics[STEPS] = work.steps(examples)
            # Not array[row], which makes a scalar of a row without dimensions.
            arrays = {name: array[row, ...] for name, array in part.arrays.items()}
            yield _reply(waiting[update.clients[row]].pop(), arrays, metrics)

    def _evaluate(self, waiting: _Waiting, weights: Weights) -> Iterator[Message]:
        if self._evaluator is None:
            self._evaluator = CohortEvaluator(self._task, self._dataset, self._clients, device=self._device)
        clients = _asked(waiting)
        measured = self._evaluator.measure(weights, clients)
        totals: dict[str, float] = {}
        sizes: Counter[str] = Counter()
        examples = 0
        for client, metrics in zip(clients, measured, strict=True):
            size = self._clients.size(client)
            if not self._partial_sums:
                yield _reply(waiting[client].pop(), None, {**metrics, EXAMPLES: size})
                continue
            examples += size
            for name, value in metrics.items():
                totals[name] = totals.get(name, 0.0) + value * size
                sizes[name] += size
        if self._partial_sums:
            means = {name: total / sizes[name] for name, total in totals.items()}
            reply = _reply(waiting[clients[0]][0], None, {**means, EXAMPLES: examples})
            set_answering_clients(reply, tuple(clients))
            yield reply


@dataclass(frozen=True, slots=True)
class _Slice:
    """What an engine brought of some clients.

    Attributes:
        update: Without its weights.
        arrays: These, off the engine's device: a row for each client, or their mean.
    """

    update: CohortUpdate
    arrays: Arrays

    @property
    def finite(self) -> NDArray[np.bool_]:
        """Which clients' updates and losses hold neither NaN nor infinity."""
        return np.isfinite(self.update.norms) & np.isfinite(self.update.losses)


def _cohorts(messages: Sequence[Message]) -> list[list[Message]]:
    """Return *messages* in groups with the same weights and configuration; strategies make one content for all."""
    keys: dict[int, object] = {}
    cohorts: dict[object, list[Message]] = {}
    for message in messages:
        content = message.content
        key = keys.get(id(content))
        if key is None:
            arrays = tuple(id(record) for name, record in content.array_records.items() if name != CORRECTION)
            configs = repr([sorted(record.items()) for record in content.config_records.values()])
            key = keys[id(content)] = (message.metadata.message_type, arrays, configs)
        cohorts.setdefault(key, []).append(message)
    return list(cohorts.values())


def _asked(waiting: Mapping[int, Sequence[Message]]) -> list[int]:
    """Return the clients in the order of their numbers, so that sums do not depend on the order of messages."""
    return [client for client in sorted(waiting) for _message in waiting[client]]


def _numpy(tensors: Mapping[str, torch.Tensor]) -> Arrays:
    """Return *tensors* as arrays, without a copy on a CPU and with one of each from a GPU."""
    return {name: tensor.detach().cpu().numpy() for name, tensor in tensors.items()}


def _reply(message: Message, arrays: Arrays | None, metrics: Mapping[str, int | float]) -> Message:
    content = RecordDict({"metrics": MetricRecord(dict(metrics))})
    if arrays is not None:
        content["arrays"] = array_record(arrays, shared=True)
    return Message(content, reply_to=message)
