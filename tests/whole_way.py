"""A world for one kind of output, the whole way: real releases, a real service, real agents, and time that is told.

Everything is what a fleet runs: torch trains, the compilers compile, a TUF repository is signed, the service has its
thread and its HTTP server on loopback, each agent has its threads, its slots on disk and its runtime. Two things are
not: messages go over a broker in memory, and the clocks of the service and of the agents stand still until a test moves
them. Each release is tried in the agent's own process, by the fake of that seam.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hedgerow.checkpoint import load_checkpoint, save_checkpoint
from hedgerow.client.agent import Agent
from hedgerow.client.answer import Answer
from hedgerow.client.presence import presence_will
from hedgerow.client.runtimes import LoadedModel, load_runtime
from hedgerow.client.settings import AgentSettings
from hedgerow.client.source import Sample, SourceContext
from hedgerow.client.trial import DirectTrials
from hedgerow.compile import Budget, CompileWorkers, compile_checkpoint
from hedgerow.fleet.commands.fleet import make_fleet
from hedgerow.fleet.folder import FleetFolder
from hedgerow.fleet.records import TrainingRun
from hedgerow.fleet.retrain.loop import RetrainLoop
from hedgerow.fleet.retrain.policy import RetrainPolicy
from hedgerow.fleet.retrain.run import Retrainer, RetrainResult, RetrainSettings
from hedgerow.fleet.retrain.wire_round import TrainingExchange
from hedgerow.fleet.rollout.plan import RolloutPlan
from hedgerow.fleet.rollout.state import Rollout, RolloutState
from hedgerow.fleet.service.fleet_service import FleetService
from hedgerow.fleet.settings import FleetSettings
from hedgerow.fleet.trust.catalogue import FolderCatalogue
from hedgerow.fleet.trust.checkpoints import keep_checkpoint
from hedgerow.fleet.trust.releases import create_release
from hedgerow.fleet.web.api import create_app
from hedgerow.fleet.web.server import HttpServer
from hedgerow.manifest.release import Manifest, blob_path
from hedgerow.memory_link import MemoryBroker
from hedgerow.server.training import train_task
from hedgerow.weights import Arrays, decode_arrays
from hedgerow.window import Window
from hedgerow.wire.execution import ExecutionState
from tests.output_tasks import TASKS, met
from tests.processes import wait_until

FLEET = "fleet"
ONNX, TFLITE, CORE_ML = "raspberry-pi-4", "android-arm64", "iphone-15"
TARGETS = (ONNX, TFLITE, CORE_ML)
RUNTIMES = {ONNX: "onnxruntime", TFLITE: "litert"}
DEVICES = {"pi-0": ONNX, "pi-1": ONNX, "phone-0": TFLITE, "phone-1": TFLITE}
WINDOW = 100
HEALTHY_AFTER_S = 5.0
MOST_WINDOWS = 60
WITHIN_S = 120.0
"""How long a slow machine may take for one step."""
ROUNDS = 12
TASK_FILE = Path(__file__).with_name("output_tasks.py")
RETRAIN_TASKS = {"reconstruction": "moved_reconstruction"}
"""Kind -> the task that devices train again, where it is another one: a threshold is measured on held-out samples,
which must be of the world that the release is for."""


class Clock:
    """Unix seconds that nobody but a test moves; near the machine's, since signatures end by that."""

    def __init__(self) -> None:
        self.now = float(int(time.time()))

    def __call__(self) -> float:
        return self.now


class Device:
    """A real agent, which is asked and taught one sample after another."""

    def __init__(self, settings: AgentSettings, broker: MemoryBroker, clock: Clock) -> None:
        self.name, self.target = settings.device, settings.target
        self._asked: SimpleQueue[Sequence[Sample]] = SimpleQueue()
        self._answers: SimpleQueue[list[Answer | None]] = SimpleQueue()
        link = broker.connect(self.name, will=presence_will(settings, "boot"))
        self.agent = Agent(settings, link, self._source, boot="boot", trials=DirectTrials(), clock=clock, timer=clock)
        self._thread = threading.Thread(target=self.agent.run, name=self.name)
        self._thread.start()

    def _source(self, _context: SourceContext) -> Any:
        while True:
            answers = []
            for sample in self._asked.get():
                answer = yield sample
                answers.append(answer)
            self._answers.put(answers)

    @property
    def release(self) -> str | None:
        """What serves."""
        return self.agent.active.release

    def take(self, samples: Sequence[Sample]) -> list[Answer | None]:
        """Serve or learn samples; return the answers."""
        self._asked.put(samples)
        return self._answers.get(timeout=WITHIN_S)

    def stop(self) -> None:
        self.agent.stop()
        # The agent looks whether it is to stop after each sample; this one teaches nothing.
        self._asked.put([Sample({"x": np.zeros(1, np.float32)}, use="learn")])
        self._thread.join(10)
        assert not self._thread.is_alive()


class SeenExchange(TrainingExchange):
    """Keeps what each device sent, round by round."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[tuple[int, str], Arrays] = {}

    def update(self, run: str, number: int, device: str, sha256: str) -> bytes | None:
        payload = super().update(run, number, device, sha256)
        if payload is not None:
            self.seen[number, device] = decode_arrays(payload, "update", limit_bytes=10**7)
        return payload


@dataclass(frozen=True)
class Served:
    """What a device met in one window: inputs, target values, and the window that it sent."""

    device: str
    x: NDArray[np.float32]
    wanted: Any
    window: Window


class World:
    """A fleet of one kind of output; nothing is released yet.

    Args:
        folder: Where everything is.
        kind: Of the task.
        workers: Warm compile processes.
        stack: Takes what must be stopped.
    """

    def __init__(self, folder: Path, kind: str, workers: CompileWorkers, stack: ExitStack) -> None:
        self.kind, self.task, self._place, self._workers = kind, TASKS[kind], folder, workers
        self.clock, self.broker, self.exchange = Clock(), MemoryBroker(), SeenExchange()
        self.folder, self._seed, self._builds = FleetFolder(folder / "fleet"), 100, 0
        make_fleet(self.folder, FLEET, now=self.clock())
        self.catalogue = FolderCatalogue(self.folder)
        # Time is moved in steps, while the threads take the time that the machine gives them.
        settings = FleetSettings(fleet=FLEET, tick_s=0.01, presence_silence_s=1e6)
        self.service = FleetService(
            settings, self.broker.connect("service"), self.folder.database, self.catalogue, clock=self.clock
        )
        server = HttpServer(create_app(self.service, self.folder, self.exchange), "127.0.0.1", 0).start()
        stack.callback(server.stop)
        stack.enter_context(self.service)
        self.retrained: list[RetrainResult] = []
        self.events: list[object] = []
        self.service.subscribe(self.events.append)
        self._models: dict[tuple[str, str], LoadedModel] = {}
        self._retrainer = Retrainer(
            service=self.service,
            exchange=self.exchange,
            folder=self.folder,
            task=f"{TASK_FILE}:{RETRAIN_TASKS.get(kind, kind)}",
            settings=RetrainSettings(rounds=ROUNDS, minimum_devices=len(DEVICES), max_drop=0.1),
            workers=workers,
            clock=self.clock,
        )
        policy = RetrainPolicy(needs_approval=True)
        self.loop = RetrainLoop(self.service, policy, self._retrain, clock=self.clock, look_s=0.05)
        stack.enter_context(self.loop)
        self.devices = {name: self._device(name, target, server.url, stack) for name, target in DEVICES.items()}
        self.until(lambda: len([device for device in self.service.devices() if device.target]) == len(DEVICES))

    def _device(self, name: str, target: str, url: str, stack: ExitStack) -> Device:
        settings = AgentSettings(
            device=name,
            fleet=FLEET,
            target=target,
            broker_host="localhost",
            broker_port=1883,
            server=url,
            trusted_root=self.folder.tuf_metadata / "1.root.json",
            state_folder=self._place / name,
            window_samples=WINDOW,
            healthy_after_s=HEALTHY_AFTER_S,
        )
        device = Device(settings, self.broker, self.clock)
        stack.callback(device.stop)
        return device

    def _retrain(self, *, release: str, trigger: str, run_id: str | None) -> str | None:
        self.retrained.append(self._retrainer.retrain(release, trigger=trigger, run_id=run_id))
        return self.retrained[-1].release

    # Time

    def until(self, condition: Callable[[], object]) -> None:
        """Let time pass until a condition holds: a second at a time, and no faster than threads can follow."""

        def holds() -> bool:
            found = bool(condition())
            if not found:
                self.clock.now += 1
                time.sleep(0.02)
            return found

        wait_until(holds, timeout_s=WITHIN_S)

    # Releases

    def train(self) -> Path:
        """Train the task; return the checkpoint's folder."""
        return train_task(self.task, self._place / "run", rounds=20, clients=4).checkpoint_folder

    def untrained(self, checkpoint: Path) -> Path:
        """Return a checkpoint like one that was trained, with weights that nobody has trained."""
        found, rng = load_checkpoint(checkpoint), np.random.default_rng(7)
        weights = {name: rng.normal(0, 0.5, array.shape).astype(array.dtype) for name, array in found.weights.items()}
        save_checkpoint(self._place / "untrained", replace(found, weights=weights, run="untrained"))
        return self._place / "untrained"

    def build(self, checkpoint: Path, targets: Sequence[str] = TARGETS) -> Path:
        """Compile for targets; return the build's folder."""
        self._builds += 1
        out = self._place / f"build-{self._builds}"
        reference = f"{TASK_FILE}:{self.kind}"
        compile_checkpoint(reference, checkpoint, targets, out, budget=Budget(max_drop=0.1), workers=self._workers)
        return out

    def sign(self, build: Path, checkpoint: Path) -> Manifest:
        """Make the next release."""
        manifest = create_release(self.folder, "kind", build, now=self.clock())
        keep_checkpoint(self.folder, manifest, checkpoint)
        return manifest

    def answers(self, release: str, target: str, x: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
        """Return what the signed artifact of a target gives, in the runtime of the target, asked by nobody else."""
        if (release, target) not in self._models:
            artifact = self.catalogue.manifest(release).artifact(target)
            assert artifact is not None
            path, sha256 = blob_path(release, artifact.blob.sha256), artifact.blob.sha256
            file = (self.folder.tuf_targets / path).with_name(f"{sha256}.{sha256}")
            self._models[release, target] = load_runtime(artifact.runtime).load(file, artifact)
        return dict(self._models[release, target].predict({"x": x}))

    # What devices do

    def serve(self, device: str, *, is_moved: bool = False) -> Served:
        """Let a device meet a whole window of samples, and wait for the service to have it."""
        self._seed += 10
        self.clock.now += 10
        x, wanted = met(self.kind, WINDOW, self._seed, is_moved=is_moved)
        release, known = self.devices[device].release, self._last_windows(device)
        answers = self.devices[device].take(samples(x, wanted))
        assert [answer.release if answer else None for answer in answers] == [release] * WINDOW
        wait_until(lambda: self._last_windows(device) != known, timeout_s=WITHIN_S)
        return Served(device, x, wanted, self._last_windows(device)[0])

    def _last_windows(self, device: str) -> list[Window]:
        """Return a device's last window, if it has sent one: of all, the service keeps but some."""
        return [stored.window for stored in self.service.windows(device)[-1:]]

    def teach(self, device: str, count: int, *, is_moved: bool = False) -> None:
        """Give a device samples to learn from."""
        self._seed += 10
        learned = samples(*met(self.kind, count, self._seed, is_moved=is_moved), use="learn")
        assert self.devices[device].take(learned) == [None] * count

    def roll_out(self, release: str, plan: RolloutPlan) -> tuple[Rollout, list[Served]]:
        """Roll a release out until it is decided; its devices meet samples as soon as they have it."""
        return self.decided(self.service.start_rollout(release, plan).id)

    def decided(self, rollout: str, *, is_moved: bool = False) -> tuple[Rollout, list[Served]]:
        """Wait until a rollout is decided; devices that have its release meet samples meanwhile."""
        served = []

        def found() -> Rollout:
            return self.service.rollout(rollout)

        def is_over() -> bool:
            return found().state is not RolloutState.RUNNING

        while not is_over():
            assert len(served) < MOST_WINDOWS, f"the gate does not decide: {found().reason}"
            self.until(lambda: is_over() or self._have(found()))
            wait_until_compared()
            for device in self._have(found()):
                if is_over():
                    break
                served.append(self.serve(device, is_moved=is_moved))
        return found(), served

    def _have(self, rollout: Rollout) -> list[str]:
        """Return the devices of the stages so far, if all of them run the release by now; else none."""
        begun = {name: record for name, record in rollout.executions.items() if record.stage <= rollout.stage}
        return sorted(begun) if {record.state for record in begun.values()} == {ExecutionState.SUCCEEDED} else []

    def until_all_run(self, release: str) -> None:
        """Wait until every device runs a release, has done all that was asked, and the service knows."""

        def have_settled() -> bool:
            wanted = {name: self.service.desired(name) for name in self.devices}
            versions = {name: desired.version if desired else 0 for name, desired in wanted.items()}
            known = self.service.devices()
            return {device.release for device in known} == {release} and versions == {
                device.name: device.desired_version for device in known
            }

        self.until(have_settled)
        wait_until_compared()
        assert {device.release for device in self.devices.values()} == {release}

    def run(self) -> TrainingRun:
        """Return the only retraining."""
        (run,) = self.service.runs()
        return run


def samples(x: NDArray[np.float32], wanted: Any, use: Any = "serve") -> list[Sample]:
    """Return inputs as a device's source gives them, one by one, each with its target value."""
    values = list(wanted)
    if isinstance(wanted, Mapping):
        values = [{name: rows[place] for name, rows in wanted.items()} for place in range(len(x))]
    return [Sample({"x": row}, use=use, target_value=value) for row, value in zip(x, values, strict=True)]


def wait_until_compared() -> None:
    """Wait until models are compared or no longer compared, as was asked: an agent begins that before it reports."""
    wait_until(lambda: not any(thread.name == "compare" for thread in threading.enumerate()), timeout_s=WITHIN_S)
