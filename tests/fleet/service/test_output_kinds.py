"""Every kind of output through the service: what devices count decides rollouts, raises alerts and names its score."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hedgerow.client.loading import ReadyModel
from hedgerow.client.serving import ActiveModel
from hedgerow.client.slot_folders import OpenSlot
from hedgerow.decode import decode_json, encode_json
from hedgerow.features import input_features
from hedgerow.fleet.drift.alert import AlertKind
from hedgerow.fleet.rollout.gates import GatePlan
from hedgerow.fleet.rollout.state import RolloutState
from hedgerow.fleet.service.events import ReleaseProven
from hedgerow.model_schema import ModelSchema
from hedgerow.outputs import Outputs
from hedgerow.reference import build_reference
from tests.fleet.virtual_fleet import CANARY, ONE_STAGE, VirtualFleet, make_manifest
from tests.given import given
from tests.output_tasks import ANSWERS, NAMES, TASKS, numbers

GATE = GatePlan(minimum_samples=100, maximum_accuracy_drop=0.1, maximum_disagreement=0.2)
PLAN = replace(CANARY, gate=GATE, gate_timeout_s=600.0)
GOOD, BAD = 0.95, 0.5


def truth(kind: str, x: np.ndarray) -> dict[str, np.ndarray]:
    """Return the target values of inputs by output."""
    wanted = (x[:, 0] > 2).astype(np.int64) if kind == "reconstruction" else ANSWERS[kind](x)
    return dict(wanted) if isinstance(wanted, dict) else {next(iter(TASKS[kind].answers)): wanted}


class Model:
    """Right on a share of the inputs, which *column* of them chooses."""

    def __init__(self, kind: str, outputs: Outputs, share: float, column: int) -> None:
        self.kind, self.outputs, self.share, self.column = kind, outputs, share, column

    def predict(self, inputs):
        x = inputs["x"]
        is_right = (np.abs(x[:, self.column]).astype(np.float64) * 1e4) % 1 < self.share
        return given(self.outputs, truth(self.kind, x), is_right)


class World:
    """Releases ``kind@1`` and ``kind@2`` of one kind of output, and a fleet whose devices count as agents do."""

    def __init__(self, folder: Path, kind: str) -> None:
        self.kind = kind
        self.fleet = VirtualFleet(folder)
        self.manifests = {}
        for number, threshold in ((1, 2.0), (2, 3.0)):
            # A threshold is measured anew for each model.
            outputs = Outputs(
                {
                    name: replace(output, threshold=threshold) if output.kind == "reconstruction" else output
                    for name, output in TASKS[kind].answers.items()
                }
            )
            schema = replace(TASKS[kind].schema, answers=outputs)
            # As a device and the service read it: without what is only there where the model is trained.
            document = encode_json(schema.to_record())
            read = ModelSchema.from_fields(decode_json(document, "schema", limit_bytes=10**6))
            made = make_manifest(f"kind@{number}", parent="kind@1" if number == 2 else None)
            metrics = {outputs.score_key: 0.93}
            made = replace(
                made, model_schema=read, artifacts=tuple(replace(a, metrics=metrics) for a in made.artifacts)
            )
            self.manifests[made.release] = made
            self.fleet.catalogue.add(made, self.reference(read))
        self.seed = 0
        self.fleet.settle()
        self.fleet.roll_out("kind@1", ONE_STAGE)

    def reference(self, schema: ModelSchema):
        x = numbers(4000, 99)
        answers = Model(self.kind, schema.answers, GOOD, 1).predict({"x": x})
        columns = {**input_features(schema, {"x": x}), **schema.answers.features(answers)}
        categories = {name: (columns.pop(name), names) for name, names in schema.answers.categories().items()}
        return build_reference(columns, categories)

    def ready(self, release: str, share: float, column: int) -> ReadyModel:
        made = self.manifests[release]
        slot = OpenSlot(Path("/nowhere"), made, made.artifacts[0], self.fleet.catalogue.reference(release))
        return ReadyModel(slot, Model(self.kind, made.model_schema.answers, share, column))

    def windows(self, release, share, *, samples=100, moved=0.0, is_known=True, compare=False):
        """Let an agent's active model count, as it would on a device, and return its window."""
        found = []
        active = ActiveModel(samples, found.append, clock=lambda: self.fleet.now)
        ready = self.ready(release, share, 2 if compare else 1)
        active.activate(ready)
        if compare:
            active.compare(ready, self.ready("kind@1", GOOD, 1))
        self.seed += 1
        x = np.clip(numbers(samples, self.seed) + np.float32(moved), -4, 4)
        active.predict({"x": x}, truth(self.kind, x) if is_known else None)
        (window,) = found
        return window

    def send(self, release: str, share: float, **how) -> None:
        """Let every device that runs a release send a window of it."""
        for device in self.fleet.devices.values():
            if device.release == release:
                device.send_window(self.windows(release, share, **how))
        self.fleet.settle(seconds=1)

    def roll_out(self, share: float, *, is_known: bool, plan=PLAN):
        """Roll ``kind@2``, which is right so often, out until it is decided; return the rollout."""
        rollout = self.fleet.roll_out("kind@2", plan)
        for _ in range(20):
            if self.fleet.service.rollout(rollout).state is not RolloutState.RUNNING:
                break
            self.send("kind@2", share, is_known=is_known, compare=True)
        self.fleet.settle(seconds=2)
        return self.fleet.service.rollout(rollout)


@pytest.fixture
def world(tmp_path):
    worlds = []

    def make(kind: str) -> World:
        worlds.append(World(tmp_path, kind))
        return worlds[-1]

    yield make
    for made in worlds:
        made.fleet.service.stop()


@pytest.mark.parametrize("kind", TASKS)
def test_a_gate_passes_an_equal_release_of_each_kind(world, kind):
    made = world(kind)

    rollout = made.roll_out(GOOD, is_known=True)

    assert rollout.state is RolloutState.FINISHED, rollout.reason
    assert set(made.fleet.releases()) == {"kind@2"}
    said = "agreement with the model before alone decides" if kind == "custom" else f"{NAMES[kind]} 9"
    assert said in rollout.reason
    # To agree with the model before is to be like it, not to be right.
    proven = [event.release for event in made.fleet.events if isinstance(event, ReleaseProven)]
    assert proven == ([] if kind == "custom" else ["kind@2"])
    assert ("accuracy" in rollout.reason) == (kind == "classes")


@pytest.mark.parametrize("kind", TASKS)
def test_a_gate_stops_a_worse_release_of_each_kind_and_the_one_before_is_back(world, kind):
    made = world(kind)

    rollout = made.roll_out(BAD, is_known=True)

    assert rollout.state is RolloutState.ROLLED_BACK, rollout.reason
    assert set(made.fleet.releases()) == {"kind@1"}
    assert ("too much disagreement" in rollout.reason) == (kind == "custom")
    assert ("worse than the model before" in rollout.reason or "below the floor" in rollout.reason) == (
        kind != "custom"
    )
    assert ("accuracy" in rollout.reason) == (kind == "classes")


@pytest.mark.parametrize(("share", "state"), [(GOOD, RolloutState.FINISHED), (BAD, RolloutState.ROLLED_BACK)])
def test_a_reconstruction_that_nobody_judges_goes_by_agreement_although_its_threshold_is_another_one(
    world, share, state
):
    made = world("reconstruction")

    rollout = made.roll_out(share, is_known=False)

    assert rollout.state is state, rollout.reason
    assert "none of them is judged, so that agreement with the model before alone decides" in rollout.reason
    assert not any(isinstance(event, ReleaseProven) for event in made.fleet.events)


def test_where_target_values_must_come_agreement_lets_nothing_go_on(world):
    made = world("values")

    rollout = made.roll_out(GOOD, is_known=False, plan=replace(PLAN, gate_timeout_s=15.0))

    assert rollout.state is RolloutState.ROLLED_BACK
    assert "is scored, so nothing is known of quality; give target values on these devices" in rollout.reason


@pytest.mark.parametrize("kind", NAMES)
def test_a_score_that_falls_raises_an_alert_by_its_name(world, kind):
    made = world(kind)
    for _ in range(3):
        made.send("kind@1", GOOD)
    assert made.fleet.service.alerts() == ()

    for _ in range(6):
        made.send("kind@1", BAD)

    alert = next(alert for alert in made.fleet.service.alerts() if alert.kind is AlertKind.SCORE)
    assert f": {NAMES[kind]} " in alert.reason
    assert "lies below the floor of " in alert.reason
    assert ("accuracy" in alert.reason) == (kind == "classes")
    assert set(alert.devices) <= set(made.fleet.devices)


def test_what_no_device_scores_raises_no_alert_of_scores(world):
    made = world("custom")
    for _ in range(6):
        made.send("kind@1", BAD)

    assert [alert for alert in made.fleet.service.alerts() if alert.kind is AlertKind.SCORE] == []


@pytest.mark.parametrize("kind", TASKS)
def test_a_world_that_moves_shows_in_what_is_counted_of_each_kind(world, kind):
    made = world(kind)
    for _ in range(4):
        made.send("kind@1", GOOD, samples=200, is_known=False)
    assert made.fleet.service.alerts() == ()

    for _ in range(6):
        made.send("kind@1", GOOD, samples=200, moved=2.5, is_known=False)

    (alert,) = (alert for alert in made.fleet.service.alerts() if alert.kind is AlertKind.DRIFT)
    watched = set(made.manifests["kind@1"].model_schema.answers.features(given_zeros(made)))
    assert watched & set(alert.features), alert.features
    assert {feature for feature in alert.features if not feature.startswith("output.")} <= {f"x.{i}" for i in range(4)}


def given_zeros(made: World) -> dict[str, np.ndarray]:
    schema = made.manifests["kind@1"].model_schema
    return {spec.name: np.zeros((1, *spec.shape), np.float32) for spec in schema.outputs}
