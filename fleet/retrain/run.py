"""Train again on the devices, compile, release, roll out: what a drift alert sets off.

One class does it, for the service's own loop and for whoever calls it; a run that was killed is resumed by calling
it again with the run's id. Heavy libraries are imported when it runs.
"""

import logging
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

from hedgerow.errors import HedgerowError
from hedgerow.features import input_features, is_output_feature, whole_features
from hedgerow.fleet.drift.baselines import device_baselines, reference_counts
from hedgerow.fleet.errors import RetrainError
from hedgerow.fleet.folder import FleetFolder
from hedgerow.fleet.records import RunState, TrainingRun
from hedgerow.fleet.retrain.wire_round import TrainingExchange
from hedgerow.fleet.rollout.plan import RolloutPlan
from hedgerow.fleet.rollout.state import RolloutState
from hedgerow.fleet.service.fleet_service import FleetService
from hedgerow.fleet.settings import FleetSettings
from hedgerow.fleet.trust.checkpoints import keep_checkpoint, kept_checkpoint
from hedgerow.manifest.release import Manifest
from hedgerow.progress import Report, silent
from hedgerow.reference import build_reference
from hedgerow.task import load_task

if TYPE_CHECKING:
    from hedgerow.compile import CompileWorkers
    from hedgerow.server.run_records import RoundRecord
    from hedgerow.task import Task

__all__ = ["MANUAL", "RetrainResult", "RetrainSettings", "Retrainer"]

_log = logging.getLogger(__name__)
_DEFAULTS = FleetSettings()

MANUAL = "manual"
"""The trigger of a retraining that a person began."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrainSettings:
    """How to train again.

    Attributes:
        strategy: A key of ``hedgerow.server.strategies.STRATEGIES``.
        rounds: Federated rounds.
        seed: The run's.
        epochs: Passes over a device's samples in each round; None: the task's.
        learning_rate: Step size on the devices; None: the task's.
        minimum_samples: A device with fewer labelled samples declines.
        minimum_devices: A round waits for so many devices.
        wait_s: How long it waits for them.
        round_timeout_s: Longest wait for the devices of one round.
        max_drop: Largest accepted fall of the mean score by compiling.
        jobs: Compile so many targets at a time; None: as many as there are cores.
        plan: How the release is rolled out; None: the usual way, with the gate through which the parent came.
        note: One line for the release.
    """

    strategy: str = "fedavg"
    rounds: int = _DEFAULTS.retrain_rounds
    seed: int = _DEFAULTS.seed
    epochs: int | None = None
    learning_rate: float | None = None
    minimum_samples: int = 1
    minimum_devices: int = _DEFAULTS.retrain_minimum_devices
    wait_s: float = 60.0
    round_timeout_s: float = _DEFAULTS.retrain_timeout_s
    max_drop: float = 0.015
    jobs: int | None = None
    plan: RolloutPlan | None = None
    note: str = ""

    @classmethod
    def by(cls, settings: FleetSettings) -> Self:
        """Return what a fleet's settings say, and the defaults of what they do not say."""
        return cls(
            rounds=settings.retrain_rounds,
            seed=settings.seed,
            minimum_devices=settings.retrain_minimum_devices,
            round_timeout_s=settings.retrain_timeout_s,
        )


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrainer:
    """Trains releases of one task again on the devices that run them, and starts rolling out what comes of it.

    Attributes:
        service: The fleet service, started.
        exchange: The one that the HTTP server serves.
        folder: The fleet's; its signing keys must be there.
        task: Reference of the task, ``module:attribute`` or ``file.py:attribute``.
        settings: How it trains and rolls out.
        workers: Warm compile processes; None: new ones for each retraining.
        report: Told every step.
        clock: Unix seconds.
    """

    service: FleetService
    exchange: TrainingExchange
    folder: FleetFolder
    task: str
    settings: RetrainSettings = field(default_factory=RetrainSettings)
    workers: "CompileWorkers | None" = None
    report: Report = silent
    clock: Callable[[], float] = time.time

    def retrain(self, release: str, *, trigger: str = MANUAL, run_id: str | None = None) -> RetrainResult:
        """Train a release again.

        Args:
            release: The one to start from; its checkpoint must have been kept.
            trigger: The alert's id, or :data:`MANUAL`.
            run_id: The id of a run that was begun before and is resumed.

        Raises:
            RetrainError: The release's task is another one.
            CheckpointError: The release's checkpoint was not kept.
            HedgerowError: Whatever training, compiling, releasing or rolling out refuses; the run is recorded as
                failed, as it is after any other error.
        """
        known = next((run for run in self.service.runs() if run.id == run_id), None)
        run = known or TrainingRun(
            id=run_id or f"retrain-{release.replace('@', '-')}-{secrets.token_hex(4)}",
            started_at=self.clock(),
            ended_at=None,
            state=RunState.RUNNING,
            trigger=trigger,
            parent=release,
        )
        run = replace(run, state=RunState.RUNNING, ended_at=None, reason="")
        self.service.save_run(run)
        try:
            return self._carry_out(run)
        except Exception as exc:
            # Also of a bug: a run that stays "running" is begun again at every start of the service.
            reason = str(exc) if isinstance(exc, HedgerowError) else f"{type(exc).__name__}: {exc}"
            latest = next((found for found in self.service.runs() if found.id == run.id), run)
            self.service.save_run(replace(latest, state=RunState.FAILED, ended_at=self.clock(), reason=reason[:4096]))
            raise

    def _carry_out(self, run: TrainingRun) -> RetrainResult:
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
        done = replace(run, state=RunState.DONE, ended_at=self.clock())
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

        task = load_task(self.task)
        if task.name != parent.task:
            raise RetrainError(
                f"expected the task {parent.task!r} of {parent.release}, found {task.name!r} in {self.task}; "
                "give the task that the release was trained for"
            )
        if task.state:
            raise RetrainError(
                f"expected a task that devices can train, found the state {', '.join(task.state)} of {task.name!r}, "
                "which a train graph has no place for; train it with hedgerow train, and release it anew"
            )
        self._check_reference(task, parent.release)
        initial = kept_checkpoint(self.folder, parent)
        transport = WireRoundTransport(
            self.service,
            self.exchange,
            parent.release,
            report=self.report,
            changes=lambda: self._changes(parent.release),
            wall_clock=self.clock,
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

    def _check_reference(self, task: "Task", parent: str) -> None:
        """Refuse a parent in whose bins its successor could not count, before any device works for it.

        Devices count in the bins of the release that they run, and these counts become the reference of the next one.
        """
        train, schema = task.load_data().train, task.schema
        inputs = input_features(schema, train.inputs)
        made = build_reference({}, {}, inputs=inputs, whole=whole_features(schema))
        bins = {feature.name: len(feature.counts) for feature in made.features}
        for feature in self.service.catalogue.reference(parent).features:
            if not is_output_feature(feature.name) and bins.get(feature.name) != len(feature.counts):
                wanted = bins.get(feature.name, "no")
                raise RetrainError(
                    f"expected {wanted} bins of {feature.name!r} in the reference of {parent}, as the task's data has "
                    f"them, found {len(feature.counts)}; it was compiled from other data or by another version: "
                    "compile its checkpoint again, release that, and roll it out first"
                )

    def _release(self, run: TrainingRun, parent: Manifest, checkpoint: Path) -> Manifest:
        from hedgerow.compile import Budget, compile_checkpoint
        from hedgerow.fleet.trust.releases import create_release

        out = self.folder.path / "runs" / run.id / "build"
        windows = list(self.service.windows(release=run.parent))
        compile_checkpoint(
            self.task,
            checkpoint,
            [artifact.target for artifact in parent.artifacts],
            out,
            budget=Budget(max_drop=self.settings.max_drop),
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
