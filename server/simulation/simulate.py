"""Run federated training over virtual clients: one run, or many with the same data and engine. Needs torch, Flower."""

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from hedgerow.closing import Closing
from hedgerow.decode import encode_json
from hedgerow.durable import write_durably
from hedgerow.local_work import LocalWork
from hedgerow.outputs import Outputs
from hedgerow.partition import Partition
from hedgerow.progress import Progress, Report, silent
from hedgerow.server.cohort.clients import ClientIndex
from hedgerow.server.cohort.engine import CohortEngine
from hedgerow.server.cohort.engines import AUTO, ENGINES, EngineChoice, engine_and_reason
from hedgerow.server.evaluation import Evaluator
from hedgerow.server.flower import adopt_flower
from hedgerow.server.local_steps import torch_threads
from hedgerow.server.outcome import shown_metrics
from hedgerow.server.run_folder import RunFolder, recorded_settings
from hedgerow.server.run_records import RoundRecord, RunSettings
from hedgerow.server.simulation.asynchronous import run_versions
from hedgerow.server.simulation.client_index import ExchangedClients, RegisteredClients, register_clients
from hedgerow.server.simulation.errors import NoGpuError, SimulationError
from hedgerow.server.simulation.parts import RunEnd, RunParts
from hedgerow.server.simulation.plan import ASYNCHRONOUS, SimulationPlan
from hedgerow.server.simulation.plots import draw_curves
from hedgerow.server.simulation.result import SimulationResult, shown_time
from hedgerow.server.simulation.synchronous import run_rounds
from hedgerow.server.training import cheap_collections, data_fingerprint, initial_weights
from hedgerow.task import Task, TaskData
from hedgerow.task_module import load_weights, model_weights
from hedgerow.weights import Arrays

__all__ = ["Simulator", "resolve_device", "simulate_task"]

_RATE_ROUNDS = 50
"""The clients a second that are shown are those of so many last rounds."""
_EXCHANGING = ("sequential", "vectorized")
"""Engines that ask who owns what anew in each round; others hand it to their processes once."""


def resolve_device(asked: str) -> str:
    """Return torch's name of the device to train on.

    Args:
        asked: ``auto`` (a GPU if there is one), ``cpu`` or ``cuda``.

    Raises:
        NoGpuError: ``cuda`` was asked for and torch has none.
    """
    if asked == "cpu":
        return "cpu"
    if torch.cuda.is_available():
        return "cuda"
    if asked != "auto":
        built = torch.version.cuda is not None
        raise NoGpuError("none" if built else f"torch {torch.__version__}, which was built without CUDA")
    return "cpu"


class Simulator(Closing):
    """Runs plans of one task, one after the other; data, worker processes and traced models are kept between them.

    Args:
        task: What to learn.
        data: Its data, if the caller has loaded it already.
        engine: ``auto`` or a name from ``hedgerow.server.cohort.engines``.
        device: ``auto``, ``cpu`` or ``cuda``.
        workers: Processes of the engine ``workers``; None: one a core.
        initial: Weights that every run starts from; None: new ones from its seed.

    Raises:
        TaskError: The task's data is wrong.
        NoGpuError: A GPU was asked for and there is none.
        CheckpointMismatchError: *initial* is another model's.
    """

    def __init__(
        self,
        task: Task,
        *,
        data: TaskData | None = None,
        engine: str = AUTO,
        device: str = "auto",
        workers: int | None = None,
        initial: Arrays | None = None,
    ) -> None:
        adopt_flower()
        self._initial = initial
        self._device = resolve_device(device)
        self._task, self._data = task, task.load_data() if data is None else data
        self._asked, self._workers = engine, workers or len(os.sched_getaffinity(0))
        self._fingerprint = data_fingerprint(self._data)
        self._evaluator = Evaluator(task, self._data.held_out, train=self._data.train, device=self._device)
        self._registered: tuple[object, RegisteredClients] | None = None
        self._engine: tuple[CohortEngine, EngineChoice, ExchangedClients] | None = None

    @property
    def outputs(self) -> Outputs:
        """What the task's outputs are for."""
        return self._task.answers

    def close(self) -> None:
        """End the engine's processes and free its memory."""
        if self._engine is not None:
            self._engine[0].close()
            self._engine = None

    def _first_weights(self, seed: int) -> Arrays:
        if self._initial is None:
            return initial_weights(self._task, seed)
        return model_weights(load_weights(self._task, self._initial))

    def run(
        self,
        plan: SimulationPlan,
        folder: Path,
        *,
        fresh: bool = False,
        report: Report = silent,
        watch: Callable[[RoundRecord], None] | None = None,
        plots: bool = True,
    ) -> SimulationResult:
        """Run *plan* to its end, from where *folder* stands.

        Args:
            plan: What to run.
            folder: The run's (``hedgerow.server.run_folder`` describes it).
            fresh: Forget a run that is in the folder.
            report: Told after each round.
            watch: Called with each new round; what it raises ends the run, which can be resumed.
            plots: Draw the curves.

        Raises:
            UnknownNameError: No strategy, optimizer or target has such a name.
            SimulationError: The settings contradict each other or the data.
            PartitionError: The data cannot be cut as asked.
            DecodeError: The trace or the mix of devices cannot be read.
            RunMismatchError: The folder holds a run with other settings.
            RunFolderError: The folder cannot be used.
            NoUpdateError: Three rounds in a row, or the last one, used no update.
            RoundFailedError: The updates of a round give no weights.
        """
        plan.check()
        plan, registered = self._completed(plan)
        weights = self._first_weights(plan.seed)
        population = None if plan.devices is None else plan.devices.population(len(registered.index), plan.seed)
        engine, choice = self._engine_for(registered.index, self._asked if fresh else self._engine_of(folder))
        settings = self._settings(plan, choice.name, weights)

        def tell(history: Sequence[RoundRecord]) -> None:
            report(Progress("simulate", len(history), plan.rounds, _note(history, self._task.answers.score_name)))
            if watch is not None:
                watch(history[-1])

        with (
            RunFolder.opened(folder, settings, fresh=fresh) as opened,
            cheap_collections(),
            torch_threads(1),  # more of them than idle cores make small steps a hundred times slower
        ):
            parts = RunParts(
                task=self._task,
                data=self._data,
                plan=plan,
                work=plan.work(self._task.local),
                index=registered.index,
                engine=engine,
                device=self._device,
                population=population,
                evaluator=self._evaluator,
                weights=weights,
                folder=opened,
                tell=tell,
            )
            ended = run_versions(parts) if plan.strategy == ASYNCHRONOUS else run_rounds(parts)
            opened.save_result(ended.checkpoint)
            result = self._result(plan, choice, ended, opened.path, registered.note, plots=plots)
            write_durably(folder / "summary.json", encode_json(result.to_record()))
            return result

    def _result(
        self, plan: SimulationPlan, choice: EngineChoice, ended: RunEnd, folder: Path, note: str, *, plots: bool
    ) -> SimulationResult:
        """Return what a run brought, with its curves in *folder* if *plots* are wanted."""
        title = f"{self._task.name}: {plan.strategy}, {plan.cohort} of {plan.clients:,} clients, {plan.partition}"
        images = draw_curves(ended.history, title, self._task.answers.score_name) if plots else {}
        return SimulationResult(
            folder=folder,
            checkpoint=ended.checkpoint,
            history=tuple(ended.history),
            plan=plan,
            engine=choice.name,
            reason=choice.reason,
            device=self._device,
            outcomes=ended.outcomes,
            privacy=ended.privacy,
            notes=tuple(each for each in (note, *ended.notes) if each),
            shown=shown_metrics(self._task, ended.checkpoint.metrics),
            plots=_write_plots(folder, images),
        )

    def _settings(self, plan: SimulationPlan, engine: str, weights: Arrays) -> RunSettings:
        return RunSettings.begun(
            self._task.name,
            plan.work(self._task.local),
            weights,
            strategy=plan.strategy,
            grid="cohort",
            clients=plan.clients or 0,
            fraction=plan.cohort / (plan.clients or 1),
            data_fingerprint=self._fingerprint,
            more=_more_settings(plan, engine, self._device),
        )

    def _completed(self, plan: SimulationPlan) -> tuple[SimulationPlan, RegisteredClients]:
        """Return *plan* with nothing left open, and its clients."""
        work = plan.work(self._task.local)
        partition = plan.partition or self._task.partition
        clients = plan.clients
        if clients is None and partition.natural_clients(self._data.train.columns) is None:
            clients = 100
        registered = self._register(partition, clients, plan, work)
        if plan.cohort > len(registered.index):
            raise SimulationError(
                f"a cohort of at most the {len(registered.index):,} clients that there are",
                f"{plan.cohort:,}",
                "give a smaller --cohort or more --clients",
            )
        completed = replace(
            plan,
            clients=len(registered.index),
            partition=partition,
            epochs=work.epochs,
            learning_rate=work.learning_rate,
            batch_size=work.batch_size,
        )
        return completed, registered

    def _register(
        self, partition: Partition, clients: int | None, plan: SimulationPlan, work: LocalWork
    ) -> RegisteredClients:
        key = (partition, clients, plan.samples, plan.seed, work.batch_size)
        if self._registered is None or self._registered[0] != key:
            registered = register_clients(
                self._data.train,
                self._task.strata_or_count(self._data.train),
                partition,
                clients,
                seed=plan.seed,
                samples=plan.samples,
                shared_samples=work.batch_size,
            )
            self._registered = key, registered
        return self._registered[1]

    def _engine_of(self, folder: Path) -> str:
        """Return the engine to use: where none is asked for, a run goes on with the one that it began with."""
        held = recorded_settings(folder) if self._asked == AUTO else None
        name = held.more.get("engine") if held is not None else None
        return name if isinstance(name, str) and name in ENGINES else self._asked

    def _engine_for(self, index: ClientIndex, asked: str) -> tuple[CohortEngine, EngineChoice]:
        """Return the engine that is there, for other clients if need be and if it can, else a new one."""
        if self._engine is not None:
            engine, choice, clients = self._engine
            if asked in {AUTO, choice.name} and (clients.now is index or choice.name in _EXCHANGING):
                clients.now = index
                return engine, choice
        self.close()
        clients = ExchangedClients(index)
        engine, choice = engine_and_reason(
            asked, self._task, self._data.train, clients, device=self._device, workers=self._workers
        )
        if asked != self._asked:
            choice = replace(choice, reason="the run began with it")
        self._engine = engine, choice, clients
        return engine, choice


def simulate_task(
    task: Task,
    folder: Path,
    plan: SimulationPlan,
    *,
    data: TaskData | None = None,
    engine: str = AUTO,
    device: str = "auto",
    workers: int | None = None,
    fresh: bool = False,
    report: Report = silent,
) -> SimulationResult:
    """Simulate one federated run of *task* over virtual clients.

    The same plan, engine and device give the same weights, also when the run was killed and started again in between.
    For many runs of a task, keep one :class:`Simulator`.

    Args:
        task: What to learn.
        folder: The run's; a run that is there is resumed.
        plan: What to run.
        data: The task's data, if the caller has loaded it already.
        engine: ``auto``, ``sequential``, ``workers`` or ``vectorized``.
        device: ``auto``, ``cpu`` or ``cuda``.
        workers: Processes of the engine ``workers``; None: one a core.
        fresh: Forget a run that is in the folder.
        report: Told after each round.

    Raises:
        TaskError: The task's model or data is wrong.
        NoGpuError: A GPU was asked for and there is none.
        HedgerowError: As :meth:`Simulator.run` says.
    """
    with Simulator(task, data=data, engine=engine, device=device, workers=workers) as simulator:
        return simulator.run(plan, folder, fresh=fresh, report=report)


def _note(history: Sequence[RoundRecord], score_name: str) -> str:
    latest = history[-_RATE_ROUNDS:]
    seconds = sum(record.seconds for record in latest)
    rate = sum(record.used for record in latest) / max(seconds, 1e-9)
    score = next((record.score for record in reversed(history) if record.score is not None), None)
    parts = [f"{score_name} {score:.3f}"] if score is not None else []
    parts.append(f"{rate:,.0f} clients/s")
    virtual_s = latest[-1].virtual_s
    return ", ".join(parts if virtual_s is None else [*parts, f"virtual {shown_time(virtual_s)}"])


def _more_settings(plan: SimulationPlan, engine: str, device: str) -> dict[str, str | int | float | bool]:
    partition = plan.partition or Partition()
    more: dict[str, str | int | float | bool] = {
        "cohort": plan.cohort,
        "partition": str(partition),
        "minimum_samples": partition.minimum_samples,
        "optimizer": plan.optimizer,
        "momentum": plan.momentum,
        "weight_decay": plan.weight_decay,
        "engine": engine,
        "device": device,
    }
    if plan.samples is not None:
        more["samples"] = plan.samples
    if plan.strategy == ASYNCHRONOUS:
        more["buffer"] = plan.buffered()
    return {**more, **(plan.devices.to_settings() if plan.devices is not None else {})}


def _write_plots(folder: Path, images: dict[str, bytes]) -> tuple[Path, ...]:
    paths = []
    for kind, content in images.items():
        paths.append(folder / f"curves.{kind}")
        write_durably(paths[-1], content)
    return tuple(paths)
