"""One federated run of a task, from the first weights to a checkpoint; resumable after every round.

Needs torch and Flower.
"""

import gc
import hashlib
import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from hedgerow.checkpoint import Checkpoint
from hedgerow.errors import TaskError
from hedgerow.local_work import LocalWork
from hedgerow.progress import Progress, Report, silent
from hedgerow.server.accounting import PrivacyStatement
from hedgerow.server.client_app import make_client_app
from hedgerow.server.errors import NotEnoughDevicesError, RunMismatchError
from hedgerow.server.evaluation import Evaluator
from hedgerow.server.flower import adopt_flower
from hedgerow.server.grids.in_process import InProcessGrid
from hedgerow.server.grids.round_grid import RoundGrid, as_round_grid
from hedgerow.server.local_steps import draws_random_numbers, torch_threads
from hedgerow.server.outcome import check_end, refusals
from hedgerow.server.round_settings import settings_of
from hedgerow.server.rounds import Run
from hedgerow.server.run_folder import RunFolder
from hedgerow.server.run_records import RoundRecord, RunSettings
from hedgerow.server.strategies import build_strategy
from hedgerow.task import LocalTraining, Task, TaskData
from hedgerow.task_module import load_weights, model_weights
from hedgerow.weights import Arrays

if TYPE_CHECKING:
    from flwr.serverapp import Grid

__all__ = ["TrainResult", "cheap_collections", "data_fingerprint", "initial_weights", "train_task"]

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TrainResult:
    """What a run brought.

    Attributes:
        checkpoint_folder: Where the checkpoint lies.
        checkpoint: The same, loaded.
        history: One record a round.
        privacy: What the run can promise; None: it promised nothing.
    """

    checkpoint_folder: Path
    checkpoint: Checkpoint
    history: tuple[RoundRecord, ...]
    privacy: PrivacyStatement | None = None

    @property
    def updates(self) -> int:
        """Updates that were used, in all rounds."""
        return sum(record.used for record in self.history)

    @property
    def refused(self) -> dict[str, int]:
        """Why updates were not used, in a word -> how many in all rounds, the most frequent first."""
        return refusals(self.history)


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
    whose clients are deterministic. Under a privacy wrapper that holds within one run folder, whose secret the noise is
    drawn from.

    Args:
        task: What to learn.
        run_folder: The run's folder (``hedgerow.server.run_folder`` describes it); a run that is there is resumed.
        strategy: A key of ``hedgerow.server.strategies.STRATEGIES``.
        rounds: How many, with those that are already finished.
        clients: In-process clients; ignored with a *grid*.
        seed: Decides the first weights, the partition, the sampling of clients and their order of samples.
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
        NoUpdateError: Three rounds in a row, or the last one, used no update.
        RoundFailedError: The updates of a round give no weights.
        LocalTermError: The strategy needs local steps that devices cannot take.
        ValueError: *rounds* or *clients* is below 1.
    """
    if rounds < 1 or clients < 1:
        raise ValueError(f"rounds and clients must be at least 1, not {rounds} and {clients}")
    adopt_flower()
    work = LocalWork.of_training(local or task.local, seed=seed, minimum_samples=minimum_samples)
    in_process = grid is None
    data = _data_for(task, data, needed=in_process)
    weights = initial_weights(task, seed) if initial is None else model_weights(load_weights(task, initial.weights))
    if grid is not None:
        used = as_round_grid(grid)
    elif data is not None:
        used, minimum_devices = _grid_of_clients(task, data, work, clients, workers), clients
    settings = RunSettings.begun(
        task.name,
        work,
        weights,
        strategy=strategy,
        grid=used.kind,
        clients=clients if in_process else 0,
        fraction=fraction,
        data_fingerprint=data_fingerprint(data) if data is not None and in_process else "",
        parent=parent,
    )
    cohort = clients if in_process else max(minimum_devices, len(list(used.get_node_ids())))
    flower_strategy = build_strategy(
        strategy, clients=max(1, int(cohort * fraction)), learning_rate=work.learning_rate, fraction=fraction
    )
    with RunFolder.opened(run_folder, settings, fresh=fresh) as folder, torch_threads(1), cheap_collections():
        evaluator = Evaluator(task, data.held_out, train=data.train) if data is not None else None
        run = Run(task, used, flower_strategy, folder, evaluator)
        run.resume(weights)
        if run.round > rounds:
            raise RunMismatchError(run_folder, {"rounds": (run.round, rounds)})
        config = {"run": folder.settings.run, **settings_of(work)}
        while run.round < rounds:
            _wait_for_devices(used, minimum_devices, wait_s)
            record = run.take_round(config, round_timeout_s, last=run.round + 1 == rounds)
            note = f"{task.answers.score_name} {record.score:.3f}" if record.score is not None else ""
            report(Progress(f"train {task.name}", run.round, rounds, note))
        check_end(run.history)
        run.measure()
        privacy = run.privacy()
        checkpoint = run.checkpoint(privacy)
        return TrainResult(folder.save_result(checkpoint), checkpoint, tuple(run.history), privacy)


def _grid_of_clients(task: Task, data: TaskData, work: LocalWork, clients: int, workers: int) -> InProcessGrid:
    """Return a grid of *clients* in this process; what cannot be cut for them is refused before any work."""
    stochastic = draws_random_numbers(task, data.train)
    app = make_client_app(task, data, seed=work.seed, work=work, reseeds=stochastic)
    strata = task.strata_or_count(data.train)
    cuts = task.partition.split(strata, clients, np.random.default_rng(work.seed), data.train.columns)
    # Models that draw random numbers share one generator.
    return InProcessGrid(app, clients, workers=1 if stochastic else workers, samples=[len(cut) for cut in cuts])


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
        arrays = {f"input {name}": value for name, value in dataset.inputs.items()}
        if isinstance(dataset.target_values, Mapping):
            arrays |= {f"target values {name}": value for name, value in dataset.target_values.items()}
        elif dataset.target_values is not None:
            arrays["labels"] = dataset.target_values
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


def _wait_for_devices(grid: RoundGrid, minimum: int, wait_s: float) -> None:
    deadline = time.monotonic() + wait_s
    while (found := len(list(grid.get_node_ids()))) < minimum:
        if time.monotonic() >= deadline:
            raise NotEnoughDevicesError(minimum, found, wait_s, grid.trouble)
        time.sleep(min(0.2, wait_s))


@contextmanager
def cheap_collections() -> Iterator[None]:
    """Keep what is loaded already out of garbage collections inside the block.

    Flower calls ``gc.collect()`` once for each update in some strategies (``to_numpy_ndarrays(keep_input=False)``),
    which costs 0.1 s a call in a process that has imported torch: 18 of 22 s of a QFedAvg run on digits.
    """
    if gc.get_freeze_count():  # somebody else froze objects and will thaw them
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
