"""Retraining from target values of any form: real train graphs in both runtimes, real buffers, and a new release."""

import hashlib
import time
from pathlib import Path

import numpy as np
import pytest

from hedgerow.checkpoint import load_checkpoint
from hedgerow.client.buffer import LabelledBuffer
from hedgerow.client.runtimes import load_runtime
from hedgerow.client.trainer import train
from hedgerow.compile.build import BLOB_FOLDER
from hedgerow.fleet.commands.fleet import make_fleet
from hedgerow.fleet.folder import FleetFolder
from hedgerow.fleet.records import RunState
from hedgerow.fleet.retrain.run import Retrainer, RetrainSettings
from hedgerow.fleet.retrain.wire_round import TrainingExchange
from hedgerow.fleet.rollout.state import RolloutState
from hedgerow.fleet.service.fleet_service import FleetService
from hedgerow.fleet.settings import FleetSettings
from hedgerow.fleet.trust.catalogue import FolderCatalogue
from hedgerow.fleet.trust.checkpoints import checkpoint_folder, keep_checkpoint
from hedgerow.fleet.trust.releases import create_release
from hedgerow.fleet.virtual_device import VirtualDevice
from hedgerow.local_work import work_of_train_task
from hedgerow.manifest.content import Blob
from hedgerow.memory_link import MemoryBroker
from hedgerow.outputs.wanted import as_given
from hedgerow.weights import decode_arrays, encode_arrays
from hedgerow.wire.training import TrainUpdate
from tests.fleet.retrain.test_run import Fleet
from tests.fleet.virtual_fleet import ONE_STAGE
from tests.output_tasks import TASKS

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(600)]
RUNTIMES = {"a": ("x86-gateway", "onnxruntime"), "b": ("android-arm64", "litert")}
"""Device -> its target, and the runtime that it trains with."""


class Learners(Fleet):
    """A release of one kind of output, and devices that train on buffers of their own as agents do."""

    def __init__(self, folder: Path, kind: str) -> None:
        self.kind, self.place, self.samples = kind, folder, {}
        self.task = f"{Path(__file__).parents[2] / 'output_tasks.py'}:{kind}"
        self.folder = FleetFolder(folder / "fleet")
        make_fleet(self.folder, "fleet", now=time.time())
        self.manifest = self._release(folder)
        self.broker, self.exchange, self.updates = MemoryBroker(), TrainingExchange(), {}
        self.catalogue = FolderCatalogue(self.folder)
        link = self.broker.connect("fleet-service")
        self.service = FleetService(FleetSettings(tick_s=0.01), link, self.folder.database, self.catalogue)
        self.devices = [
            VirtualDevice(name, target, self.broker.connect(name), train=lambda task, n=name: self._train(task, n))
            for name, (target, _runtime) in RUNTIMES.items()
        ]
        self._learn()

    def _release(self, folder):
        from hedgerow.compile import Budget, compile_checkpoint
        from hedgerow.server.training import train_task

        run = train_task(TASKS[self.kind], folder / "run", rounds=1, clients=4)
        targets = [target for target, _runtime in RUNTIMES.values()]
        compile_checkpoint(self.task, run.checkpoint_folder, targets, folder / "build", budget=Budget(max_drop=0.2))
        manifest = create_release(self.folder, "kind", folder / "build", now=time.time())
        keep_checkpoint(self.folder, manifest, run.checkpoint_folder)
        return manifest

    def _learn(self):
        """Give each device half of the training data, as its source would."""
        data = TASKS[self.kind].data().train
        wanted = data.target_values
        for number, name in enumerate(RUNTIMES):
            buffer = LabelledBuffer(self.place / f"buffer-{name}")
            for place in range(number, len(data), 2):
                parts = {output: rows[place] for output, rows in wanted.items()} if isinstance(wanted, dict) else None
                value = parts if parts is not None else None if wanted is None else wanted[place]
                buffer.add({"x": data.inputs["x"][place]}, as_given(value))
            buffer.close()

    def _train(self, task, name):
        weights = decode_arrays(self.exchange.weights(task.run, task.round, task.token), "w", limit_bytes=10**8)
        manifest = self.catalogue.manifest(task.release)
        graph = next(found for found in manifest.train_graphs if found.runtime == RUNTIMES[name][1])
        step = load_runtime(graph.runtime).load_train_graph(
            self.place / "build" / BLOB_FOLDER / graph.blob.sha256, graph
        )
        work = work_of_train_task(task, name, batch_size=graph.batch_size)
        buffer = LabelledBuffer(self.place / f"buffer-{name}")
        with buffer.samples(manifest.model_schema) as samples:
            result = train(
                step,
                graph,
                samples,
                weights,
                epochs=work.epochs,
                learning_rate=work.learning_rate,
                rng=np.random.default_rng(work.order_seed),
            )
        buffer.close()
        payload = encode_arrays(result.weights)
        self.updates[(task.round, name)] = result
        self.exchange.accept(task.run, task.round, name, task.token, payload)
        blob = Blob(hashlib.sha256(payload).hexdigest(), len(payload))
        return TrainUpdate(
            run=task.run,
            round=task.round,
            state="done",
            examples=result.examples,
            metrics={"loss": result.loss, "seconds": 0.1},
            weights=blob,
        )

    def wait_for(self, is_true):
        deadline = time.monotonic() + 120
        while not is_true():
            assert time.monotonic() < deadline
            time.sleep(0.01)


@pytest.mark.parametrize("kind", ["labels", "values", "reconstruction", "several"])
def test_devices_train_a_release_again_from_their_own_target_values(tmp_path, kind):
    fleet = Learners(tmp_path, kind)
    with fleet.living():
        service = fleet.service
        fleet.wait_for(lambda: len([device for device in service.devices() if device.target]) == 2)
        first = service.start_rollout("kind@1", ONE_STAGE)
        fleet.wait_for(lambda: service.rollout(first.id).state is RolloutState.FINISHED)
        retrainer = Retrainer(
            service=service,
            exchange=fleet.exchange,
            folder=fleet.folder,
            task=fleet.task,
            settings=RetrainSettings(
                rounds=2, max_drop=0.2, plan=ONE_STAGE, minimum_devices=2, jobs=1, round_timeout_s=500
            ),
        )
        result = retrainer.retrain("kind@1")
        fleet.wait_for(lambda: service.rollout(result.rollout).state is RolloutState.FINISHED)

        assert (result.run.state, result.release) == (RunState.DONE, "kind@2")
        assert {device.release for device in fleet.devices} == {"kind@2"}
    last = [fleet.updates[(2, name)] for name in RUNTIMES]
    assert [update.examples for update in last] == [120, 120]
    for name in RUNTIMES:
        assert fleet.updates[(2, name)].loss < fleet.updates[(1, name)].loss
    # The mean of the last round's updates is the new checkpoint, and its score is the new release's.
    kept = load_checkpoint(checkpoint_folder(fleet.folder, "kind@2")).weights
    for key, value in kept.items():
        np.testing.assert_allclose(value, (last[0].weights[key] + last[1].weights[key]) / 2, atol=1e-5)
    before, after = fleet.manifest, fleet.catalogue.manifest("kind@2")
    key = after.model_schema.answers.score_key
    assert after.metrics[key] >= before.metrics[key]
    assert [artifact.target for artifact in after.artifacts] == [target for target, _runtime in RUNTIMES.values()]
