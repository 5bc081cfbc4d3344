"""The rounds of a run: who gets what, what comes back, what it makes of the weights, and that it is on disk.

The loop is ours because Flower's ``Strategy.start`` always begins at round 1 and keeps nothing; every decision in it is
the strategy's. Needs torch and Flower.
"""

import hmac
import logging
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp.strategy import Strategy

from hedgerow.batches import client_seed
from hedgerow.checkpoint import Checkpoint
from hedgerow.decode import Fields
from hedgerow.server.accounting import PrivacyStatement, state_privacy
from hedgerow.server.errors import RoundFailedError
from hedgerow.server.evaluation import Evaluator
from hedgerow.server.flower import aggregation_errors, array_record, metric_number, numpy_arrays
from hedgerow.server.grids.judging import kinds_of
from hedgerow.server.grids.round_grid import RoundGrid
from hedgerow.server.outcome import check_round
from hedgerow.server.private_strategy import PrivateMean
from hedgerow.server.replies import EXAMPLES, Kind
from hedgerow.server.run_folder import RunFolder
from hedgerow.server.run_records import RoundRecord, SavedRound
from hedgerow.server.strategies import needed_metrics, privacy_terms, restore_state, strategy_state
from hedgerow.task import Task
from hedgerow.task_module import load_weights, model_weights
from hedgerow.weights import Arrays

__all__ = ["NAMED", "Run", "few_failures"]

_LOG = logging.getLogger(__name__)
NAMED = 100
"""So many participants are named in a round's record; of more there is only the number."""


class Run:
    """The state of a run between two rounds."""

    def __init__(
        self, task: Task, grid: RoundGrid, strategy: Strategy, folder: RunFolder, evaluator: Evaluator | None
    ) -> None:
        self._task, self._grid, self._strategy = task, grid, strategy
        self._folder, self._evaluator = folder, evaluator
        self._weights: Arrays = {}
        self._metrics: Mapping[str, float] = {}
        self.round = 0
        self.history: list[RoundRecord] = []
        self._terms = privacy_terms(folder.settings.strategy)
        # Who is left out must not depend on how long others' updates are: that would show them.
        grid.fit_to(needed_metrics(folder.settings.strategy), clips=self._terms is not None)
        # A seed is public: whoever knows it would know the noise, and who was asked.
        self._key = folder.noise_key() if self._terms is not None else None
        self._private = strategy if isinstance(strategy, PrivateMean) else None

    def resume(self, weights: Arrays) -> None:
        """Start from *weights*, or from the folder's last finished round."""
        saved = self._folder.last_round()
        if saved is None:
            self._weights = weights
        else:
            self._weights = model_weights(load_weights(self._task, saved.checkpoint.weights))
            self._metrics = saved.checkpoint.metrics
            self.round = saved.checkpoint.round
            restore_state(self._folder.settings.strategy, self._strategy, saved.state)
            if saved.grid is not None:
                self._grid.restore(Fields(saved.grid, "grid.json"))
        self.history = self._folder.history(self.round)

    def checkpoint(self, privacy: PrivacyStatement | None = None) -> Checkpoint:
        """Return the weights with the run's record.

        Args:
            privacy: What the run can promise, when it is at its end.
        """
        held = self._folder.settings.checkpoint(self._weights, self.round, self._metrics)
        if self._terms is not None and privacy is None:
            privacy = state_privacy(self._terms, (), unaccounted="the run was not at its end")
        return held if privacy is None else replace(held, privacy=privacy.to_record())

    def privacy(self) -> PrivacyStatement | None:
        """Return what the run can promise, or None if it promised nothing."""
        if self._terms is None:
            return None
        unknown = next((record.round for record in self.history if record.used and record.privacy is None), None)
        return state_privacy(
            self._terms,
            [record.privacy for record in self.history if record.privacy is not None],
            unaccounted="" if unknown is None else f"what round {unknown} gave away was not recorded",
        )

    def take_round(
        self,
        config: Mapping[str, int | float | str],
        timeout_s: float,
        *,
        evaluate: bool = True,
        save: bool = True,
        last: bool = False,
    ) -> RoundRecord:
        """Run the next round and make it durable.

        Args:
            config: What clients are told besides the weights; ``seed`` must be in it.
            timeout_s: The longest that clients may take.
            evaluate: Measure the new weights.
            save: Make the round durable; else only its line is written, and :meth:`save` does the rest.
            last: The run is to end with it, so it must use an update.

        Raises:
            NoUpdateError: No update was used, in the last round or in one too many; the round can be taken again.
            RoundFailedError: The updates give no weights.
        """
        started = time.perf_counter()
        number = self.round + 1
        seed = int(config["seed"])
        with _seeded_sampling(self._drawn_from(seed, number, "sampling")):
            messages = self._strategy.configure_train(
                number, array_record(self._weights), ConfigRecord(dict(config)), self._grid
            )
        replies = list(self._grid.send_and_receive(messages, timeout=timeout_s))
        heard = self._heard(replies)
        arrays = self._aggregated(number, replies, heard)
        if arrays is None:
            _LOG.warning("round %d used no update: %s", number, heard.refused)
            heard = heard.unused()
            check_round(self.history, _empty_round(number, heard), last=last)
        else:
            self._weights = _like(numpy_arrays(arrays), self._weights, number, heard.failures)
        self._metrics = {}
        if evaluate and self._evaluator is not None:
            self._metrics = self._evaluator.measure(self._weights)
        self.round, used = number, heard.participants
        record = RoundRecord(
            round=number,
            loss=_finite(self._metrics.get("loss")),
            score=_finite(self._metrics.get(self._task.answers.score_key)),
            score_key=self._task.answers.score_key,
            train_loss=_finite(heard.train_loss),
            seconds=round(time.perf_counter() - started, 4),
            examples=heard.examples,
            participants=tuple(sorted(used, key=_natural)) if len(used) <= NAMED else (),
            failures=few_failures(heard.failures),
            refused=heard.refused,
            virtual_s=self._grid.virtual_s,
            clients=len(used) if len(used) > NAMED else None,
            privacy=self._private.means[-1] if self._private is not None and arrays is not None else None,
        )
        self._metrics = {name: value for name, value in self._metrics.items() if _finite(value) is not None}
        self._folder.add_record(record)
        self.history.append(record)
        if save:
            self.save()
        return record

    def _heard(self, replies: Sequence[Message]) -> "_Heard":
        usable = [reply for reply in replies if reply.has_content()]
        return _Heard(
            participants=tuple(name for reply in usable for name in self._grid.reply_names(reply)),
            examples=_totals(usable),
            train_loss=_loss(usable),
            failures={self._name(reply): str(reply.error.reason) for reply in replies if reply.has_error()},
            refused=kinds_of(replies),
        )

    def _aggregated(self, number: int, replies: Sequence[Message], heard: "_Heard") -> ArrayRecord | None:
        """Return what the strategy makes of the replies, or None for nothing.

        Raises:
            RoundFailedError: It cannot aggregate them.
        """
        try:
            if self._key is not None and self._private is not None:
                self._private.round_key = hmac.digest(self._key, f"{number} noise".encode(), "sha256")
            return self._strategy.aggregate_train(number, replies)[0]
        except aggregation_errors() as exc:
            found = f"replies that cannot be averaged ({exc})"
            raise RoundFailedError(number, heard.failures, found, kinds=heard.refused) from exc

    def save(self) -> None:
        """Make the last finished round durable.

        Raises:
            RunFolderError: The disk is full or cannot be written; the round that was saved before is untouched.
        """
        state = strategy_state(self._folder.settings.strategy, self._strategy)
        self._folder.save_state(SavedRound(self.checkpoint(), state, self._grid.state()))

    def measure(self) -> None:
        """Evaluate the weights of the last round in full, for the checkpoint."""
        if self._evaluator is not None:
            measured = self._evaluator.report(self._weights)
            self._metrics = {name: value for name, value in measured.items() if _finite(value) is not None}

    def _drawn_from(self, seed: int, number: int, purpose: str) -> int:
        """Return what a generator of this round starts from: the run's key if it is private, else its seed."""
        if self._key is None:
            return client_seed(seed, number, purpose)
        return int.from_bytes(hmac.digest(self._key, f"{number} {purpose}".encode(), "sha256"), "big")

    def _name(self, reply: Message) -> str:
        return self._grid.node_name(reply.metadata.src_node_id)


@contextmanager
def _seeded_sampling(seed: int) -> Iterator[None]:
    """Make Flower's choice of nodes, which it draws from Python's global generator, depend on *seed* alone."""
    before = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(before)


@dataclass(frozen=True, slots=True)
class _Heard:
    """What the replies of a round say.

    Attributes:
        participants: The names of those whose updates can be used.
        examples: The samples that they used, together.
        train_loss: The mean of their losses, weighted by samples; None: nobody reported one.
        failures: Name -> why there is no update of it.
        refused: The same in a word -> how many.
    """

    participants: tuple[str, ...]
    examples: int
    train_loss: float | None
    failures: Mapping[str, str]
    refused: Mapping[str, int]

    def unused(self) -> "_Heard":
        """Return this for a strategy that made nothing of the updates."""
        refused = {**self.refused, str(Kind.STRATEGY): len(self.participants)} if self.participants else self.refused
        return _Heard((), 0, None, self.failures, refused)


def _empty_round(number: int, heard: _Heard) -> RoundRecord:
    return RoundRecord(
        round=number,
        loss=None,
        score=None,
        train_loss=None,
        seconds=0.0,
        examples=0,
        participants=(),
        failures=few_failures(heard.failures),
        refused=heard.refused,
    )


def few_failures(failures: Mapping[str, str]) -> dict[str, str]:
    """Return *failures* by name, and of very many only the first and the number of the others."""
    names = sorted(failures)
    kept = {name: failures[name] for name in names[:NAMED]}
    return kept if len(names) <= NAMED else {**kept, "and": f"{len(names) - NAMED} others"}


def _like(arrays: Arrays, like: Arrays, round_number: int, failures: Mapping[str, str]) -> Arrays:
    """Return aggregated *arrays* with the types and order of *like*; averages of whole numbers are rounded.

    Raises:
        RoundFailedError: They hold NaN, or are not the arrays of *like*.
    """
    if set(arrays) != set(like) or any(arrays[name].shape != like[name].shape for name in like):
        raise RoundFailedError(round_number, failures, "aggregated weights of another model")
    if not all(np.isfinite(arrays[name]).all() for name in like):
        raise RoundFailedError(round_number, failures, "NaN in the aggregated weights (is a learning rate too large?)")
    whole = {name: np.rint(arrays[name]) if like[name].dtype.kind in "iu" else arrays[name] for name in like}
    # Copied only if they are a view, which would keep all of a cohort's updates alive, or of another type.
    return {name: np.array(whole[name], like[name].dtype, copy=whole[name].base is not None or None) for name in like}


def _metrics_of(reply: Message) -> MetricRecord:
    records = list(reply.content.metric_records.values())
    return records[0] if records else MetricRecord()


def _totals(replies: Sequence[Message]) -> int:
    return sum(int(metric_number(_metrics_of(reply), EXAMPLES, 0)) for reply in replies)


def _loss(replies: Sequence[Message]) -> float | None:
    pairs = [
        (float(metric_number(m, "loss")), int(metric_number(m, EXAMPLES)))
        for m in map(_metrics_of, replies)
        if "loss" in m
    ]
    total = sum(examples for _loss_value, examples in pairs)
    return sum(loss * examples for loss, examples in pairs) / total if total else None


def _finite(value: float | None) -> float | None:
    return float(value) if value is not None and np.isfinite(value) else None


def _natural(name: str) -> tuple[int, str]:
    """Sort 2 before 10."""
    return (len(name) if name.isdecimal() else 0, name)
