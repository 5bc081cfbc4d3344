"""A regression and a detector of anomalies make the whole round trip on mosquitto, each part a process of its own."""

import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hedgerow.fleet.brokers.development import find_mosquitto
from hedgerow.score_counts import ScoreCounts
from tests.examples.live_fleet import EXAMPLES, HELD, MOVED, TARGETS, LiveFleet, hedgerow, processes_that_mention

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.broker,
    pytest.mark.e2e,
    pytest.mark.timeout(600),
    pytest.mark.skipif(find_mosquitto() is None, reason="mosquitto is not installed"),
]
ENOUGH = 250
"""Scores of each device that are waited for."""
RUNTIMES = {"raspberry-pi-4": "ONNX Runtime ", "android-arm64": "ai_edge_litert,"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One example, and what is to be seen of it.

    Attributes:
        name: Its folder, its task and its releases.
        outputs: Its output and the kind.
        score_name: What verdicts speak of.
        known_word: How they call a sample with a target value.
        options: Of the devices' sources.
        floor: Score that is asked for.
        world: What half of the devices meet later.
        features: What that shifts.
        lost, won: How far the score falls there at least, and how far retraining brings it up again.
    """

    name: str
    outputs: Mapping[str, str]
    score_name: str
    known_word: str
    options: Mapping[str, str]
    floor: float
    world: Mapping[str, Any]
    features: frozenset[str]
    lost: float
    won: float

    def release(self, number: int) -> str:
        return f"{self.name}@{number}"

    @property
    def floor_words(self) -> str:
        return f"{self.known_word} samples; the floor is {self.floor:.1%}, which was asked for"


KINDS = [
    Kind(
        name="winding",
        outputs={"values": "values"},
        score_name="worth of the values",
        known_word="scored",
        options={"rate_per_s": "100", "known": "0.5"},
        floor=0.6,
        world={"blocked_fan": True},
        features=frozenset({"measured.case.mean"}),
        lost=0.12,
        won=0.05,
    ),
    Kind(
        name="vibration",
        outputs={"anomaly": "reconstruction"},
        score_name="share of right flags",
        known_word="judged",
        options={"rate_per_s": "100", "judged": "0.8"},
        floor=0.7,
        world={"gain": 1.8},
        features=frozenset({"output.anomaly", "vibration.peak", "vibration.std"}),
        lost=0.3,
        won=0.3,
    ),
]


class Site:
    """A folder in which a user trains, compiles and signs by commands."""

    def __init__(self, folder: Path, kind: Kind) -> None:
        self.folder, self._kind = folder, kind

    def make(self) -> None:
        task = f"{EXAMPLES / self._kind.name / 'task.py'}:task"
        hedgerow(self.folder, "train", task, "--rounds", 30, "--clients", 8, "--out", "run")
        targets = [part for target in dict.fromkeys(TARGETS.values()) for part in ("--target", target)]
        hedgerow(self.folder, "compile", "run/checkpoint", "--task", task, "--out", "build", *targets)
        hedgerow(self.folder, "fleet", "init", "fleet", "--name", "live")

    def sign(self) -> None:
        """Sign the first training's build as the next release."""
        files = ["--build", "build", "--checkpoint", "run/checkpoint", "--fleet-folder", "fleet"]
        hedgerow(self.folder, "release", "create", self._kind.name, *files)


def plan(kind: Kind, canary: float, margin: float) -> dict[str, Any]:
    stages = [{"name": "canary", "share": canary}, {"name": "fleet", "share": 1.0}]
    return {"stages": stages, "gate": {"floor": kind.floor, "maximum_accuracy_drop": margin}}


def is_on_all(rollout: Mapping[str, Any]) -> bool:
    """Whether a rollout finished on every device, at the first try of each."""
    executions = rollout["executions"]
    return (
        rollout["state"] == "FINISHED"
        and rollout["stages"] == ["FINISHED", "FINISHED"]
        and {name: execution["state"] for name, execution in executions.items()} == dict.fromkeys(TARGETS, "SUCCEEDED")
        and {execution["attempt"] for execution in executions.values()} == {1}
    )


def drift_of(alerts: Sequence[Mapping[str, Any]], kind: Kind) -> Mapping[str, Any] | None:
    """Return the drift alert once it names both devices and all that moved."""
    for alert in alerts:
        if alert["kind"] == "drift" and tuple(alert["devices"]) == tuple(sorted(MOVED)):
            return alert if kind.features <= set(alert["features"]) else None
    return None


def roll_out_the_first(fleet: LiveFleet, kind: Kind) -> None:
    first = kind.release(1)
    rollout = fleet.roll_out(first, plan(kind, 0.25, 0.04))
    assert is_on_all(rollout), rollout
    assert rollout["reason"].startswith(f"{kind.score_name} ")
    assert rollout["reason"].endswith(kind.floor_words)
    fleet.wait_until_all_run(first)
    for name, target in TARGETS.items():
        assert fleet.says(name, f"the artifact for {target} is run by {RUNTIMES[target]}")


def roll_out_an_equal_one(fleet: LiveFleet, kind: Kind) -> ScoreCounts:
    """Return the scores of the devices whose world will move."""
    equal = kind.release(2)
    rollout = fleet.roll_out(equal, plan(kind, 0.25, 0.04))
    assert is_on_all(rollout), rollout
    assert f"{kind.floor_words}; it changed by +0.0 points (" in rollout["reason"]
    assert rollout["reason"].endswith("-4.0 points are accepted")
    fleet.wait_until_all_run(equal)
    clean = fleet.scores(MOVED, equal, least=ENOUGH)
    assert clean.mean > kind.floor
    assert fleet.api.get("/v1/alerts") == []
    assert fleet.api.get("/v1/runs") == []
    return clean


def move_the_world(fleet: LiveFleet, kind: Kind, clean: ScoreCounts) -> ScoreCounts:
    """Return the scores of the devices whose world has moved."""
    equal, moved_at = kind.release(2), fleet.move_the_world(kind.world)
    during = fleet.scores(MOVED, equal, since=moved_at, least=ENOUGH // 2)
    assert during.mean < min(kind.floor, clean.mean - kind.lost)
    alert = fleet.wait_for("a drift alert", lambda: drift_of(fleet.api.get("/v1/alerts"), kind))
    assert alert["release"] == equal
    slices = {finding["slice"] for finding in alert["findings"]}
    assert slices >= {f"device:{name}" for name in MOVED}
    assert not slices & {f"device:{name}" for name in HELD}
    return during


def recover(fleet: LiveFleet, kind: Kind, during: ScoreCounts) -> None:
    equal, retrained = kind.release(2), kind.release(3)
    run = fleet.retrained(1)
    assert (run["parent"], run["release"]) == (equal, retrained)
    assert run["trigger"] in {alert["id"] for alert in fleet.api.get("/v1/alerts")}
    rollout = fleet.ended("rollout-3")
    assert is_on_all(rollout), rollout
    assert rollout["release"] == retrained
    assert f"{kind.floor_words}; it changed by +" in rollout["reason"]
    fleet.wait_until_all_run(retrained)
    after = fleet.scores(MOVED, retrained, least=ENOUGH)
    assert after.mean > max(kind.floor, during.mean + kind.won)
    assert fleet.scores(HELD, retrained, least=ENOUGH).mean > kind.floor
    assert fleet.retrained(1, "recovered")["reason"] == ""


def stop_a_worse_one(fleet: LiveFleet, kind: Kind) -> None:
    """What the first training made is a worse release by now."""
    retrained, old_again = kind.release(3), kind.release(4)
    rollout = fleet.roll_out(old_again, plan(kind, 0.75, 0.02))
    assert rollout["state"] == "ROLLED_BACK"
    assert rollout["reason"].startswith("the gate stopped it: ")
    assert "it changed by -" in rollout["reason"]
    met = {name for name, execution in rollout["executions"].items() if execution["stage"] == 0}
    assert len(met) == 3
    fleet.wait_until_all_run(retrained)
    assert fleet.installed(old_again) == met


def check_what_is_left(fleet: LiveFleet, kind: Kind) -> None:
    """Four releases, one retraining, and no alert but of the devices and the release that it answered."""
    first, equal, retrained, old_again = map(kind.release, range(1, 5))
    releases = {release["release"]: release for release in fleet.api.get("/v1/releases")}
    parents = {name: release["parent"] for name, release in releases.items()}
    assert parents == {first: None, equal: None, retrained: equal, old_again: None}
    for release in releases.values():
        assert (release["score"], release["outputs"]) == (kind.score_name, kind.outputs)
        assert release["targets"] == sorted(set(TARGETS.values()))
    assert [rollout["state"] for rollout in fleet.api.get("/v1/rollouts")] == ["FINISHED"] * 3 + ["ROLLED_BACK"]
    alerts = fleet.api.get("/v1/alerts")
    assert {alert["release"] for alert in alerts} == {equal}
    assert {name for alert in alerts for name in alert["devices"]} == set(MOVED)
    assert {alert["kind"] for alert in alerts} <= {"drift", "score"}
    for alert in alerts:
        assert alert["kind"] == "drift" or f"{kind.score_name} " in alert["reason"]
    assert len(fleet.api.get("/v1/runs")) == 1


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_an_example_makes_the_whole_round_trip_on_mosquitto_and_processes(tmp_path, kind):
    site = Site(tmp_path, kind)
    site.make()
    site.sign()
    with LiveFleet(tmp_path, kind.name, kind.options) as fleet:
        assert fleet.broker.name.startswith("mosquitto")
        fleet.wait_for("every agent", lambda: sum(device["online"] for device in fleet.devices().values()) == 4)
        assert fleet.running() == dict.fromkeys(TARGETS)
        roll_out_the_first(fleet, kind)
        site.sign()
        clean = roll_out_an_equal_one(fleet, kind)
        during = move_the_world(fleet, kind, clean)
        recover(fleet, kind, during)
        site.sign()
        stop_a_worse_one(fleet, kind)
        check_what_is_left(fleet, kind)
    assert fleet.programs.exit_codes == dict.fromkeys(["service", *TARGETS], 0)
    assert processes_that_mention(tmp_path) == []
    with socket.socket() as probe:
        assert probe.connect_ex((fleet.broker.host, fleet.broker.port)) != 0
