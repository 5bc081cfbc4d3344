"""The whole retraining, with virtual devices that train nothing: what is made, kept, recorded and rolled out."""

import hashlib
import logging
import re
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from hedgerow.checkpoint import load_checkpoint
from hedgerow.fleet.commands.fleet import make_fleet
from hedgerow.fleet.drift.alert import Alert
from hedgerow.fleet.errors import RetrainError
from hedgerow.fleet.folder import FleetFolder
from hedgerow.fleet.records import RunState
from hedgerow.fleet.retrain.run import Retrainer, RetrainSettings
from hedgerow.fleet.retrain.wire_round import TrainingExchange
from hedgerow.fleet.rollout.gates import GatePlan
from hedgerow.fleet.rollout.state import RolloutState
from hedgerow.fleet.service.fleet_service import FleetService
from hedgerow.fleet.settings import FleetSettings
from hedgerow.fleet.store.reading import StoreReader
from hedgerow.fleet.trust.catalogue import FolderCatalogue
from hedgerow.fleet.trust.checkpoints import checkpoint_folder, keep_checkpoint
from hedgerow.fleet.trust.releases import create_release
from hedgerow.fleet.virtual_device import VirtualDevice
from hedgerow.manifest.content import Blob
from hedgerow.memory_link import MemoryBroker
from hedgerow.progress_display import progress_log
from hedgerow.weights import decode_arrays, encode_arrays
from hedgerow.window import FeatureCounts, Window
from hedgerow.wire.training import TrainUpdate
from tests.fleet.virtual_fleet import ONE_STAGE
from tests.root.documents import MANIFEST
from tests.scores import scored

pytestmark = pytest.mark.heavy
TASK = f"{Path(__file__).parents[3] / 'examples' / 'digits' / 'task.py'}:task"
TARGET = "x86-gateway"


class Fleet:
    """A fleet folder with one release, a service, and devices that answer training rounds with what they were sent."""

    def __init__(self, folder):
        self.folder = FleetFolder(folder / "fleet")
        make_fleet(self.folder, "fleet", now=time.time())
        self.manifest = self._release(folder)
        self.broker, self.exchange, self.tasks = MemoryBroker(), TrainingExchange(), []
        self.catalogue = FolderCatalogue(self.folder)
        link = self.broker.connect("fleet-service")
        self.service = FleetService(FleetSettings(tick_s=0.01), link, self.folder.database, self.catalogue)
        self.devices = [
            VirtualDevice(name, TARGET, self.broker.connect(name), train=lambda task, n=name: self._train(task, n))
            for name in ("a", "b")
        ]

    def _release(self, folder):
        from hedgerow.compile import Budget, compile_checkpoint
        from hedgerow.server.training import train_task
        from hedgerow.task import load_task

        run = train_task(load_task(TASK), folder / "run", rounds=3, clients=2)
        compile_checkpoint(TASK, run.checkpoint_folder, [TARGET], folder / "build", budget=Budget(max_drop=0.1))
        manifest = create_release(self.folder, "digits", folder / "build", now=time.time())
        keep_checkpoint(self.folder, manifest, run.checkpoint_folder)
        return manifest

    def _train(self, task, name):
        self.tasks.append((name, task))
        weights = decode_arrays(self.exchange.weights(task.run, task.round, task.token), "w", limit_bytes=10**8)
        payload = encode_arrays({key: value * 1.001 for key, value in weights.items()})
        self.exchange.accept(task.run, task.round, name, task.token, payload)
        blob = Blob(hashlib.sha256(payload).hexdigest(), len(payload))
        return TrainUpdate(run=task.run, round=task.round, state="done", examples=10, weights=blob)

    def window(self, release, first_bin):
        features = {}
        for feature in self.catalogue.reference(release).features:
            counts = [0] * len(feature.counts)
            counts[0 if first_bin else -1] = 100
            features[feature.name] = FeatureCounts(tuple(counts))
        now = time.time()
        return Window(release=release, index=0, started_at=now, ended_at=now, samples=100, features=features)

    @contextmanager
    def living(self):
        stop = threading.Event()

        def live():
            while not stop.wait(0.01):
                for device in self.devices:
                    device.turn()

        thread = threading.Thread(target=live)
        with self.service:
            thread.start()
            try:
                yield
            finally:
                stop.set()
                thread.join()

    def retrainer(self, settings, **others):
        return Retrainer(
            service=self.service,
            exchange=self.exchange,
            folder=self.folder,
            task=TASK,
            settings=settings,
            **others,
        )

    def wait_for(self, is_true):
        deadline = time.monotonic() + 20
        while not is_true():
            assert time.monotonic() < deadline
            time.sleep(0.01)


@pytest.fixture
def fleet(tmp_path):
    return Fleet(tmp_path)


def test_a_retraining_makes_a_release_that_knows_the_world_it_was_trained_in(fleet):
    settings = RetrainSettings(rounds=2, max_drop=0.1, plan=ONE_STAGE)
    with fleet.living():
        service = fleet.service
        fleet.wait_for(lambda: len([d for d in service.devices() if d.target]) == 2)
        first = service.start_rollout("digits@1", ONE_STAGE)
        fleet.wait_for(lambda: service.rollout(first.id).state is RolloutState.FINISHED)
        for device, first_bin in zip(fleet.devices, (True, False), strict=True):
            device.send_window(fleet.window("digits@1", first_bin))
        fleet.wait_for(lambda: len(service.windows()) == 2)
        result = fleet.retrainer(settings).retrain("digits@1", trigger="drift-1")
        fleet.wait_for(lambda: service.rollout(result.rollout).state is RolloutState.FINISHED)
        assert {device.release for device in fleet.devices} == {"digits@2"}
        assert (result.release, len(result.history)) == ("digits@2", 2)
        manifest = fleet.catalogue.manifest("digits@2")
        assert (manifest.lineage.parent, "drift-1" in manifest.lineage.note) == ("digits@1", True)
        image_mean = fleet.catalogue.reference("digits@2").feature("image.mean")
        assert (image_mean.counts[0], image_mean.counts[-1], sum(image_mean.counts)) == (100, 100, 200)
        assert image_mean.edges == fleet.catalogue.reference("digits@1").feature("image.mean").edges
        reader = StoreReader(fleet.folder.database)
        baselines = reader.baselines("digits@2")
        reader.close()
        assert baselines["a"]["image.mean"][0] == baselines["b"]["image.mean"][-1] == 100
        assert "output.label" not in baselines["a"]
        assert load_checkpoint(checkpoint_folder(fleet.folder, "digits@2")).parent == "digits@1"
        (run,) = service.runs()
        assert (run.state, run.release, run.trigger) == (RunState.DONE, "digits@2", "drift-1")
        # A run that was killed after its release was signed goes on with the rollout.
        again = fleet.retrainer(settings).retrain("digits@1", run_id=run.id)
        assert (again.release, again.history, len(service.runs())) == ("digits@2", (), 1)


def test_what_was_asked_of_the_parent_stays_asked_and_old_labels_of_changed_devices_are_left_out(fleet):
    asked = GatePlan(floor=0.6, maximum_accuracy_drop=0.07)
    settings, now = RetrainSettings(rounds=1, max_drop=0.1), time.time()
    with fleet.living():
        service = fleet.service
        fleet.wait_for(lambda: len([d for d in service.devices() if d.target]) == 2)
        first = service.start_rollout("digits@1", replace(ONE_STAGE, gate=asked))
        fleet.wait_for(lambda: {d.release for d in service.devices()} == {"digits@1"})
        for device in fleet.devices:
            device.send_window(replace(fleet.window("digits@1", True), scores=scored(99, 100)))
        fleet.wait_for(lambda: service.rollout(first.id).state is RolloutState.FINISHED)
        # A later one without a gate asks nothing, and takes nothing back.
        again = service.start_rollout("digits@1", ONE_STAGE)
        fleet.wait_for(lambda: service.rollout(again.id).state is RolloutState.FINISHED)
        service.raise_alert(changed("drift-1", "digits@1", {"device:a": now - 500}))
        service.raise_alert(changed("drift-2", "digits@9", {"device:b": now - 500}))
        service.raise_alert(changed("drift-3", "digits@1", {"device:a": now - 5000}))
        result = fleet.retrainer(settings, clock=lambda: now).retrain("digits@1", trigger="drift-1")
        plan = service.rollout(result.rollout).plan
    assert plan.gate == asked
    assert [stage.name for stage in plan.stages] == ["canary", "fleet"]
    ages_s = {name: task.maximum_age_s for name, task in fleet.tasks}
    assert ages_s == {"a": 500, "b": None}


def changed(name, release, began):
    return Alert(
        id=name,
        release=release,
        raised_at=time.time(),
        devices=tuple(where.removeprefix("device:") for where in began),
        features=(),
        findings=(),
        windows=2,
        began=began,
    )


def test_a_service_logs_every_stage_round_and_artifact_of_a_retraining(fleet, caplog):
    settings = RetrainSettings(rounds=2, max_drop=0.1, plan=ONE_STAGE)
    report = progress_log(logging.getLogger("hedgerow.fleet.test"))
    with fleet.living(), caplog.at_level(logging.INFO, "hedgerow.fleet"):
        fleet.wait_for(lambda: len([d for d in fleet.service.devices() if d.target]) == 2)
        first = fleet.service.start_rollout("digits@1", ONE_STAGE)
        fleet.wait_for(lambda: fleet.service.rollout(first.id).state is RolloutState.FINISHED)
        result = fleet.retrainer(settings, report=report).retrain("digits@1")

    said = "\n".join(re.sub(r"[\d,.]+ bytes.*| \(\d+ s\)", "", line) for line in caplog.messages)
    run = result.run.id
    wanted = [
        f"{run}: training digits@1 again on the devices, 2 rounds",
        "round 1: 2 of 2",
        "round 2: 2 of 2",
        "train digits: 2 of 2",
        f"{run}: compiling for x86-gateway",
        "compile x86-gateway: ",
        f"{run}: digits@2 is signed; rolling it out",
    ]
    places = [said.find(line) for line in wanted]
    assert -1 not in places, said
    assert places == sorted(places)


def test_a_retraining_that_cannot_be_is_recorded_with_its_reason(fleet):
    from hedgerow.server.errors import NotEnoughDevicesError

    settings = RetrainSettings(rounds=1, wait_s=0.2)
    with fleet.living():
        with pytest.raises(NotEnoughDevicesError):
            fleet.retrainer(settings).retrain("digits@1")
        (run,) = fleet.service.runs()
    assert (run.state, run.release) == (RunState.FAILED, None)
    assert "devices" in run.reason


def test_a_retraining_whose_last_round_nobody_trains_stops_tells_and_leaves_nothing_to_roll_out(fleet):
    from hedgerow.server.errors import NoUpdateError

    def gives_up(task, name):
        if task.round == 1:
            return fleet._train(task, name)
        return TrainUpdate(run=task.run, round=task.round, state="failed", reason="no memory")

    for device in fleet.devices:
        device.train = lambda task, name=device.name: gives_up(task, name)
    settings = RetrainSettings(rounds=2, max_drop=0.1, plan=ONE_STAGE)
    with fleet.living():
        service = fleet.service
        fleet.wait_for(lambda: len([d for d in service.devices() if d.target]) == 2)
        first = service.start_rollout("digits@1", ONE_STAGE)
        fleet.wait_for(lambda: service.rollout(first.id).state is RolloutState.FINISHED)
        with pytest.raises(NoUpdateError):
            fleet.retrainer(settings).retrain("digits@1")
        (run,) = service.runs()
        assert [rollout.id for rollout in service.rollouts()] == [first.id]
    assert (run.state, run.release) == (RunState.FAILED, None)
    assert "round 2" in run.reason
    assert "2 raised; a: failed: no memory" in run.reason
    folder = fleet.folder.path / "runs" / run.id
    assert not (folder / "checkpoint").exists()
    assert not (folder / "build").exists()
    assert list(fleet.catalogue.releases()) == ["digits@1"]


def test_a_task_with_state_is_not_trained_on_devices_and_the_refusal_says_what_to_do():
    parent = replace(MANIFEST, task="zoo-streaming")
    retrainer = Retrainer(service=None, exchange=None, folder=None, task="hedgerow.examples.zoo.streaming:task")

    with pytest.raises(RetrainError) as caught:
        retrainer._train(None, parent)
    assert str(caught.value) == (
        "expected a task that devices can train, found the state state of 'zoo-streaming', which a train graph has no "
        "place for; train it with hedgerow train, and release it anew"
    )


def test_a_release_of_other_bins_is_not_trained_again_and_no_device_works_for_it(fleet, monkeypatch):
    whole = fleet.catalogue.reference("digits@1")
    first = whole.features[0]
    others = replace(first, edges=first.edges[1:], counts=first.counts[1:])
    monkeypatch.setattr(fleet.catalogue, "reference", lambda _: replace(whole, features=(others, *whole.features[1:])))

    with pytest.raises(RetrainError) as caught:
        fleet.retrainer(RetrainSettings(plan=ONE_STAGE)).retrain("digits@1")

    (run,) = fleet.service.runs()
    assert (run.state, run.reason) == (RunState.FAILED, str(caught.value))
    assert str(caught.value) == (
        f"expected {len(first.counts)} bins of 'image.mean' in the reference of digits@1, as the task's data has them, "
        f"found {len(others.counts)}; it was compiled from other data or by another version: compile its checkpoint "
        "again, release that, and roll it out first"
    )
    assert fleet.tasks == []
