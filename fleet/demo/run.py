"""The main job, step by step. Each step calls what a command calls; nothing here does the work itself."""

import shutil
import time
from dataclasses import replace
from pathlib import Path

from hedgerow.children.programs import Programs
from hedgerow.compile import CompileWorkers
from hedgerow.compile.pipeline import toolchains
from hedgerow.fleet.brokers.development import DevelopmentBroker
from hedgerow.fleet.commands.fleet import make_fleet
from hedgerow.fleet.demo.agents import move_worlds
from hedgerow.fleet.demo.display import Display
from hedgerow.fleet.demo.errors import DemoError
from hedgerow.fleet.demo.measure import false_alarms
from hedgerow.fleet.demo.plan import BUILT_ONLY, plan_devices
from hedgerow.fleet.demo.poison import poison_checkpoint
from hedgerow.fleet.demo.result import (
    ArtifactResult,
    BadReleaseResult,
    DemoResult,
    DeviceTrainResult,
    DriftResult,
    FirstTrainResult,
    RolloutResult,
)
from hedgerow.fleet.demo.scene import (
    FLEET,
    PLAN,
    STAGE_TIMEOUT_S,
    DemoSettings,
    Scene,
    accuracy_in,
    make_release,
    state_folder,
    wait_for_rollout,
    wait_for_windows,
)
from hedgerow.fleet.demo.story import Story
from hedgerow.fleet.demo.watch import Watch
from hedgerow.fleet.deploy.agents import agent_command, start_agents
from hedgerow.fleet.drift.alert import AlertKind
from hedgerow.fleet.folder import FleetFolder
from hedgerow.fleet.retrain.run import RetrainSettings
from hedgerow.fleet.rollout.state import Rollout, RolloutState, exposed
from hedgerow.fleet.serving import Retraining, serve_fleet
from hedgerow.fleet.settings import FleetSettings
from hedgerow.fleet.trust.checkpoints import checkpoint_folder
from hedgerow.interrupts import UndisturbedStack
from hedgerow.manifest.release import Manifest
from hedgerow.task import load_task
from hedgerow.wire.execution import ExecutionState

__all__ = ["run_demo"]

_RETRAIN_TIMEOUT_S = 240.0


def run_demo(settings: DemoSettings, display: Display) -> tuple[DemoResult, Story]:
    """Run the main job once.

    Raises:
        HedgerowError: A step failed; every process that was started is gone.
    """
    devices = plan_devices(settings.devices)
    started_at = time.time()
    with UndisturbedStack() as stack:
        workers = stack.enter_context(CompileWorkers())
        workers.warm(toolchains([*dict.fromkeys(device.target for device in devices), *BUILT_ONLY]))
        broker = stack.enter_context(DevelopmentBroker())
        display.step(f"broker: {broker.name}; {len(devices)} agents, each in a process of its own")
        folder = FleetFolder(settings.work / "fleet")
        make_fleet(folder, FLEET, now=started_at)
        retraining = Retraining(
            task=settings.task,
            settings=RetrainSettings(
                rounds=settings.retrain_rounds,
                seed=settings.seed,
                epochs=2,
                minimum_devices=len(devices),
                plan=PLAN,
            ),
            workers=workers,
            report=display.report,
        )
        fleet_settings = FleetSettings(
            fleet=FLEET, port=0, broker_host=broker.host, broker_port=broker.port, seed=settings.seed
        )
        # The agents are stopped after the fleet: a device outlives its server, and nobody hears them go.
        children = stack.enter_context(Programs())
        fleet = serve_fleet(folder, fleet_settings, stack, retraining=retraining)
        watch = Watch(fleet.service, devices, children, started_at)
        stack.callback(watch.close)
        scene = Scene(settings, devices, folder, fleet, workers, watch, display)
        # The last to be entered is the first to be told: stopping takes some seconds.
        stack.callback(display.step, "stopping the agents, the fleet service and the broker")
        _start_agents(scene, children, f"{broker.host}:{broker.port}")
        result = _tell(scene, broker.name)
        seconds = time.time() - started_at
    display.step("every agent, the fleet service and the broker are stopped")
    return replace(result, seconds=seconds), watch.story


def _start_agents(scene: Scene, children: Programs, broker: str) -> None:
    settings = scene.settings
    root = scene.settings.work / "root.json"
    shutil.copyfile(scene.folder.tuf_metadata / "1.root.json", root)
    commands = []
    for device in scene.devices:
        options = {"clients": len(scene.devices), "index": device.index, "seed": settings.seed}
        command = agent_command(
            device.name,
            device.target,
            fleet=FLEET,
            broker=broker,
            server=scene.fleet.url,
            trusted_root=root,
            state_folder=state_folder(settings, device),
            source=f"{settings.example / 'device.py'}:stream",
            source_options={**{k: str(v) for k, v in options.items()}, "rate_per_s": f"{settings.rate_per_s:g}"},
            window_samples=settings.window_samples,
        )
        commands.append((device.name, command))
    start_agents(children, commands, settings.work / "logs")


def _tell(scene: Scene, broker: str) -> DemoResult:
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


def _train(scene: Scene) -> tuple[FirstTrainResult, Path]:
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
    scene.watch.add_rounds("first training", {r.round: r.score for r in run.history if r.score is not None})
    accuracy = run.checkpoint.metrics["accuracy"]
    return FirstTrainResult(run.checkpoint.strategy, len(run.history), accuracy), run.checkpoint_folder


def _compile_and_release(scene: Scene, checkpoint: Path) -> tuple[Manifest, list[ArtifactResult]]:
    scene.display.step(f"compile for {', '.join(scene.targets)}, and two train graphs")
    manifest = make_release(scene, checkpoint, scene.targets, "build-1", note="first training")
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


def _roll_out(scene: Scene, manifest: Manifest) -> RolloutResult:
    scene.display.step(f"roll {manifest.release} out: canary, then everyone")
    scene.watch.wait(
        f"{len(scene.devices)} agents online",
        lambda: sum(device.online for device in scene.fleet.service.devices()) >= len(scene.devices),
        timeout_s=STAGE_TIMEOUT_S,
        found=lambda: f"{sum(device.online for device in scene.fleet.service.devices())}",
    )
    rollout = wait_for_rollout(scene, scene.fleet.service.start_rollout(manifest.release, PLAN).id)
    return RolloutResult(rollout.state.value, *_tally(rollout))


def _tally(rollout: Rollout) -> tuple[int, int]:
    states = [execution.state for execution in rollout.executions.values()]
    succeeded = states.count(ExecutionState.SUCCEEDED)
    return succeeded, len(states) - succeeded


def _serve_clean(scene: Scene, release: str) -> None:
    scene.display.step("the agents serve held-out digits and send windows")
    wait_for_windows(scene, release, "clean", scene.names, each=3)
    before = accuracy_in(scene, release, "clean", scene.names)
    scene.display.note(f"accuracy on the devices {before:.1%}; {len(scene.watch.alerts())} alerts")


def _move_the_world(scene: Scene, release: str) -> None:
    scene.display.step(f"the world moves for {', '.join(scene.drifting)}: shifted and inverted pixels")
    move_worlds(state_folder(scene.settings, device) for device in scene.devices if device.meets_drift)
    scene.watch.moved_at = time.time()
    scene.watch.mark("the world moves")
    scene.watch.wait("a drift alert", lambda: _raised(scene), timeout_s=STAGE_TIMEOUT_S)
    scene.watch.mark("drift alert")
    wait_for_windows(scene, release, "drifted", scene.drifting, each=1)
    during = accuracy_in(scene, release, "drifted", scene.drifting)
    scene.display.note(f"drift alert; accuracy on these devices {during:.1%}")


def _raised(scene: Scene) -> bool:
    return any(phase == "drifted" and alert.kind == AlertKind.DRIFT for phase, alert in scene.watch.alerts())


def _retrained(scene: Scene) -> tuple[Manifest, int]:
    scene.display.step("the alert starts a training on the agents, over MQTT; no image leaves a device")
    ended = scene.fleet.retrained
    scene.watch.wait("the retraining to end", lambda: bool(ended), timeout_s=_RETRAIN_TIMEOUT_S)
    outcome = ended[0]
    if isinstance(outcome, Exception):
        raise outcome
    accuracies = {record.round: record.score for record in outcome.history if record.score is not None}
    scene.watch.add_rounds("on the agents", accuracies)
    scene.display.step(f"roll {outcome.release} out: canary, then everyone")
    rollout = wait_for_rollout(scene, outcome.rollout)
    if rollout.state is not RolloutState.FINISHED:
        raise DemoError(
            f"expected the rollout of {outcome.release} to finish, found {rollout.state.value} ({rollout.reason}); "
            "look at the report of the gate above"
        )
    wait_for_windows(scene, outcome.release, "recovered", scene.names, each=3)
    return scene.fleet.service.catalogue.manifest(outcome.release), len(outcome.history)


def _alarms(scene: Scene) -> list[tuple[str, str]]:
    """Return (phase, device) of every alert so far; an alert about a group alone counts under the group's name."""
    alarms = []
    for phase, alert in scene.watch.alerts():
        named = alert.devices or tuple(finding.slice for finding in alert.findings[:1])
        alarms += [(phase, device) for device in named]
    return alarms


def _drift(scene: Scene, release: str, alarms: list[tuple[str, str]]) -> DriftResult:
    raised = [
        alert
        for phase, alert in scene.watch.alerts()
        if phase == "drifted" and alert.release == release and alert.kind == AlertKind.DRIFT
    ]
    result = DriftResult(
        injected_devices=scene.drifting,
        detected=any(set(alert.devices) & set(scene.drifting) for alert in raised),
        alerted_devices=sorted({device for alert in raised for device in alert.devices}),
        features=sorted({feature for alert in raised for feature in alert.features}),
        largest_effect_js_bits=max((finding.js_bits for alert in raised for finding in alert.findings), default=0.0),
        windows_to_detect=max((alert.windows for alert in raised), default=0),
        false_alarms=false_alarms(alarms, drifted=scene.drifting),
        accuracy_before=accuracy_in(scene, release, "clean", scene.drifting),
        accuracy_during=accuracy_in(scene, release, "drifted", scene.drifting),
    )
    scene.display.note(
        f"the alert named {', '.join(result.alerted_devices)}, by {', '.join(result.features)}; "
        f"{result.false_alarms} false alarms"
    )
    return result


def _recovered(scene: Scene, release: str, drift: DriftResult, rounds: int) -> DeviceTrainResult:
    held = [name for name in scene.names if name not in scene.drifting]
    result = DeviceTrainResult(
        trigger=_trigger(scene),
        grid="FleetGrid",
        rounds=rounds,
        accuracy_after=accuracy_in(scene, release, "recovered", scene.drifting),
        accuracy_after_undrifted=accuracy_in(scene, release, "recovered", held),
    )
    scene.display.note(
        f"accuracy on the drifted devices: {drift.accuracy_before:.1%} before, {drift.accuracy_during:.1%} during, "
        f"{result.accuracy_after:.1%} after"
    )
    return result


def _trigger(scene: Scene) -> str:
    """Return which kind of alert came first; labels tell of this world before the counts do, as a rule."""
    run = scene.fleet.service.runs()[0]
    kinds = {alert.id: alert.kind for alert in scene.fleet.service.alerts()}
    return f"{kinds[run.trigger]} alert"


def _bad_release(scene: Scene, good: Manifest) -> BadReleaseResult:
    scene.display.step("a bad release: valid signature, broken weights")
    checkpoint = scene.settings.work / "poisoned"
    poison_checkpoint(checkpoint_folder(scene.folder, good.release), checkpoint, good.model_schema.outputs[0].shape[-1])
    targets = list(dict.fromkeys(device.target for device in scene.devices))
    bad = make_release(scene, checkpoint, targets, "build-bad", note="deliberately bad")
    rollout = wait_for_rollout(scene, scene.fleet.service.start_rollout(bad.release, PLAN).id)
    met = exposed(rollout)
    with_it = [name for name, execution in rollout.executions.items() if execution.state is ExecutionState.SUCCEEDED]
    scene.watch.wait(
        f"{good.release} on every device again",
        lambda: all(device.release == good.release for device in scene.fleet.service.devices()),
        timeout_s=STAGE_TIMEOUT_S,
        found=lambda: ", ".join(f"{device.name} {device.release}" for device in scene.fleet.service.devices()),
    )
    scene.watch.mark("rolled back")
    return BadReleaseResult(
        stopped=rollout.state is RolloutState.ROLLED_BACK,
        exposed=len({*met, *with_it}),
        rolled_back=all(device.release == good.release for device in scene.fleet.service.devices()),
        reason=rollout.reason,
    )


def _final_release(scene: Scene) -> str:
    releases = sorted({str(device.release) for device in scene.fleet.service.devices()})
    return ", ".join(releases)
