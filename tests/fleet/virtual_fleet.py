"""A fleet in memory for the tests of the service: releases without files, virtual devices, a clock that is told."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hedgerow.fleet.rollout.gates import GatePlan
from hedgerow.fleet.rollout.plan import AbortRule, RolloutPlan
from hedgerow.fleet.rollout.stages import StagePlan
from hedgerow.fleet.service.fleet_service import FleetService
from hedgerow.fleet.settings import FleetSettings
from hedgerow.fleet.store.reading import StoreReader
from hedgerow.fleet.trust.catalogue import MemoryCatalogue
from hedgerow.fleet.virtual_device import VirtualDevice
from hedgerow.link import LastWill
from hedgerow.manifest.artifact import Artifact
from hedgerow.manifest.content import Blob, Tensor
from hedgerow.manifest.release import Lineage, Manifest
from hedgerow.memory_link import Deliver, MemoryBroker
from hedgerow.model_schema import ModelSchema
from hedgerow.outputs import Classes, Outputs
from hedgerow.reference import FeatureReference, Reference
from hedgerow.schema import TensorSpec
from hedgerow.score_counts import PairedScores, ScoreCounts
from hedgerow.window import FeatureCounts, Window
from hedgerow.wire.device import Presence
from hedgerow.wire.topics import Channel, device_topic
from tests.scores import scored

TARGETS = ("raspberry-pi-4", "android-arm64")
BLOB = Blob("0" * 64, 1)
SCHEMA = ModelSchema((TensorSpec("x", (1,)),), (TensorSpec("probabilities", (2,)),), Outputs.of(Classes(("no", "yes"))))
REFERENCE = Reference(
    (
        FeatureReference("x", (0.0,), (500, 500)),
        FeatureReference("output.confidence", (0.8,), (200, 800)),
        FeatureReference("output.label", (0.5,), (500, 500), ("no", "yes")),
    )
)
ONE_STAGE = RolloutPlan(stages=(StagePlan("fleet", 1.0),), gate=None)
CANARY = RolloutPlan(
    stages=(StagePlan("canary", 0.25), StagePlan("fleet", 1.0)),
    abort_rules=(AbortRule("ALL", 0.5, 1),),
    gate=GatePlan(minimum_samples=100, maximum_accuracy_drop=0.1),
)


def make_manifest(release: str, *, targets=TARGETS, accuracy: float = 0.95, parent: str | None = None) -> Manifest:
    name, number = release.split("@")
    artifacts = tuple(
        Artifact(
            target=target,
            format="onnx",
            runtime="onnxruntime",
            blob=BLOB,
            inputs=(Tensor("x", "x", (-1, 1), "float32"),),
            outputs=(Tensor("probabilities", "probabilities", (-1, 2), "float32"),),
            recipe=(),
            golden=None,
            golden_tolerance=0.0,
            metrics={"accuracy": accuracy},
            checks={},
        )
        for target in targets
    )
    lineage = Lineage(parent=parent, run="r", checkpoint_sha256="0" * 64, data_fingerprint="", code_version="0")
    return Manifest(
        name=name,
        number=int(number),
        task="toy",
        created_at="2026-01-01T00:00:00+00:00",
        model_schema=SCHEMA,
        artifacts=artifacts,
        train_graphs=(),
        reference=BLOB,
        lineage=lineage,
    )


def make_window(release, *, samples=100, correct=95, x=None, now=1000.0, paired=None, confident=80) -> Window:
    half = samples // 2
    counts = x if x is not None else (half, samples - half)
    return Window(
        release=release,
        index=0,
        started_at=now - 1,
        ended_at=now,
        samples=samples,
        features={
            "x": FeatureCounts(counts),
            "output.confidence": FeatureCounts((samples - confident * samples // 100, confident * samples // 100)),
            "output.label": FeatureCounts((half, samples - half)),
        },
        scores=ScoreCounts() if correct is None else scored(correct, samples),
        paired=paired or PairedScores(),
    )


class VirtualFleet:
    """A broker, a service that was not started, and devices; :meth:`settle` lets everything be said and heard."""

    def __init__(
        self, folder: Path, *, devices: int = 8, deliver: Deliver | None = None, command_timeout_s=20.0, **settings
    ) -> None:
        self.command_timeout_s = command_timeout_s
        self.now = 1000.0
        self.folder = folder
        self.settings = FleetSettings(**settings)
        self.broker = MemoryBroker(deliver)
        self.catalogue = MemoryCatalogue()
        for number in (1, 2, 3):
            self.catalogue.add(make_manifest(f"toy@{number}"), REFERENCE)
        self.events = []
        self.devices: dict[str, VirtualDevice] = {}
        self.start_service()
        for index in range(devices):
            self.add_device(f"device-{index}", TARGETS[index % 2])

    def start_service(self) -> FleetService:
        """Start a service on the store; call it again for a restart."""
        self.link = self.broker.connect("fleet-service")
        self.service = FleetService(
            self.settings,
            self.link,
            self.folder / "fleet.db",
            self.catalogue,
            clock=lambda: self.now,
            command_timeout_s=self.command_timeout_s,
        )
        self.service.subscribe(self.events.append)
        return self.service

    def crash_service(self) -> None:
        """End the service as a power cut would: nothing of its memory is left."""
        self.broker.break_link("fleet-service")
        self.service.stop()

    def add_device(self, name: str, target: str, **script) -> VirtualDevice:
        will = LastWill(device_topic("fleet", name, Channel.PRESENCE), Presence(online=False, boot="boot-1").encode())
        self.devices[name] = VirtualDevice(name, target, self.broker.connect(name, will=will), **script)
        return self.devices[name]

    def turn(self) -> int:
        return self.service.turn(0.0) + sum(device.turn() for device in self.devices.values())

    def settle(self, *, seconds: float = 0.0, step: float = 1.0) -> None:
        """Let messages flow until all is quiet; then let time pass, step by step."""
        while self.turn():
            pass
        end = self.now + seconds
        while self.now < end:
            self.now += step
            while self.turn():
                pass

    def send_windows(self, release: str, *, only: set[str] | None = None, **window) -> None:
        """Let every device that runs *release* send a window."""
        for device in self.devices.values():
            if device.release == release and (only is None or device.name in only):
                device.send_window(make_window(release, now=self.now, **window))
        self.settle()

    def releases(self) -> list[str | None]:
        return [device.release for device in self.devices.values()]

    @contextmanager
    def reader(self) -> Iterator[StoreReader]:
        """Read what the service has written."""
        reader = StoreReader(self.folder / "fleet.db")
        try:
            yield reader
        finally:
            reader.close()

    def roll_out(self, release: str, plan: RolloutPlan = ONE_STAGE) -> str:
        rollout = self.service.start_rollout(release, plan)
        self.settle()
        return rollout.id
