"""What the demo's steps share: settings, the running fleet, and the waiting."""

import time
from dataclasses import dataclass
from pathlib import Path

from hedgerow.compile import CompileWorkers, compile_checkpoint
from hedgerow.fleet.demo.display import Display
from hedgerow.fleet.demo.errors import DemoError
from hedgerow.fleet.demo.measure import accuracy_of, full_windows
from hedgerow.fleet.demo.plan import BUILT_ONLY, DemoDevice
from hedgerow.fleet.demo.watch import Watch
from hedgerow.fleet.folder import FleetFolder
from hedgerow.fleet.rollout.gates import GatePlan
from hedgerow.fleet.rollout.plan import RolloutPlan
from hedgerow.fleet.rollout.stages import StagePlan
from hedgerow.fleet.rollout.state import Rollout, RolloutState
from hedgerow.fleet.serving import ServingFleet
from hedgerow.fleet.trust.checkpoints import keep_checkpoint
from hedgerow.fleet.trust.releases import create_release
from hedgerow.manifest.release import Manifest
from hedgerow.task import load_task

__all__ = [
    "FLEET",
    "PLAN",
    "STAGE_TIMEOUT_S",
    "DemoSettings",
    "Scene",
    "accuracy_in",
    "make_release",
    "state_folder",
    "wait_for_rollout",
    "wait_for_windows",
]

FLEET = "demo"
# The digits that the devices meet are harder than the held-out ones, more so where the world has moved.
PLAN = RolloutPlan(
    stages=(StagePlan("canary", 0.25), StagePlan("fleet", 1.0)),
    gate=GatePlan(floor=0.85, maximum_accuracy_drop=0.05),
)
STAGE_TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoSettings:
    """What the demo does.

    Attributes:
        out: Folder of the report and of everything that the demo makes.
        example: Folder with ``task.py`` and ``device.py``.
        devices: How many agents.
        seed: What everything random is drawn from.
        rounds: How many the first training has.
        retrain_rounds: How many the training on the devices has.
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
class Scene:
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
        """All devices."""
        return [device.name for device in self.devices]

    @property
    def drifting(self) -> list[str]:
        """Devices whose world moves."""
        return [device.name for device in self.devices if device.meets_drift]

    @property
    def targets(self) -> list[str]:
        """Targets to compile for: those of the devices, and those that are only built."""
        return [*dict.fromkeys(device.target for device in self.devices), *BUILT_ONLY]


def state_folder(settings: DemoSettings, device: DemoDevice) -> Path:
    """Return what `--state` of a device's agent is."""
    return settings.work / "devices" / device.name


def make_release(scene: Scene, checkpoint: Path, targets: list[str], build: str, *, note: str) -> Manifest:
    """Compile a checkpoint, sign the build as the next release, and keep the checkpoint for retraining."""
    settings = scene.settings
    out = settings.work / build
    compile_checkpoint(settings.task, checkpoint, targets, out, workers=scene.workers, report=scene.display.report)
    manifest = create_release(scene.folder, load_task(settings.task).name, out, now=time.time(), note=note)
    keep_checkpoint(scene.folder, manifest, checkpoint)
    scene.display.note(
        f"{manifest.release} is signed: {len(manifest.artifacts)} artifacts, {len(manifest.train_graphs)} train graphs"
    )
    return manifest


def wait_for_rollout(scene: Scene, rollout_id: str) -> Rollout:
    """Wait until a rollout is over or paused, telling its stages, and return it."""
    stage = -1

    def is_over() -> bool:
        nonlocal stage
        rollout = scene.fleet.service.rollout(rollout_id)
        if rollout.stage != stage and rollout.state is RolloutState.RUNNING:
            stage = rollout.stage
            names = ", ".join(sorted(n for n, e in rollout.executions.items() if e.stage == stage))
            scene.display.note(f"stage {rollout.plan.stages[stage].name}: {names}")
            scene.watch.mark(f"{rollout.release} {rollout.plan.stages[stage].name}")
        return rollout.state.is_terminal or rollout.state is RolloutState.PAUSED

    scene.watch.wait(
        f"the rollout {rollout_id} to end",
        is_over,
        timeout_s=2 * STAGE_TIMEOUT_S,
        found=lambda: str(scene.fleet.service.rollout(rollout_id).state),
    )
    rollout = scene.fleet.service.rollout(rollout_id)
    scene.display.note(f"rollout {rollout.state.value}" + (f": {rollout.reason}" if rollout.reason else ""))
    return rollout


def wait_for_windows(scene: Scene, release: str, phase: str, names: list[str], each: int) -> None:
    """Wait until each of these devices has sent *each* full windows of a release in a phase."""

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
        timeout_s=STAGE_TIMEOUT_S,
        found=lambda: f"{sent()} in all",
    )


def accuracy_in(scene: Scene, release: str, phase: str, names: list[str]) -> float:
    """Return the accuracy over the first full window of each of these devices in a phase.

    Raises:
        DemoError: One of them has sent none.
    """
    windows = full_windows(
        scene.watch.seen(), release=release, phase=phase, devices=names, samples=scene.settings.window_samples, each=1
    )
    accuracy = accuracy_of(windows)
    if accuracy is None:
        raise DemoError(
            f"expected a labelled window of {release} from every device while {phase}, found none from some"
        )
    return accuracy
