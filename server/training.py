"""One federated run of a task, from the first weights to a checkpoint; resumable after every round.

The rounds are Flower's: ``configure_train`` says who gets what, the grid carries it, ``aggregate_train`` makes new
weights. The loop is ours because ``Strategy.start`` always begins at round 1 and keeps nothing on disk.
Needs torch and Flower.
"""

import hashlib
import logging
import random
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from flwr.app import ConfigRecord

from hedgerow.batches import client_seed
from hedgerow.checkpoint import Checkpoint
from hedgerow.errors import TaskError
from hedgerow.progress import Progress, Report, silent
from hedgerow.server.client_app import make_client_app
from hedgerow.server.errors import NotEnoughDevicesError, RoundFailedError, RunMismatchError
from hedgerow.server.evaluation import Evaluator
from hedgerow.server.flower import adopt_flower, aggregation_errors, array_record, numpy_arrays
from hedgerow.server.grids.in_process import InProcessGrid
from hedgerow.server.local_steps import draws_random_numbers, torch_threads
from hedgerow.server.run_folder import RoundRecord, RunFolder, RunSettings, SavedRound
from hedgerow.server.strategies import build_strategy, restore_state, strategy_state
from hedgerow.task import LocalTraining, Task, TaskData
from hedgerow.task_module import load_weights, model_weights
from hedgerow.weights import Arrays, encode_arrays

if TYPE_CHECKING:
    from flwr.serverapp import Grid

__all__ = ["RoundRecord", "TrainResult", "data_fingerprint", "initial_weights", "train_task"]

_LOG = logging.getLogger(__name__)
_FAILED_ROUNDS = 3
"""So many rounds in a row without a usable update end a run."""


@dataclass(frozen=True, slots=True)
class TrainResult:
    """What a run brought.

    Attributes:
        checkpoint_folder: Where the checkpoint lies.
        checkpoint: The same, loaded.
        history: One record a round.
    """

    checkpoint_folder: Path
    checkpoint: Checkpoint
    history: tuple[RoundRecord, ...]


def train_task(
    task: Task,
    run_folder: Path,
    *,
    strategy: str = "fedavg",
    rounds: int = 20,
    clients: int = 8,
    seed: int = 0,
    grid: "Grid | None" = None,
    initial: Checkpoint | None = None,
    data: TaskData | None = None,
    local: LocalTraining | None = None,
    fraction: float = 1.0,
    minimum_samples: int = 1,
    minimum_devices: int = 2,
    wait_s: float = 60.0,
    round_timeout_s: float = 600.0,
    parent: str | None = None,
    fresh: bool = False,
    workers: int = 2,
    report: Report = silent,
) -> TrainResult:
    """Train *task* and return its checkpoint.

    The same arguments give the same weights, also when the run was killed and started again in between, on a grid
    whose clients are deterministic.

    Args:
        task: What to learn.
        run_folder: The run's folder (``hedgerow.server.run_folder`` describes it); a run that is there is resumed.
        strategy: A key of ``hedgerow.server.strategies.STRATEGIES``.
        rounds: How many, with those that are already finished.
        clients: In-process clients; ignored with a *grid*.
        seed: Of the first weights, the partition, the sampling of clients and their order of samples.
        grid: Where clients train; None: in this process, each on one part of the task's training data.
        initial: Weights to start from; None: new ones from the seed.
        data: The task's data, if the caller has loaded it already.
        local: Epochs, learning rate and batch size of the clients; None: the task's.
        fraction: Share of the clients that each round samples.
        minimum_samples: A device with fewer labelled samples declines.
        minimum_devices: A round waits for so many; in process, all clients are there.
        wait_s: How long it waits for them.
        round_timeout_s: The longest that a round may take.
        parent: The release that *initial* belongs to, for the record.
        fresh: Forget a run that is in the folder.
        workers: Threads for in-process clients; the weights do not depend on it.
        report: Told after each round.

    Raises:
        UnknownNameError: No strategy has this name.
        TaskError: The task's model or data is wrong.
        PartitionError: There are too few samples for so many clients.
        CheckpointMismatchError: *initial* belongs to another model.
        RunMismatchError: The folder holds a run with other settings.
        RunFolderError: The folder cannot be used.
        NotEnoughDevicesError: Too few devices came in time.
        RoundFailedError: Three rounds in a row brought no usable update.
        LocalTermError: The strategy needs local steps that devices cannot take.
        ValueError: *rounds* or *clients* is below 1.
    """
    if rounds < 1 or clients < 1:
        raise ValueError(f"rounds and clients must be at least 1, not {rounds} and {clients}")
    adopt_flower()
    local = local or task.local
    in_process = grid is None
    data = _data_for(task, data, needed=in_process)
    weights = initial_weights(task, seed) if initial is None else _checked(task, initial.weights)
    if data is not None and grid is None:
        stochastic = draws_random_numbers(task, data.train)
        app = make_client_app(task, data, seed=seed, local=local, reseeds=stochastic)
        task.partition.split(data.train.labels, clients, np.random.default_rng(seed))  # refuses before any work
        grid = InProcessGrid(app, clients, workers=1 if stochastic else workers)
        minimum_devices = clients
    settings = RunSettings(
        run=f"{task.name}-{secrets.token_hex(4)}",
        task=task.name,
        strategy=strategy,
        seed=seed,
        grid=getattr(grid, "kind", type(grid).__name__),
        clients=clients if in_process else 0,
        fraction=fraction,
        epochs=local.epochs,
        learning_rate=local.learning_rate,
        batch_size=local.batch_size,
        data_fingerprint=data_fingerprint(data) if data is not None and in_process else "",
        initial_sha256=hashlib.sha256(encode_arrays(weights)).hexdigest(),
        parent=parent,
    )
    cohort = clients if in_process else max(minimum_devices, len(list(grid.get_node_ids())))  # type: ignore[union-attr]
    flower_strategy = build_strategy(
        strategy, clients=max(1, int(cohort * fraction)), learning_rate=local.learning_rate, fraction=fraction
    )
    with RunFolder.opened(run_folder, settings, fresh=fresh) as folder, torch_threads(1):
        run = _Run(task, grid, flower_strategy, folder, Evaluator(task, data.held_out) if data is not None else None)
        run.resume(weights)
        if run.round > rounds:
            raise RunMismatchError(run_folder, {"rounds": (run.round, rounds)})
        config = {
            "run": folder.settings.run,
            "seed": seed,
            "epochs": local.epochs,
            "learning-rate": local.learning_rate,
            "minimum-samples": minimum_samples,
        }
        while run.round < rounds:
            _wait_for_devices(grid, minimum_devices, wait_s)
            record = run.take_round(config, round_timeout_s)
            note = f"accuracy {record.accuracy:.3f}" if record.accuracy is not None else ""
            report(Progress(f"train {task.name}", run.round, rounds, note))
        checkpoint = run.checkpoint()
        return TrainResult(folder.save_result(checkpoint), checkpoint, tuple(run.history))


class _Run:
    """The state of a run between two rounds."""

    def __init__(self, task: Task, grid: Any, strategy: Any, folder: RunFolder, evaluator: Evaluator | None) -> None:
        self._task, self._grid, self._strategy = task, grid, strategy
        self._folder, self._evaluator = folder, evaluator
        self._weights: Arrays = {}
        self._metrics: Mapping[str, float] = {}
        self.round = 0
        self.history: list[RoundRecord] = []

    def resume(self, weights: Arrays) -> None:
        """Start from *weights*, or from the folder's last finished round."""
        saved = self._folder.last_round()
        if saved is None:
            self._weights = weights
        else:
            self._weights = _checked(self._task, saved.checkpoint.weights)
            self._metrics = saved.checkpoint.metrics
            self.round = saved.checkpoint.round
            restore_state(self._folder.settings.strategy, self._strategy, saved.state)
        self.history = self._folder.history(self.round)

    def checkpoint(self) -> Checkpoint:
        """Return the weights with the run's record."""
        settings = self._folder.settings
        return Checkpoint(
            weights=self._weights,
            task=settings.task,
            run=settings.run,
            round=self.round,
            strategy=settings.strategy,
            grid=settings.grid,
            seed=settings.seed,
            data_fingerprint=settings.data_fingerprint,
            parent=settings.parent,
            metrics=self._metrics,
        )

    def take_round(self, config: Mapping[str, Any], timeout_s: float) -> RoundRecord:
        """Run the next round and make it durable.

        Raises:
            RoundFailedError: It is one too many without a usable update.
        """
        started = time.perf_counter()
        number = self.round + 1
        seed = int(config["seed"])
        with _seeded_sampling(client_seed(seed, number, "sampling")):
            messages = self._strategy.configure_train(
                number, array_record(self._weights), ConfigRecord(dict(config)), self._grid
            )
        replies = list(self._grid.send_and_receive(messages, timeout=timeout_s))
        failures = {self._name(reply): str(reply.error.reason) for reply in replies if reply.has_error()}
        usable = [reply for reply in replies if reply.has_content()]
        examples, participants, train_loss = _totals(usable), [self._name(reply) for reply in usable], _loss(usable)
        try:
            arrays, _metrics = self._strategy.aggregate_train(number, replies)
        except aggregation_errors() as exc:
            raise RoundFailedError(number, failures, f"replies that cannot be averaged ({exc})") from exc
        if arrays is None:
            _LOG.warning("round %d brought no usable update", number)
            participants, examples = [], 0
            if self._failed_rounds() + 1 >= _FAILED_ROUNDS:
                raise RoundFailedError(number, failures)
        else:
            self._weights = _like(numpy_arrays(arrays), self._weights, number, failures)
        if self._evaluator is not None:
            self._metrics = self._evaluator.measure(self._weights)
        self.round = number
        record = RoundRecord(
            round=number,
            loss=_finite(self._metrics.get("loss")),
            accuracy=_finite(self._metrics.get("accuracy")),
            train_loss=_finite(train_loss),
            seconds=round(time.perf_counter() - started, 4),
            examples=examples,
            participants=tuple(sorted(participants, key=_natural)),
            failures=dict(sorted(failures.items())),
        )
        self._metrics = {name: value for name, value in self._metrics.items() if _finite(value) is not None}
        state = strategy_state(self._folder.settings.strategy, self._strategy)
        self._folder.save_round(record, SavedRound(self.checkpoint(), state))
        self.history.append(record)
        return record

    def _name(self, reply: Any) -> str:
        node: int = reply.metadata.src_node_id
        name: str = self._grid.node_name(node) if hasattr(self._grid, "node_name") else str(node)
        return name

    def _failed_rounds(self) -> int:
        """Return how many rounds before this one failed in a row."""
        count = 0
        for record in reversed(self.history):
            if record.participants:
                break
            count += 1
        return count


def initial_weights(task: Task, seed: int) -> Arrays:
    """Return the weights of a new model of *task*; the same for the same seed.

    Raises:
        TaskError: The model cannot be made.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            return model_weights(task.model())
        # The user's code may raise anything; the report must name it all the same.
        except Exception as exc:
            raise TaskError(repr(task.name), [f"model() raised {type(exc).__name__}: {exc}"]) from exc


def data_fingerprint(data: TaskData) -> str:
    """Return the SHA-256 of the training and held-out arrays: names, dtypes, shapes and values."""
    digest = hashlib.sha256()
    for part, dataset in (("train", data.train), ("held_out", data.held_out)):
        arrays = {**{f"input {name}": value for name, value in dataset.inputs.items()}, "labels": dataset.labels}
        for name in sorted(arrays):
            array = np.ascontiguousarray(arrays[name])
            digest.update(f"{part}/{name}/{array.dtype.str}/{array.shape}\n".encode())
            digest.update(array.data)
    return digest.hexdigest()


def _data_for(task: Task, data: TaskData | None, *, needed: bool) -> TaskData | None:
    """Return the task's data; None when devices train and the files are not on this machine."""
    if data is not None:
        mistakes = task.data_mistakes(data)
        if mistakes:
            raise TaskError(repr(task.name), mistakes)
        return data
    try:
        return task.load_data()
    except OSError as exc:
        if needed:
            raise TaskError(repr(task.name), [f"data() raised {type(exc).__name__}: {exc}"]) from exc
        _LOG.warning("the task's data is not here, so rounds are not evaluated: %s", exc)
        return None


def _checked(task: Task, weights: Arrays) -> Arrays:
    """Return *weights* in the model's order after checking that they are its own."""
    return model_weights(load_weights(task, weights))


def _wait_for_devices(grid: Any, minimum: int, wait_s: float) -> None:
    deadline = time.monotonic() + wait_s
    while (found := len(list(grid.get_node_ids()))) < minimum:
        if time.monotonic() >= deadline:
            raise NotEnoughDevicesError(minimum, found, wait_s)
        time.sleep(min(0.2, wait_s))


@contextmanager
def _seeded_sampling(seed: int) -> Iterator[None]:
    """Make Flower's choice of nodes, which it draws from Python's global generator, depend on *seed* alone."""
    before = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(before)


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
    return {name: np.asarray(whole[name]).astype(like[name].dtype) for name in like}


def _metrics_of(reply: Any) -> Mapping[str, Any]:
    records = list(reply.content.metric_records.values())
    return records[0] if records else {}


def _totals(replies: Sequence[Any]) -> int:
    return sum(int(_metrics_of(reply).get("num-examples", 0)) for reply in replies)


def _loss(replies: Sequence[Any]) -> float | None:
    pairs = [(float(m["loss"]), int(m["num-examples"])) for m in map(_metrics_of, replies) if "loss" in m]
    total = sum(examples for _loss_value, examples in pairs)
    return sum(loss * examples for loss, examples in pairs) / total if total else None


def _finite(value: float | None) -> float | None:
    return float(value) if value is not None and np.isfinite(value) else None


def _natural(name: str) -> tuple[int, str]:
    """Sort 2 before 10."""
    return (len(name) if name.isdecimal() else 0, name)
