"""Train again on the devices, compile, release, roll out: what a drift alert sets off.

One function does it, for the service's own loop and for whoever calls it; a run that was killed is resumed by calling
it again with the run's id. Heavy libraries are imported when it runs.
"""

import logging
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from hedgerow.errors import HedgerowError
from hedgerow.fleet.drift.baselines import device_baselines, reference_counts
from hedgerow.fleet.errors import RetrainError
from hedgerow.fleet.folder import FleetFolder
from hedgerow.fleet.records import TrainingRun
from hedgerow.fleet.retrain.policy import RetrainPolicy
from hedgerow.fleet.retrain.wire_round import TrainingExchange
from hedgerow.fleet.rollout.plan import RolloutPlan
from hedgerow.fleet.rollout.state import RolloutState
from hedgerow.fleet.service.fleet_service import FleetService
from hedgerow.fleet.trust.checkpoints import keep_checkpoint, kept_checkpoint
from hedgerow.manifest import Manifest
from hedgerow.progress import Report, silent
from hedgerow.task import load_task

if TYPE_CHECKING:
    from hedgerow.compile import CompileWorkers
    from hedgerow.server.run_folder import RoundRecord

__all__ = ["RetrainPolicy", "RetrainResult", "RetrainSettings", "retrain"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrainSettings:
    """How to train again.

    Attributes:
        strategy: A key of ``hedgerow.server.strategies.STRATEGIES``.
        rounds: Federated rounds.
        seed: Of the run.
        epochs, learning_rate: Of the local steps; None: the task's.
        minimum_samples: A device with fewer labelled samples declines.
        minimum_devices: A round waits for so many devices.
        wait_s: How long it waits for them.
        round_timeout_s: Longest wait for the devices of one round.
        max_drop: Largest accepted loss of accuracy by compiling.
        jobs: Compile so many targets at a time; None: as many as there are cores.
        plan: Of the rollout; None: the usual one, with the gate through which the parent came.
        note: One line for the release.
    """

    strategy: str = "fedavg"
    rounds: int = 10
    seed: int = 0
    epochs: int | None = None
    learning_rate: float | None = None
    minimum_samples: int = 1
    minimum_devices: int = 2
    wait_s: float = 60.0
    round_timeout_s: float = 120.0
    max_drop: float = 0.015
    jobs: int | None = None
    plan: RolloutPlan | None = None
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrainResult:
    """What a retraining brought.

    Attributes:
        run: Its record.
        release: The new release, ``name@number``.
        rollout: The rollout that brings it to the devices; started, not finished.
        history: One record a round; empty where the release was made before the run was resumed.
    """

    run: TrainingRun
    release: str
    rollout: str
    history: "tuple[RoundRecord, ...]"


def retrain(
    service: FleetService,
    exchange: TrainingExchange,
    folder: FleetFolder,
    task_reference: str,
    *,
    release: str,
    trigger: str = "manual",
    settings: RetrainSettings | None = None,
    run_id: str | None = None,
    workers: "CompileWorkers | None" = None,
    report: Report = silent,
    clock: Callable[[], float] = time.time,
) -> RetrainResult:
    """Train *release* again on the devices that run it, and start rolling the result out.

    Args:
        service: The fleet service, started.
        exchange: The one that the HTTP server serves.
        folder: The fleet's; its signing keys must be there.
        task_reference: ``module:attribute`` or ``file.py:attribute`` of the task.
        release: The release to start from; its checkpoint must have been kept.
        trigger: The alert's id, or ``manual``.
        settings: How.
        run_id: Of a run that was begun before and is resumed.
        workers: Warm compile processes; None: new ones.
        report: Told every step.
        clock: Unix seconds.

    Raises:
        RetrainError: The release's task is another one.
        CheckpointError: The release's checkpoint was not kept.
        HedgerowError: Whatever training, compiling, releasing or rolling out refuses; the run is recorded as failed.
    """
    settings = settings if settings is not None else RetrainSettings()
    known = next((run for run in service.runs() if run.id == run_id), None)
    run = known or TrainingRun(
        id=run_id or f"retrain-{release.replace('@', '-')}-{secrets.token_hex(4)}",
        started_at=clock(),
        ended_at=None,
        state="running",
        trigger=trigger,
        parent=release,
    )
    run = replace(run, state="running", ended_at=None, reason="")
    service.save_run(run)
    try:
        retraining = _Retraining(service, exchange, folder, task_reference, settings, workers, report, clock)
        return retraining.carry_out(run)
    except HedgerowError as exc:
        service.save_run(replace(_latest(service, run), state="failed", ended_at=clock(), reason=str(exc)))
        raise


def _latest(service: FleetService, run: TrainingRun) -> TrainingRun:
    return next((found for found in service.runs() if found.id == run.id), run)


@dataclass(frozen=True, slots=True)
class _Retraining:
    service: FleetService
    exchange: TrainingExchange
    folder: FleetFolder
    task_reference: str
    settings: RetrainSettings
    workers: "CompileWorkers | None"
    report: Report
    clock: Callable[[], float]

    def carry_out(self, run: TrainingRun) -> RetrainResult:
        parent = self.service.catalogue.manifest(run.parent)
        history: tuple[RoundRecord, ...] = ()
        if run.release is None:
            _log.info("%s: training %s again on the devices, %d rounds", run.id, run.parent, self.settings.rounds)
            checkpoint, history = self._train(run, parent)
            _log.info("%s: compiling for %s", run.id, ", ".join(artifact.target for artifact in parent.artifacts))
            manifest = self._release(run, parent, checkpoint)
            run = replace(run, release=manifest.release)
            windows = list(self.service.windows(release=run.parent))
            # Before the rollout: devices must never be watched against the wrong reference.
            self.service.save_baselines(manifest.release, device_baselines(windows, run.started_at))
            self.service.save_run(run)
        else:
            manifest = self.service.catalogue.manifest(run.release)
        _log.info("%s: %s is signed; rolling it out", run.id, manifest.release)
        rollout = self.service.start_rollout(manifest.release, self._plan(run.parent), actor=run.id)
        done = replace(run, state="done", ended_at=self.clock())
        self.service.save_run(done)
        return RetrainResult(run=done, release=manifest.release, rollout=rollout.id, history=history)

    def _plan(self, parent: str) -> RolloutPlan:
        """Return the plan that was given, or else the usual one with the gate through which the parent came.

        What was asked of a model stays asked of its successor. A rollout without a gate asked nothing; that was said
        for that one, and a retraining that nobody looks at must not go on without evidence.
        """
        if self.settings.plan is not None:
            return self.settings.plan
        through = [
            rollout.plan.gate
            for rollout in self.service.rollouts()
            if rollout.release == parent and rollout.state is RolloutState.FINISHED and rollout.plan.gate is not None
        ]
        return replace(RolloutPlan(), gate=through[-1]) if through else RolloutPlan()

    def _changes(self, parent: str) -> dict[str, float]:
        """Return since when the devices' worlds may be other ones than the parent was made for: device -> Unix time.

        Each alert says when all was still well by what it watches; the latest of them is the best bound.
        """
        changes: dict[str, float] = {}
        for device in self.service.devices():
            found = [
                alert.changed_at(device.name, device.target)
                for alert in self.service.alerts()
                if alert.release == parent
            ]
            moments = [moment for moment in found if moment is not None]
            if moments:
                changes[device.name] = max(moments)
        return changes

    def _train(self, run: TrainingRun, parent: Manifest) -> "tuple[Path, tuple[RoundRecord, ...]]":
        from hedgerow.fleet.retrain.wire_round import WireRoundTransport
        from hedgerow.server.grids.fleet import FleetGrid
        from hedgerow.server.training import train_task

        task = load_task(self.task_reference)
        if task.name != parent.task:
            raise RetrainError(
                f"expected the task {parent.task!r} of {parent.release}, found {task.name!r} in {self.task_reference}; "
                "give the task that the release was trained for"
            )
        initial = kept_checkpoint(self.folder, parent)
        transport = WireRoundTransport(
            self.service,
            self.exchange,
            parent.release,
            report=self.report,
            changes=lambda: self._changes(parent.release),
        )
        local = replace(
            task.local,
            epochs=self.settings.epochs or task.local.epochs,
            learning_rate=self.settings.learning_rate or task.local.learning_rate,
        )
        result = train_task(
            task,
            self.folder.path / "runs" / run.id,
            strategy=self.settings.strategy,
            rounds=self.settings.rounds,
            seed=self.settings.seed,
            grid=FleetGrid(transport, run=run.id, deadline_s=self.settings.round_timeout_s),
            initial=initial,
            local=local,
            minimum_samples=self.settings.minimum_samples,
            minimum_devices=self.settings.minimum_devices,
            wait_s=self.settings.wait_s,
            round_timeout_s=self.settings.round_timeout_s,
            parent=parent.release,
            report=self.report,
        )
        return result.checkpoint_folder, result.history

    def _release(self, run: TrainingRun, parent: Manifest, checkpoint: Path) -> Manifest:
        from hedgerow.compile import compile_checkpoint
        from hedgerow.fleet.trust.releases import create_release

        out = self.folder.path / "runs" / run.id / "build"
        windows = list(self.service.windows(release=run.parent))
        compile_checkpoint(
            self.task_reference,
            checkpoint,
            [artifact.target for artifact in parent.artifacts],
            out,
            max_drop=self.settings.max_drop,
            jobs=self.settings.jobs,
            workers=self.workers,
            reference_counts=reference_counts(windows, run.started_at) or None,
            report=self.report,
        )
        note = self.settings.note or f"retrained on devices after {run.trigger}"
        manifest = create_release(
            self.folder, parent.name, out, now=self.clock(), parent=parent.release, note=note[:1024]
        )
        keep_checkpoint(self.folder, manifest, checkpoint)
        return manifest
