"""SCAFFOLD as a Flower strategy: control variates against the drift of clients with unlike data.

Karimireddy et al. 2020, arXiv 1910.06378, algorithm 1 with option II. Needs Flower.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg
from numpy.typing import NDArray

from hedgerow.server.client_app import CORRECTION, STEPS
from hedgerow.server.flower import array_record, metric_number, numpy_arrays
from hedgerow.weights import Arrays

__all__ = ["Scaffold"]

_COMMON = "common"


class Scaffold(FedAvg):
    """Sends each client c - c_i to add to its gradients, and averages the updates without weights.

    The paper's clients keep their c_i; here the strategy keeps them, one model's size for each client that ever took
    part, so that clients need no state and a run can be saved and resumed. A message carries the correction as a second
    ``ArrayRecord``, and the reply says in ``steps`` how many local steps were taken; our ClientApp and ``CohortGrid``
    do both. The rule holds for plain SGD: with momentum or Adam c_i is not the mean gradient. ``FleetGrid`` refuses the
    messages, for train graphs take no corrections.
    """

    def __init__(self, *, learning_rate: float, server_learning_rate: float = 1.0, **settings: Any) -> None:
        """Make the strategy.

        Args:
            learning_rate: The clients' step size, where the configuration of a round names none.
            server_learning_rate: The paper's global step size.
            settings: What ``FedAvg`` takes.
        """
        super().__init__(**settings)
        self._learning_rate, self._server_learning_rate = learning_rate, server_learning_rate
        self._common: Arrays = {}
        self._own: dict[int, Arrays] = {}
        self._sent: Arrays = {}
        self._rate = learning_rate
        self._nodes = 0

    @property
    def controls(self) -> Mapping[str, NDArray[np.generic]] | None:
        """All control variates by ``common/name`` and ``node/name``; None before the first round."""
        rows: dict[str, Arrays] = {_COMMON: self._common, **{str(node): own for node, own in self._own.items()}}
        flat = {f"{row}/{name}": array for row, arrays in rows.items() for name, array in arrays.items()}
        return flat or None

    @controls.setter
    def controls(self, flat: Mapping[str, NDArray[np.generic]]) -> None:
        self._common, self._own = {}, {}
        for key, array in flat.items():
            row, _slash, name = key.partition("/")
            held = self._common if row == _COMMON else self._own.setdefault(int(row), {})
            held[name] = array

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Give each sampled client its correction."""
        self._sent = numpy_arrays(arrays)
        rate = config.get("learning-rate")
        self._rate = float(rate) if isinstance(rate, int | float) else self._learning_rate
        self._nodes = len(list(grid.get_node_ids()))
        messages = list(super().configure_train(server_round, arrays, config, grid))
        for message in messages:
            correction = array_record(self._correction(message.metadata.dst_node_id))
            message.content = RecordDict({**message.content, CORRECTION: correction})
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Move the weights by the mean update, and the controls by what the updates say."""
        del server_round
        valid, _errors = self._check_and_log_replies(replies, is_train=True)
        if not valid:
            return None, None
        moved: Arrays = {name: np.zeros(array.shape, np.float64) for name, array in self._sent.items()}
        drift: Arrays = {name: np.zeros_like(array) for name, array in self._floats().items()}
        for reply in valid:
            new = numpy_arrays(next(iter(reply.content.array_records.values())))
            metrics = next(iter(reply.content.metric_records.values()))
            node, reach = reply.metadata.src_node_id, metric_number(metrics, STEPS) * self._rate
            correction, own = self._correction(node), self._own.get(node, {})
            control = {
                name: ((old - new[name]) / reach - correction[name]).astype(old.dtype)
                for name, old in self._floats().items()
            }
            for name, value in control.items():
                drift[name] += value - own[name] if own else value
            for name in moved:
                moved[name] += new[name]
            self._own[node] = control
        for name, value in drift.items():
            self._common[name] = self._common.get(name, np.zeros_like(value)) + value / self._nodes
        rate = self._server_learning_rate
        arrays = {name: (1 - rate) * self._sent[name] + rate * total / len(valid) for name, total in moved.items()}
        return array_record(arrays), self.train_metrics_aggr_fn(
            [reply.content for reply in valid], self.weighted_by_key
        )

    def _floats(self) -> Arrays:
        return {name: array for name, array in self._sent.items() if array.dtype.kind == "f"}

    def _correction(self, node: int) -> Arrays:
        """Return c - c_i; each is zero at first."""
        own = self._own.get(node)
        return {
            name: self._common.get(name, np.zeros_like(array)) - (own[name] if own is not None else 0)
            for name, array in self._floats().items()
        }
