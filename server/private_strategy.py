"""Central differential privacy round any strategy that needs no more than the mean of the updates. Needs Flower.

It takes the place of Flower 1.41's wrappers, which weigh updates by claimed samples (one client of ten that claims 91
of 100 samples moves the mean by 0.91 of the norm where the noise hides 0.1), throw a whole round away when one client
is absent, divide by zero at an update of zeros, add the noise after the inner strategy's own step (a server-side Adam
enlarges what the noise should have hidden), and move an adaptive norm away from its quantile.
"""

import hmac
import logging
import math
import secrets
from collections.abc import Iterable, Sequence

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.exception import AggregationError
from flwr.serverapp.strategy import Strategy

from hedgerow.server.flower import (
    answering_clients,
    array_record,
    clipping_keys,
    metric_number,
    numpy_arrays,
    received_message,
)
from hedgerow.server.privacy import NoisyMean, PrivacyTerms, next_norm
from hedgerow.server.replies import EXAMPLES
from hedgerow.weights import Arrays

__all__ = ["PrivateMean"]

_LOG = logging.getLogger(__name__)


class PrivateMean(Strategy):
    """Clips each update, averages them with equal weights, adds noise, and hands the inner strategy this one mean.

    What the inner strategy makes of it costs no more privacy. Whole numbers in the weights, such as BatchNorm's count
    of batches, stay as they were: they say nothing of clients then.

    Attributes:
        strategy: The inner one, which samples the clients and makes the step.
        terms: What was asked for.
        clipping_norm: The norm of the next round; it moves if the terms are adaptive.
        generator: Draws the noise; nobody can know it.
        round_key: A secret of the round from which the noise is drawn instead, so that a round that is taken again
            after a kill has the same noise if it has the same updates. If it has others, its noise is another:
            the difference of two means under the same noise would show the updates.
        means: What each round gave away that gave something away, since this was made.
    """

    def __init__(self, strategy: Strategy, terms: PrivacyTerms, clients: int) -> None:
        """Wrap *strategy*.

        Args:
            strategy: Must need no more than the mean.
            terms: The mechanism.
            clients: That are expected in a round.
        """
        super().__init__()
        self.strategy, self.terms = strategy, terms
        self.clipping_norm = terms.clip
        self.generator = np.random.default_rng(secrets.randbits(256))
        self.round_key: bytes | None = None
        self.means: list[NoisyMean] = []
        self._noise, self._count_noise = terms.noise_on_updates(clients), terms.noise_on_count(clients)
        self._sent: Arrays = {}
        self._asked = self._nodes = 0

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Let the inner strategy sample; clients that clip are told the norm."""
        self._sent = numpy_arrays(arrays)
        if self.terms.by_client:
            config[clipping_keys()[0]] = self.clipping_norm
        # Counted before the draw: who comes while it is made could not be drawn, and makes no cohort more secret.
        self._nodes = len(list(grid.get_node_ids()))
        messages = list(self.strategy.configure_train(server_round, arrays, config, grid))
        self._asked = len(messages)
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Return the inner strategy's step along the noisy mean of those who answered; (None, None) if nobody did.

        Raises:
            AggregationError: A reply stands for several clients, or clients that clip do not say whether they did.
        """
        answered = [reply for reply in replies if reply.has_content()]
        if any(answering_clients(reply) is not None for reply in answered):
            raise AggregationError("partial sums weigh clients by their samples; privacy needs each client's update")
        clipped, total = 0, {name: np.zeros(array.shape, np.float64) for name, array in self._floats().items()}
        used = []
        for reply in answered:
            update = self._update(reply)
            norm = math.sqrt(sum(float(np.square(change).sum()) for change in update.values()))
            if not math.isfinite(norm):  # a grid without a border brought it
                _LOG.warning(
                    "round %d: NaN or infinity of node %d is not used", server_round, reply.metadata.src_node_id
                )
                continue
            factor = self.clipping_norm / norm if norm > self.clipping_norm else 1.0
            for name, change in update.items():
                total[name] += change * factor
            clipped += self._was_clipped(reply, norm)
            used.append(reply)
        if not used:
            return None, None
        generator = self._generator_for(total)
        mean = self._noisy_mean(total, len(used), generator)
        self._adapt(clipped, len(used), generator)
        content = RecordDict({"arrays": array_record(mean), "metrics": _mean_metrics(used)})
        return self.strategy.aggregate_train(server_round, [received_message(used[0], content)])

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Let the inner strategy ask for evaluations."""
        return self.strategy.configure_evaluate(server_round, arrays, config, grid)

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Let the inner strategy average: measures of clients are not private."""
        return self.strategy.aggregate_evaluate(server_round, replies)

    def summary(self) -> None:
        """Log what the mechanism is."""
        _LOG.info("%s: %s", "privacy" if self.terms.is_private else "clipping", self.terms.to_record())
        self.strategy.summary()

    def _floats(self) -> Arrays:
        return {name: array for name, array in self._sent.items() if array.dtype.kind == "f"}

    def _update(self, reply: Message) -> Arrays:
        arrays = numpy_arrays(next(iter(reply.content.array_records.values())))
        return {name: arrays[name].astype(np.float64) - sent for name, sent in self._floats().items()}

    def _was_clipped(self, reply: Message, norm: float) -> int:
        if not (self.terms.adaptive and self.terms.by_client):
            return int(norm > self.clipping_norm)
        key = clipping_keys()[1]
        record = next(iter(reply.content.metric_records.values()))
        if key not in record:
            raise AggregationError(f"clients that clip to an adaptive norm must say in {key} whether they did")
        return int(bool(record[key]))

    def _generator_for(self, total: Arrays) -> np.random.Generator:
        if self.round_key is None:
            return self.generator
        digest = hmac.new(self.round_key, digestmod="sha256")
        for name in sorted(total):
            digest.update(name.encode() + b"\0" + total[name].tobytes())
        return np.random.default_rng(int.from_bytes(digest.digest(), "big"))

    def _noisy_mean(self, total: Arrays, answered: int, generator: np.random.Generator) -> Arrays:
        """Return new weights: those that were sent, plus the mean update, plus noise."""
        std = self._noise * self.clipping_norm / answered
        self.means.append(
            NoisyMean(nodes=self._nodes, asked=self._asked, answered=answered, clip=self.clipping_norm, noise_std=std)
        )
        noisy = dict(self._sent)
        for name in sorted(total):
            sent = self._sent[name]
            noise = generator.normal(0.0, std, sent.shape) if std else 0.0
            noisy[name] = np.asarray(sent + total[name] / answered + noise, dtype=sent.dtype)
        return noisy

    def _adapt(self, clipped: int, answered: int, generator: np.random.Generator) -> None:
        """Move the norm towards the quantile."""
        noise = float(generator.normal(0.0, self._count_noise)) if self._count_noise else 0.0
        self.clipping_norm = next_norm(self.terms, self.clipping_norm, (answered - clipped + noise) / answered)


def _mean_metrics(replies: Sequence[Message]) -> MetricRecord:
    """Return the plain mean of each metric that all have, and how many samples they name in all."""
    records = [next(iter(reply.content.metric_records.values())) for reply in replies]
    names = set(records[0]).intersection(*records[1:]) - {EXAMPLES, clipping_keys()[1]}
    means = {
        name: math.fsum(metric_number(record, name) for record in records) / len(records) for name in sorted(names)
    }
    return MetricRecord({**means, EXAMPLES: max(1, sum(int(metric_number(record, EXAMPLES, 1)) for record in records))})
