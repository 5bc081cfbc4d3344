"""Our Flower ClientApp for a task: local steps in torch on one partition of the task's data. Needs torch and Flower."""

import threading
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from flwr.app import Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from hedgerow.batches import client_seed
from hedgerow.server.evaluation import Evaluator
from hedgerow.server.flower import adopt_flower, array_record, numpy_arrays
from hedgerow.server.grids.synchronous import narrowed
from hedgerow.server.local_steps import LocalTrainer, LocalWork, torch_threads
from hedgerow.task import Dataset, LocalTraining, Task, TaskData

__all__ = ["Partitions", "make_client_app"]


class Partitions:
    """The task's training data, cut into shards once for each number of clients."""

    def __init__(self, task: Task, data: TaskData, seed: int) -> None:
        self._task, self._data, self._seed = task, data, seed
        self._shards: dict[int, list[Dataset]] = {}
        self._lock = threading.Lock()

    def shard(self, partition: int, partitions: int) -> Dataset:
        """Return the samples of one client.

        Args:
            partition: From 0.
            partitions: How many there are.

        Raises:
            PartitionError: There are too few samples.
        """
        with self._lock:
            return self._cut(partitions)[partition]

    def _cut(self, partitions: int) -> list[Dataset]:
        if partitions not in self._shards:
            train = self._data.train
            rng = np.random.default_rng(self._seed)
            cuts = self._task.partition.split(train.labels, partitions, rng)
            self._shards[partitions] = [train.take(indices) for indices in cuts]
        return self._shards[partitions]


class _TaskClient:
    """What the ClientApp does with a message; each thread makes its model at the first one and keeps it."""

    def __init__(
        self, task: Task, partitions: Partitions, local: LocalTraining, seed: int, threads: int, *, reseeds: bool
    ) -> None:
        self._task, self._partitions, self._local = task, partitions, local
        self._seed, self._threads, self._reseeds = seed, threads, reseeds
        self._own = threading.local()

    def train(self, message: Any, context: Any) -> Any:
        """Take local steps from the weights in *message*."""
        partition, shard = self._shard(context)
        settings = _settings(message)
        seed = client_seed(int(settings.get("seed", self._seed)), int(settings.get("server-round", 1)), str(partition))
        work = LocalWork(
            epochs=int(settings.get("epochs", self._local.epochs)),
            learning_rate=float(settings.get("learning-rate", self._local.learning_rate)),
            batch_size=self._local.batch_size,
            seed=seed,
            proximal_mu=float(settings.get("proximal-mu", 0.0)),
        )
        if not hasattr(self._own, "trainer"):
            self._own.trainer = LocalTrainer(self._task, reseeds=self._reseeds)
        with torch_threads(self._threads):
            weights, loss = self._own.trainer.train(_weights(message), shard, work)
        metrics = MetricRecord({"loss": loss, "num-examples": len(shard)})
        return Message(RecordDict({"arrays": array_record(weights), "metrics": metrics}), reply_to=message)

    def evaluate(self, message: Any, context: Any) -> Any:
        """Measure the weights in *message* on the client's own samples."""
        _partition, shard = self._shard(context)
        with torch_threads(self._threads):
            measured = Evaluator(self._task, shard).measure(_weights(message))
        plain = {name: value for name, value in measured.items() if "[" not in name}
        metrics = MetricRecord({**plain, "num-examples": len(shard)})
        return Message(RecordDict({"metrics": metrics}), reply_to=message)

    def _shard(self, context: Any) -> tuple[int, Dataset]:
        partition = int(context.node_config["partition-id"])
        return partition, self._partitions.shard(partition, int(context.node_config["num-partitions"]))


def make_client_app(
    task: Task,
    data: TaskData,
    *,
    seed: int = 0,
    local: LocalTraining | None = None,
    threads: int = 1,
    reseeds: bool = True,
) -> Callable[[Any, Any], Any]:
    """Make a ``flwr.clientapp.ClientApp`` that trains and evaluates *task*.

    The node configuration must hold ``partition-id`` and ``num-partitions``, as Flower's simulation, ``flower-supernode
    --node-config`` and ``InProcessGrid`` provide it.

    Args:
        task: What to learn.
        data: Its data; ``data.train`` is cut by ``task.partition``.
        seed: Of the partition, and of the order of samples where a message names none.
        local: Epochs, learning rate and batch size; None: the task's.
        threads: Of torch.
        reseeds: Seed torch's global generator for each client and round; needed by models that draw random numbers,
            and wrong when several threads call the app.

    Raises:
        FlowerVersionError: The installed Flower was not tested.
    """
    adopt_flower()
    client = _TaskClient(task, Partitions(task, data, seed), local or task.local, seed, threads, reseeds=reseeds)
    app = ClientApp()
    app.train()(client.train)
    app.evaluate()(client.evaluate)
    made: Callable[[Any, Any], Any] = app
    return made


def _settings(message: Any) -> Mapping[str, Any]:
    merged: dict[str, Any] = {}
    for record in message.content.config_records.values():
        merged.update(record)
    return merged


def _weights(message: Any) -> dict[str, Any]:
    return narrowed(numpy_arrays(next(iter(message.content.array_records.values()))))
