"""Our Flower ClientApp for a task: local steps in torch on one partition of the task's data. Needs torch and Flower."""

import threading

import numpy as np
import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from hedgerow.local_work import LocalWork
from hedgerow.server.evaluation import Evaluator
from hedgerow.server.flower import ClientCall, adopt_flower, array_record, clipping_keys, numpy_arrays
from hedgerow.server.local_steps import LocalTrainer, torch_threads
from hedgerow.server.replies import narrowed
from hedgerow.server.round_settings import message_settings, work_of
from hedgerow.task import Dataset, Task, TaskData
from hedgerow.task_module import wanted_tensors
from hedgerow.weights import Arrays

__all__ = ["CORRECTION", "STEPS", "Partitions", "correction_in", "make_client_app"]

CORRECTION = "correction"
"""Name of an ``ArrayRecord`` in a train message whose arrays are added to every gradient (SCAFFOLD)."""
STEPS = "steps"
"""Metric that answers it: how many local steps were taken."""


class Partitions:
    """The task's training data, cut into shards once for each number of clients."""

    def __init__(self, task: Task, data: TaskData, seed: int) -> None:
        self._task, self._data, self._seed = task, data, seed
        self._shards: dict[int, list[Dataset]] = {}
        self._lock = threading.Lock()

    def shard(self, partition: int, partitions: int) -> Dataset:
        """Return the samples of one client.

        Args:
            partition: The client's number, from 0.
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
            cuts = self._task.partition.split(self._task.strata_or_count(train), partitions, rng, train.columns)
            self._shards[partitions] = [train.take(indices) for indices in cuts]
        return self._shards[partitions]


class _TaskClient:
    """What the ClientApp does with a message; each thread makes its model at the first one and keeps it."""

    def __init__(self, task: Task, partitions: Partitions, work: LocalWork, threads: int, *, reseeds: bool) -> None:
        self._task, self._partitions, self._work = task, partitions, work
        self._threads, self._reseeds = threads, reseeds
        self._own = threading.local()

    def train(self, message: Message, context: Context) -> Message:
        """Take local steps from the weights in *message*."""
        partition, shard = self._shard(context)
        work = work_of(message_settings(message), self._work).of_client(partition)
        if not hasattr(self._own, "trainer"):
            self._own.trainer = LocalTrainer(self._task, reseeds=self._reseeds)
        trainer: LocalTrainer = self._own.trainer
        sent = {name: torch.from_numpy(np.array(array)) for name, array in _weights(message).items()}
        inputs = [torch.from_numpy(np.ascontiguousarray(shard.inputs[spec.name])) for spec in self._task.inputs]
        wanted = wanted_tensors(self._task, shard)
        with torch_threads(self._threads):
            taken = trainer.take_steps(sent, inputs, wanted, work, corrections=_corrections(message))
        metrics = MetricRecord({"loss": taken.loss, "num-examples": len(shard)})
        if work.clip_norm is not None:
            metrics[clipping_keys()[1]] = int(taken.norm > work.clip_norm)
        if CORRECTION in message.content:
            metrics[STEPS] = work.steps(len(shard))
        weights = {name: tensor.numpy().copy() for name, tensor in trainer.tensors.items()}
        return Message(RecordDict({"arrays": array_record(weights), "metrics": metrics}), reply_to=message)

    def evaluate(self, message: Message, context: Context) -> Message:
        """Measure the weights in *message* on the client's own samples."""
        _partition, shard = self._shard(context)
        with torch_threads(self._threads):
            measured = Evaluator(self._task, shard).measure(_weights(message))
        plain = {name: value for name, value in measured.items() if "[" not in name}
        metrics = MetricRecord({**plain, "num-examples": len(shard)})
        return Message(RecordDict({"metrics": metrics}), reply_to=message)

    def _shard(self, context: Context) -> tuple[int, Dataset]:
        partition = int(context.node_config["partition-id"])
        return partition, self._partitions.shard(partition, int(context.node_config["num-partitions"]))


def make_client_app(
    task: Task,
    data: TaskData,
    *,
    seed: int = 0,
    work: LocalWork | None = None,
    threads: int = 1,
    reseeds: bool = True,
) -> ClientCall:
    """Make a ``flwr.clientapp.ClientApp`` that trains and evaluates *task*.

    The node configuration must hold ``partition-id`` and ``num-partitions``, as Flower's simulation, ``flower-supernode
    --node-config`` and ``InProcessGrid`` provide it.

    Args:
        task: What to learn.
        data: Its data; ``data.train`` is cut by ``task.partition``.
        seed: Decides the partition, and with *work* None also the order of samples where a message names no seed.
        work: What a client does where a message says nothing else; None: what the task says.
        threads: Torch uses so many.
        reseeds: Seed torch's global generator for each client and round; needed by models that draw random numbers,
            and wrong when several threads call the app.

    Raises:
        FlowerVersionError: The installed Flower was not tested.
    """
    adopt_flower()
    work = work or LocalWork.of_training(task.local, seed=seed)
    client = _TaskClient(task, Partitions(task, data, seed), work, threads, reseeds=reseeds)
    app = ClientApp()
    app.train()(client.train)
    app.evaluate()(client.evaluate)
    return app


def correction_in(message: Message) -> ArrayRecord | None:
    """Return what a train message adds to every gradient, or None if it adds nothing."""
    record = message.content.get(CORRECTION)
    return record if isinstance(record, ArrayRecord) else None


def _corrections(message: Message) -> dict[str, torch.Tensor] | None:
    record = correction_in(message)
    if record is None:
        return None
    return {name: torch.from_numpy(np.array(array)) for name, array in narrowed(numpy_arrays(record)).items()}


def _weights(message: Message) -> Arrays:
    return narrowed(numpy_arrays(next(iter(message.content.array_records.values()))))
