"""The main job, step by step. Each step calls what a command calls; nothing here does the work itself."""

import shutil
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from hedgerow.compile import CompileWorkers, compile_checkpoint
from hedgerow.compile.pipeline import toolchains
from hedgerow.fleet.brokers import DevelopmentBroker
from hedgerow.fleet.checkpoints import checkpoint_folder, keep_checkpoint
from hedgerow.fleet.cli import make_fleet
from hedgerow.fleet.demo.agents import agent_command, move_worlds, start_agents
from hedgerow.fleet.demo.display import Display
from hedgerow.fleet.demo.errors import DemoError
from hedgerow.fleet.demo.measure import accuracy_of, false_alarms, full_windows
from hedgerow.fleet.demo.plan import BUILT_ONLY, DemoDevice, plan_devices
from hedgerow.fleet.demo.poison import poison_checkpoint
from hedgerow.fleet.demo.result import (
    ArtifactResult,
    BadReleaseResult,
    DemoResult,
    DriftResult,
    RetrainResult,
    RolloutResult,
    TrainResult,
)
from hedgerow.fleet.demo.story import Story
from hedgerow.fleet.demo.watch import Watch
from hedgerow.fleet.layout import FleetFolder
from hedgerow.fleet.processes import ChildProcesses
from hedgerow.fleet.releases import create_release
from hedgerow.fleet.retrain import RetrainSettings
from hedgerow.fleet.rollout import Rollout, RolloutPlan, RolloutState, StagePlan, exposed
from hedgerow.fleet.serving import Retraining, ServingFleet, serve_fleet
from hedgerow.fleet.settings import FleetSettings
from hedgerow.manifest import Manifest
from hedgerow.task import load_task
from hedgerow.wire import ExecutionState

__all__ = ["DemoSettings", "run_demo"]

_FLEET = "demo"
_PLAN = RolloutPlan(stages=(StagePlan("canary", 0.25), StagePlan("fleet", 1.0)))
_STAGE_TIMEOUT_S = 120.0
_RETRAIN_TIMEOUT_S = 240.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoSettings:
    """What the demo does.

    Attributes:
        out: Folder of the report and of everything that the demo makes.
        example: Folder with ``task.py`` and ``device.py``.
        devices: How many agents.
        seed: Of everything random.
        rounds: Of the first training.
        retrain_rounds: Of the training on the devices.
        window_samples: Predictions in a window; the number of test images, so that a window meets each once.
        rate_per_s: Images that each device serves a second.
    """

    out: Path
    example: Path
    devices: int = 8
    seed: int = 0
    rounds: int = 20
    retrain_rounds: int = 24
    window_samples: int = 247
    rate_per_s: float = 200.0

    @property
    def task(self) -> str:
        """Reference of the task."""
        return f"{self.example / 'task.py'}:task"

    @property
    def work(self) -> Path:
        """Folder of what the demo makes on its way; emptied at the start."""
        return self.out / "work"


@dataclass(frozen=True, slots=True)
class _Scene:
    """What the steps share."""

    settings: DemoSettings
    devices: tuple[DemoDevice, ...]
    folder: FleetFolder
    fleet: ServingFleet
    workers: CompileWorkers
    watch: Watch
    display: Display

    @property
    def names(self) -> list[str]:
        return [device.name for device in self.devices]

    @property
    def drifting(self) -> list[str]:
        return [device.name for device in self.devices if device.meets_drift]

    @property
    def targets(self) -> list[str]:
        return [*dict.fromkeys(device.target for device in self.devices), *BUILT_ONLY]


def run_demo(settings: DemoSettings, display: Display) -> tuple[DemoResult, Story]:
    """Run the main job once.

    Raises:
        HedgerowError: A step failed; every process that was started is gone.
    """
    devices = plan_devices(settings.devices)
    if settings.work.exists():
        shutil.rmtree(settings.work)
    settings.work.mkdir(parents=True)
    started_at = time.time()
    with ExitStack() as stack:
        workers = stack.enter_context(CompileWorkers())
        workers.warm(toolchains([*dict.fromkeys(device.target for device in devices), *BUILT_ONLY]))
        broker = stack.enter_context(DevelopmentBroker())
        display.step(f"broker: {broker.name}; {len(devices)} agents, each in a process of its own")
        folder = FleetFolder(settings.work / "fleet")
        make_fleet(folder, _FLEET, now=started_at)
        retraining = Retraining(
            task=settings.task,
            settings=RetrainSettings(
                rounds=settings.retrain_rounds,
                seed=settings.seed,
                epochs=2,
                minimum_devices=len(devices),
                plan=_PLAN,
            ),
            workers=workers,
            report=display.report,
        )
        fleet_settings = FleetSettings(
            fleet=_FLEET, port=0, broker_host=broker.host, broker_port=broker.port, seed=settings.seed
        )
        # The agents are stopped after the fleet: a device outlives its server, and nobody hears them go.
        children = stack.enter_context(ChildProcesses())
        fleet = serve_fleet(folder, fleet_settings, stack, retraining=retraining)
        watch = Watch(fleet.service, devices, children, started_at)
        stack.callback(watch.close)
        scene = _Scene(settings, devices, folder, fleet, workers, watch, display)
        _start_agents(scene, children, f"{broker.host}:{broker.port}")
        result = _tell(scene, broker.name)
        seconds = time.time() - started_at
    display.step("every agent, the fleet service and the broker are stopped")
    return replace(result, seconds=seconds), watch.story


def _start_agents(scene: _Scene, children: ChildProcesses, broker: str) -> None:
    settings = scene.settings
    root = scene.settings.work / "root.json"
    shutil.copyfile(scene.folder.tuf_metadata / "1.root.json", root)
    commands = []
    for device in scene.devices:
        options = {"clients": len(scene.devices), "index": device.index, "seed": settings.seed}
        command = agent_command(
            device,
            fleet=_FLEET,
            broker=broker,
            server=scene.fleet.url,
            trusted_root=root,
            state_folder=_state_folder(settings, device),
            source=f"{settings.example / 'device.py'}:stream",
            source_options={**{k: str(v) for k, v in options.items()}, "rate_per_s": f"{settings.rate_per_s:g}"},
            window_samples=settings.window_samples,
        )
        commands.append((device.name, command))
    start_agents(children, commands, settings.work / "logs")


def _state_folder(settings: DemoSettings, device: DemoDevice) -> Path:
    return settings.work / "devices" / device.name


def _tell(scene: _Scene, broker: str) -> DemoResult:
    train, checkpoint = _train(scene)
    first, artifacts = _compile_and_release(scene, checkpoint)
    rollout = _roll_out(scene, first)
    _serve_clean(scene, first.release)
    _move_the_world(scene, first.release)
    second, rounds = _retrained(scene)
    alarms = _alarms(scene)
    drift = _drift(scene, first.release, alarms)
    retrain = _recovered(scene, second.release, drift, rounds)
    bad = _bad_release(scene, second)
    return DemoResult(
        seconds=0.0,
        broker=broker,
        devices=len(scene.devices),
        train=train,
        artifacts=artifacts,
        rollout=rollout,
        drift=drift,
        retrain=retrain,
        bad_release=bad,
        final_release=_final_release(scene),
    )


def _train(scene: _Scene) -> tuple[TrainResult, Path]:
    from hedgerow.server.training import train_task

    settings = scene.settings
    scene.display.step(f"first training: FedAvg, {len(scene.devices)} in-process clients, {settings.rounds} rounds")
    run = train_task(
        load_task(settings.task),
        settings.work / "run",
        rounds=settings.rounds,
        clients=len(scene.devices),
        seed=settings.seed,
        report=scene.display.report,
    )
    scene.watch.mark("trained")
    scene.watch.add_rounds("first training", {r.round: r.accuracy for r in run.history if r.accuracy is not None})
    accuracy = run.checkpoint.metrics["accuracy"]
    return TrainResult(run.checkpoint.strategy, len(run.history), accuracy), run.checkpoint_folder


def _compile_and_release(scene: _Scene, checkpoint: Path) -> tuple[Manifest, list[ArtifactResult]]:
    scene.display.step(f"compile for {', '.join(scene.targets)}, and two train graphs")
    manifest = _release(scene, checkpoint, scene.targets, "build-1", note="first training")
    return manifest, [
        ArtifactResult(
            target=artifact.target,
            format=artifact.format,
            bytes=artifact.blob.length_bytes,
            float_bytes=int(artifact.metrics["float_bytes"]),
            accuracy=artifact.metrics.get("accuracy"),
            float_accuracy=artifact.metrics["float_accuracy"],
            sha256=artifact.blob.sha256,
            checks=dict(artifact.checks),
        )
        for artifact in manifest.artifacts
    ]


def _release(scene: _Scene, checkpoint: Path, targets: list[str], build: str, *, note: str) -> Manifest:
    settings = scene.settings
    out = settings.work / build
    compile_checkpoint(settings.task, checkpoint, targets, out, workers=scene.workers, report=scene.display.report)
    manifest = create_release(scene.folder, load_task(settings.task).name, out, now=time.time(), note=note)
    keep_checkpoint(scene.folder, manifest, checkpoint)
    scene.display.say(
        f"{manifest.release} is signed: {len(manifest.artifacts)} artifacts, {len(manifest.train_graphs)} train graphs"
    )
    return manifest


def _roll_out(scene: _Scene, manifest: Manifest) -> RolloutResult:
    scene.display.step(f"roll {manifest.release} out: canary, then everyone")
    scene.watch.wait(
        f"{len(scene.devices)} agents online",
        lambda: sum(device.online for device in scene.fleet.service.devices()) >= len(scene.devices),
        timeout_s=_STAGE_TIMEOUT_S,
        found=lambda: f"{sum(device.online for device in scene.fleet.service.devices())}",
    )
    rollout = _wait_for_rollout(scene, scene.fleet.service.start_rollout(manifest.release, _PLAN).id)
    return RolloutResult(rollout.state.value, *_tally(rollout))


def _tally(rollout: Rollout) -> tuple[int, int]:
    states = [execution.state for execution in rollout.executions.values()]
    succeeded = states.count(ExecutionState.SUCCEEDED)
    return succeeded, len(states) - succeeded


def _wait_for_rollout(scene: _Scene, rollout_id: str) -> Rollout:
    stage = -1

    def is_over() -> bool:
        nonlocal stage
        rollout = scene.fleet.service.rollout(rollout_id)
        if rollout.stage != stage and rollout.state is RolloutState.RUNNING:
            stage = rollout.stage
            names = ", ".join(sorted(n for n, e in rollout.executions.items() if e.stage == stage))
            scene.display.say(f"stage {rollout.plan.stages[stage].name}: {names}")
            scene.watch.mark(f"{rollout.release} {rollout.plan.stages[stage].name}")
        return rollout.state.is_terminal or rollout.state is RolloutState.PAUSED

    scene.watch.wait(
        f"the rollout {rollout_id} to end",
        is_over,
        timeout_s=2 * _STAGE_TIMEOUT_S,
        found=lambda: str(scene.fleet.service.rollout(rollout_id).state),
    )
    rollout = scene.fleet.service.rollout(rollout_id)
    scene.display.say(f"rollout {rollout.state.value}" + (f": {rollout.reason}" if rollout.reason else ""))
    return rollout


def _wait_for_windows(scene: _Scene, release: str, phase: str, names: list[str], each: int) -> None:
    def sent() -> int:
        found = full_windows(
            scene.watch.seen(),
            release=release,
            phase=phase,
            devices=names,
            samples=scene.settings.window_samples,
            each=each,
        )
        return sum(len(windows) for windows in found.values())

    scene.watch.wait(
        f"{each} full windows of {release} from each of {len(names)} devices",
        lambda: sent() >= each * len(names),
        timeout_s=_STAGE_TIMEOUT_S,
        found=lambda: f"{sent()} in all",
    )


def _accuracy(scene: _Scene, release: str, phase: str, names: list[str]) -> float:
    windows = full_windows(
        scene.watch.seen(), release=release, phase=phase, devices=names, samples=scene.settings.window_samples, each=1
    )
    accuracy = accuracy_of(windows)
    if accuracy is None:
        raise DemoError(
            f"expected a labelled window of {release} from every device while {phase}, found none from some"
        )
    return accuracy


def _serve_clean(scene: _Scene, release: str) -> None:
    scene.display.step("the agents serve held-out digits and send windows")
    _wait_for_windows(scene, release, "clean", scene.names, each=3)
    before = _accuracy(scene, release, "clean", scene.names)
    scene.display.say(f"accuracy on the devices {before:.1%}; {len(scene.watch.alerts())} alerts")


def _move_the_world(scene: _Scene, release: str) -> None:
    scene.display.step(f"the world moves for {', '.join(scene.drifting)}: shifted and inverted pixels")
    move_worlds(_state_folder(scene.settings, device) for device in scene.devices if device.meets_drift)
    scene.watch.moved_at = time.time()
    scene.watch.mark("the world moves")
    scene.watch.wait("a drift alert", lambda: _raised(scene), timeout_s=_STAGE_TIMEOUT_S)
    scene.watch.mark("drift alert")
    _wait_for_windows(scene, release, "drifted", scene.drifting, each=1)
    during = _accuracy(scene, release, "drifted", scene.drifting)
    scene.display.say(f"drift alert; accuracy on these devices {during:.1%}")


def _raised(scene: _Scene) -> bool:
    return any(phase == "drifted" for phase, _alert in scene.watch.alerts())


def _retrained(scene: _Scene) -> tuple[Manifest, int]:
    scene.display.step("the alert starts a training on the agents, over MQTT; no image leaves a device")
    ended = scene.fleet.retrained
    scene.watch.wait("the retraining to end", lambda: bool(ended), timeout_s=_RETRAIN_TIMEOUT_S)
    outcome = ended[0]
    if isinstance(outcome, Exception):
        raise outcome
    accuracies = {record.round: record.accuracy for record in outcome.history if record.accuracy is not None}
    scene.watch.add_rounds("on the agents", accuracies)
    scene.display.step(f"roll {outcome.release} out: canary, then everyone")
    rollout = _wait_for_rollout(scene, outcome.rollout)
    if rollout.state is not RolloutState.FINISHED:
        raise DemoError(
            f"expected the rollout of {outcome.release} to finish, found {rollout.state.value} ({rollout.reason}); "
            "look at the report of the gate above"
        )
    _wait_for_windows(scene, outcome.release, "recovered", scene.names, each=3)
    return scene.fleet.service.catalogue.manifest(outcome.release), len(outcome.history)


def _alarms(scene: _Scene) -> list[tuple[str, str]]:
    """Return (phase, device) of every alert so far; an alert about a group alone counts under the group's name."""
    alarms = []
    for phase, alert in scene.watch.alerts():
        named = alert.devices or tuple(finding.slice for finding in alert.findings[:1])
        alarms += [(phase, device) for device in named]
    return alarms


def _drift(scene: _Scene, release: str, alarms: list[tuple[str, str]]) -> DriftResult:
    raised = [alert for phase, alert in scene.watch.alerts() if phase == "drifted" and alert.release == release]
    result = DriftResult(
        injected_devices=scene.drifting,
        detected=any(set(alert.devices) & set(scene.drifting) for alert in raised),
        alerted_devices=sorted({device for alert in raised for device in alert.devices}),
        features=sorted({feature for alert in raised for feature in alert.features}),
        largest_effect_js_bits=max((finding.js_bits for alert in raised for finding in alert.findings), default=0.0),
        windows_to_detect=max((alert.windows for alert in raised), default=0),
        false_alarms=false_alarms(alarms, drifted=scene.drifting),
        accuracy_before=_accuracy(scene, release, "clean", scene.drifting),
        accuracy_during=_accuracy(scene, release, "drifted", scene.drifting),
    )
    scene.display.say(
        f"the alert named {', '.join(result.alerted_devices)}, by {', '.join(result.features)}; "
        f"{result.false_alarms} false alarms"
    )
    return result


def _recovered(scene: _Scene, release: str, drift: DriftResult, rounds: int) -> RetrainResult:
    held = [name for name in scene.names if name not in scene.drifting]
    result = RetrainResult(
        trigger="drift alert",
        grid="FleetGrid",
        rounds=rounds,
        accuracy_after=_accuracy(scene, release, "recovered", scene.drifting),
        accuracy_after_undrifted=_accuracy(scene, release, "recovered", held),
    )
    scene.display.say(
        f"accuracy on the drifted devices: {drift.accuracy_before:.1%} before, {drift.accuracy_during:.1%} during, "
        f"{result.accuracy_after:.1%} after"
    )
    return result


def _bad_release(scene: _Scene, good: Manifest) -> BadReleaseResult:
    scene.display.step("a bad release: valid signature, broken weights")
    checkpoint = scene.settings.work / "poisoned"
    poison_checkpoint(checkpoint_folder(scene.folder, good.release), checkpoint, len(good.model_schema.labels))
    targets = list(dict.fromkeys(device.target for device in scene.devices))
    bad = _release(scene, checkpoint, targets, "build-bad", note="deliberately bad")
    rollout = _wait_for_rollout(scene, scene.fleet.service.start_rollout(bad.release, _PLAN).id)
    met = exposed(rollout)
    with_it = [name for name, execution in rollout.executions.items() if execution.state is ExecutionState.SUCCEEDED]
    scene.watch.wait(
        f"{good.release} on every device again",
        lambda: all(device.release == good.release for device in scene.fleet.service.devices()),
        timeout_s=_STAGE_TIMEOUT_S,
        found=lambda: ", ".join(f"{device.name} {device.release}" for device in scene.fleet.service.devices()),
    )
    scene.watch.mark("rolled back")
    return BadReleaseResult(
        stopped=rollout.state is RolloutState.ROLLED_BACK,
        exposed=len({*met, *with_it}),
        rolled_back=all(device.release == good.release for device in scene.fleet.service.devices()),
        reason=rollout.reason,
    )


def _final_release(scene: _Scene) -> str:
    releases = sorted({str(device.release) for device in scene.fleet.service.devices()})
    return ", ".join(releases)
