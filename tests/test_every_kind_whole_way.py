"""Every kind of output the whole way: from training to a fleet of both runtimes, through a bad release, to recovery.

One story for all: a task is trained, compiled for ONNX, TFLite and Core ML, signed and rolled out to agents with both
runtimes. A gate stops a release that is worse and passes one that is equal. Then the world of every device moves; that
is found, the devices train the release again from target values of their own, and what they made takes its place.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("litert_torch")
pytest.importorskip("coremltools")

from hedgerow.checkpoint import load_checkpoint
from hedgerow.compile import CompileWorkers
from hedgerow.compile.pipeline import toolchains
from hedgerow.fleet.drift.alert import AlertKind
from hedgerow.fleet.records import RunState
from hedgerow.fleet.rollout.gates import GatePlan
from hedgerow.fleet.rollout.plan import RolloutPlan
from hedgerow.fleet.rollout.stages import StagePlan
from hedgerow.fleet.rollout.state import Rollout, RolloutState, exposed
from hedgerow.fleet.service.events import UpdateArrived
from hedgerow.fleet.trust.checkpoints import checkpoint_folder
from hedgerow.manifest.release import Manifest
from hedgerow.wire.execution import ExecutionState
from tests.output_tasks import HELD_OUT, NAMES, TASKS
from tests.processes import wait_until
from tests.whole_way import CORE_ML, DEVICES, ONNX, ROUNDS, RUNTIMES, TARGETS, TFLITE, WINDOW, Served, World

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.timeout(600),
    # torch and what is around it call deprecated parts of each other.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

FLOOR, MARGIN = 0.75, 0.05
LEARNED_BEFORE, LEARNED_AFTER = 40, 160
# Time passes a second at a time while threads work: only the gate is to decide.
PLAN = RolloutPlan(
    stages=(StagePlan("canary", 0.5), StagePlan("fleet", 1.0)),
    gate=GatePlan(floor=FLOOR, maximum_accuracy_drop=MARGIN, maximum_disagreement=0.2, minimum_samples=2 * WINDOW),
    in_progress_timeout_s=1e5,
    step_timeout_s=1e5,
    stage_deadline_s=1e6,
    gate_timeout_s=1e6,
)
UNGATED = replace(PLAN, gate=None)
INPUTS = {f"x.{place}" for place in range(4)}


@pytest.fixture(scope="module")
def workers() -> Iterator[CompileWorkers]:
    with CompileWorkers() as warm:
        warm.warm(toolchains(TARGETS))
        yield warm


@pytest.mark.parametrize("kind", TASKS)
def test_a_task_goes_from_training_to_recovery(kind: str, workers: CompileWorkers, tmp_path: Path) -> None:
    with ExitStack() as stack:
        world = World(tmp_path, kind, workers, stack)
        story = Story(world)
        checkpoint = world.train()
        build = world.build(checkpoint)
        story.artifacts_are_what_was_measured(world.sign(build, checkpoint))
        story.the_first_release_reaches_all_devices()
        untrained = world.untrained(checkpoint)
        world.sign(world.build(untrained, list(RUNTIMES)), untrained)
        story.a_worse_release_is_stopped_at_its_canaries()
        world.sign(build, checkpoint)
        story.an_equal_release_passes()
        story.a_world_that_moves_is_found()
        story.devices_train_again()
        story.what_they_made_is_better_and_on_all_devices()


class Story:
    """What happens in a world, and how everything is after it."""

    def __init__(self, world: World) -> None:
        self.world, self.kind = world, world.kind
        self.is_scored = world.kind in NAMES

    def by_hand(self, release: str, served: Served) -> np.ndarray:
        """Return the scores of what a device met, from the answers of the artifact alone."""
        target = DEVICES[served.device]
        return scores_by_hand(self.world, release, self.world.answers(release, target, served.x), served.wanted)

    def check_window(self, served: Served, release: str, before: str | None = None) -> None:
        """Hold what a window says against what the artifacts answer to the same samples."""
        window, kind = served.window, self.kind
        assert (window.release, window.samples, sum(window.latency)) == (release, WINDOW, WINDOW)
        reference = self.world.catalogue.reference(release)
        for place in range(4):
            edges = [-np.inf, *reference.feature(f"x.{place}").edges, np.inf]
            counts, _edges = np.histogram(served.x[:, place].astype(np.float64), edges)
            assert window.features[f"x.{place}"].counts == tuple(counts.tolist())
        for name in set(window.features) - INPUTS:
            assert name.startswith("output.")
            assert sum(window.features[name].counts) == WINDOW
        scores = self.by_hand(release, served)
        assert window.scores.samples == (WINDOW if self.is_scored else 0)
        if self.is_scored:
            assert window.scores.total == pytest.approx(scores.sum(), abs=WINDOW * 2**-16)
        assert window.paired.agreement.samples == (WINDOW if before is not None else 0)
        assert window.paired.change.samples == (WINDOW if before is not None and self.is_scored else 0)
        if before is not None and self.is_scored:
            change = scores - self.by_hand(before, served)
            assert 2 * window.paired.change.mean - 1 == pytest.approx(change.mean(), abs=2**-15)
        if before is not None and kind == "custom":
            now, then = (self.world.answers(r, DEVICES[served.device], served.x)["output"] for r in (release, before))
            alike = 1 - np.minimum(1, np.abs(now.astype(np.float64) - then).mean(axis=1))
            assert window.paired.agreement.mean == pytest.approx(alike.mean(), abs=2**-15)

    def check_states(self, rollout: Rollout, *, succeeded: int) -> None:
        states = sorted(execution.state for execution in rollout.executions.values())
        others = [ExecutionState.CANCELED] * (len(DEVICES) - succeeded)
        assert states == sorted([ExecutionState.SUCCEEDED] * succeeded + others)

    # The story

    def artifacts_are_what_was_measured(self, manifest: Manifest) -> None:
        """The signed release holds three artifacts, each verified, and two train graphs."""
        key = manifest.model_schema.answers.score_key
        assert manifest.release == "kind@1"
        assert [(a.target, a.format) for a in manifest.artifacts] == [
            (ONNX, "onnx"),
            (TFLITE, "tflite"),
            (CORE_ML, "mlpackage"),
        ]
        assert {graph.runtime for graph in manifest.train_graphs} == set(RUNTIMES.values())
        held_out = TASKS[self.kind].load_data().held_out
        for artifact in manifest.artifacts:
            not_run = {"latency", "runs on device"} if artifact.target == CORE_ML else set()
            assert {name for name, result in artifact.checks.items() if result != "passed"} == not_run
            assert artifact.checks["parity"] == artifact.checks[key] == "passed"
            assert artifact.metrics["agreement"] > 0.99
            assert artifact.metrics["held_out_samples"] == HELD_OUT
            assert artifact.metrics[key] == pytest.approx(manifest.metrics[key], abs=0.01)
            if artifact.target in RUNTIMES:
                answers = self.world.answers(manifest.release, artifact.target, held_out.inputs["x"])
                scores = scores_by_hand(self.world, manifest.release, answers, held_out.target_values)
                assert artifact.metrics[key] == pytest.approx(scores.mean(), abs=1e-6)

    def the_first_release_reaches_all_devices(self) -> None:
        """By its scores, or where no device can score it by somebody's word; target values are counted as they are."""
        rollout, served = self.world.roll_out("kind@1", PLAN if self.is_scored else UNGATED)
        assert rollout.state is RolloutState.FINISHED, rollout.reason
        self.check_states(rollout, succeeded=len(DEVICES))
        self.world.until_all_run("kind@1")
        assert self.is_scored == bool(rollout.reason)
        assert NAMES.get(self.kind, "") in rollout.reason
        assert self.world.service.is_proven("kind@1") == self.is_scored
        for window in served:
            self.check_window(window, "kind@1")

    def a_worse_release_is_stopped_at_its_canaries(self) -> None:
        """One device of each runtime meets it, and has the release before again."""
        rollout, served = self.world.roll_out("kind@2", PLAN)
        assert rollout.state is RolloutState.ROLLED_BACK, rollout.reason
        self.check_states(rollout, succeeded=2)
        met = set(exposed(rollout))
        assert {DEVICES[name] for name in met} == set(RUNTIMES)
        self.world.until_all_run("kind@1")
        stopped_by = (
            ("below the floor", "worse than the model before") if self.is_scored else ("too much disagreement",)
        )
        assert any(words in rollout.reason for words in stopped_by)
        assert not self.world.service.is_proven("kind@2")
        windows = self.world.service.windows(release="kind@2")
        assert {stored.device for stored in windows} == {window.device for window in served} <= met
        for window in served:
            self.check_window(window, "kind@2", before="kind@1")
            assert self.by_hand("kind@2", window).mean() < self.by_hand("kind@1", window).mean() - MARGIN
        for device in DEVICES:
            self.check_window(self.world.serve(device), "kind@1")

    def an_equal_release_passes(self) -> None:
        """The same file under another number: not one answer differs."""
        rollout, served = self.world.roll_out("kind@3", PLAN)
        assert rollout.state is RolloutState.FINISHED, rollout.reason
        self.check_states(rollout, succeeded=len(DEVICES))
        self.world.until_all_run("kind@3")
        assert {window.device for window in served} == set(DEVICES)
        for window in served:
            self.check_window(window, "kind@3", before="kind@1")
            assert window.window.paired.agreement.mean == 1
            assert not self.is_scored or window.window.paired.change.mean == 0.5
        said = "it changed by +0.0 points" if self.is_scored else "agreement with the model before alone decides"
        assert said in rollout.reason
        assert self.world.service.is_proven("kind@3") == self.is_scored

    def a_world_that_moves_is_found(self) -> None:
        """Nothing is told while all is well; then every device is named, by inputs and by answers."""
        world = self.world
        for device in DEVICES:
            world.teach(device, LEARNED_BEFORE)
        world.clock.now += 100
        for device in [*DEVICES, *DEVICES]:
            self.check_window(world.serve(device), "kind@3")
        assert world.service.alerts() == ()

        world.clock.now += 600
        moved_at = world.clock()
        for device in DEVICES:
            world.teach(device, LEARNED_AFTER, is_moved=True)
        for device in [*DEVICES, *DEVICES]:
            served = world.serve(device, is_moved=True)
            self.check_window(served, "kind@3")
            assert self.by_hand("kind@3", served).mean() < FLOOR
        found = {alert.kind: alert for alert in world.service.alerts()}
        assert set(found) == ({AlertKind.DRIFT, AlertKind.SCORE} if self.is_scored else {AlertKind.DRIFT})
        drift = found[AlertKind.DRIFT]
        assert (drift.release, drift.devices) == ("kind@3", tuple(sorted(DEVICES)))
        assert set(drift.features) > INPUTS
        assert drift.raised_at > moved_at
        if self.is_scored:
            assert f": {NAMES[self.kind]} " in found[AlertKind.SCORE].reason

    def devices_train_again(self) -> None:
        """When somebody approves it: on what they were taught since the world moved, and each its share."""
        world = self.world
        wait_until(lambda: world.loop.state.waiting)
        assert world.service.runs() == ()
        assert world.loop.approve()
        wait_until(
            lambda: world.retrained or any(run.state is RunState.FAILED for run in world.service.runs()), timeout_s=240
        )
        run = world.run()
        assert (run.state, run.parent, run.release) == (RunState.DONE, "kind@3", "kind@4"), run.reason
        assert run.trigger in {found.id for found in world.service.alerts()}
        # Of a reconstruction nothing is learned from what is known to be anomalous, a quarter of all.
        learned = LEARNED_AFTER * 3 // 4 if self.kind == "reconstruction" else LEARNED_AFTER
        updates = {(e.update.round, e.device): e.update for e in world.events if isinstance(e, UpdateArrived)}
        rounds = range(1, ROUNDS + 1)
        assert {where: update.examples for where, update in updates.items()} == {
            (number, device): learned for number in rounds for device in DEVICES
        }
        for device in DEVICES:
            assert updates[ROUNDS, device].metrics["loss"] < updates[1, device].metrics["loss"]
        kept = load_checkpoint(checkpoint_folder(world.folder, "kind@4")).weights
        for name, value in kept.items():
            sent = [world.exchange.seen[ROUNDS, device][name] for device in DEVICES]
            np.testing.assert_allclose(value, np.mean(sent, axis=0), atol=1e-5)
        manifest = world.catalogue.manifest("kind@4")
        assert manifest.lineage.parent == "kind@3"
        assert [artifact.target for artifact in manifest.artifacts] == list(TARGETS)

    def what_they_made_is_better_and_on_all_devices(self) -> None:
        """Its scores let it pass; where there are none, a gate takes what is right for unlike, and somebody decides."""
        world = self.world
        rollout, served = world.decided(world.retrained[0].rollout, is_moved=True)
        for window in served:
            self.check_window(window, "kind@4", before="kind@3")
        if not self.is_scored:
            assert rollout.state is RolloutState.ROLLED_BACK
            assert "too much disagreement" in rollout.reason
            wait_until(lambda: world.run().state is RunState.FAILED)
            world.until_all_run("kind@3")
            rollout, _served = world.roll_out("kind@4", UNGATED)
        assert rollout.state is RolloutState.FINISHED, rollout.reason
        self.check_states(rollout, succeeded=len(DEVICES))
        world.until_all_run("kind@4")
        assert world.service.is_proven("kind@4") == self.is_scored
        wait_until(lambda: world.run().state is (RunState.RECOVERED if self.is_scored else RunState.FAILED))

        windows = [world.serve(device, is_moved=True) for device in [*DEVICES, *DEVICES]]
        for window in windows:
            self.check_window(window, "kind@4")
        after, before = (np.mean([self.by_hand(name, window) for window in windows]) for name in ("kind@4", "kind@3"))
        assert after > max(0.85, before + 0.2)
        told = {alert.release for alert in world.service.alerts()}
        # What has not proven itself is held against what was normal before, and that is over.
        assert told == ({"kind@3"} if self.is_scored else {"kind@3", "kind@4"})
        assert {problem for device in world.devices.values() for problem in device.agent.health.problems} == set()


def scores_by_hand(world: World, release: str, answers: dict[str, np.ndarray], wanted: object) -> np.ndarray:
    """Return the score of each answer, as docs/task.md says it."""
    outputs = world.catalogue.manifest(release).model_schema.answers

    def classes(given, right):
        return (given.argmax(axis=1) == right).astype(np.float64)

    def labels(given, right):
        said = given >= 0.5
        both, either = (said & (right == 1)).sum(axis=1), said.sum(axis=1) + right.sum(axis=1)
        return np.where(either == 0, 1.0, 2 * both / np.maximum(either, 1))

    def values(given, right):
        errors = np.abs(given.astype(np.float64) - right) / np.asarray([1.0, 2.0])
        return (1 - np.minimum(1, errors)).mean(axis=1)

    def reconstruction(given, anomalous):
        flagged = given[:, 0] >= outputs["anomaly"].threshold
        return (flagged == (anomalous == 1)).astype(np.float64)

    def tokens(given, right):
        return (given.argmax(axis=2) == right).mean(axis=1)

    def custom(given, angle):
        length = np.sqrt((given.astype(np.float64) ** 2).sum(axis=1) + 0.1)
        cosine = (given[:, 0] * np.cos(angle) + given[:, 1] * np.sin(angle)) / length
        return np.clip((1 + cosine) / 2, 0, 1)

    if world.kind == "several":
        state, level = (answers[name] for name in ("state", "level"))
        return (classes(state, wanted["state"]) + 2 * values(level, wanted["level"])) / 3
    by_kind = {
        "classes": classes,
        "labels": labels,
        "values": values,
        "reconstruction": reconstruction,
        "tokens": tokens,
        "custom": custom,
    }
    (given,) = answers.values()
    return by_kind[world.kind](given, wanted)
