"""A fleet for an example: mosquitto, ``hedgerow fleet serve`` and agents, each a process; the admin API tells of it."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self, TypeVar

import psutil

from hedgerow.children.programs import Programs
from hedgerow.decode import Fields
from hedgerow.fleet.brokers.development import DevelopmentBroker
from hedgerow.fleet.deploy.agents import agent_command, start_agents
from hedgerow.fleet.folder import FleetFolder
from hedgerow.fleet.web.client import ApiClient
from hedgerow.score_counts import NO_SCORES, ScoreCounts
from hedgerow.window import Window

T = TypeVar("T")
EXAMPLES = Path(__file__).parents[2] / "examples"
TARGETS = {"pi-0": "raspberry-pi-4", "phone-0": "android-arm64", "pi-1": "raspberry-pi-4", "phone-1": "android-arm64"}
"""Device -> its target; the world moves for the first of each."""
MOVED, HELD = ("pi-0", "phone-0"), ("pi-1", "phone-1")
_SERVICE = "service"
_LOOK_S = 0.1


def hedgerow(folder: Path, *arguments: object) -> str:
    """Run a command as a user does, and return its output."""
    command = [sys.executable, "-P", "-m", "hedgerow.cli", *map(str, arguments)]
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment(folder), cwd=folder, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def environment(folder: Path, **more: str) -> dict[str, str]:
    return {**os.environ, "HEDGEROW_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1", **more}


def processes_that_mention(path: Path) -> list[str]:
    lines = [" ".join(process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"])]
    return [line for line in lines if str(path) in line]


class LiveFleet:
    """Everything runs while the ``with`` block does.

    Args:
        folder: Of everything; the fleet's own is ``fleet`` in it, made before.
        example: Which one; its task is trained again on drift.
        options: Of the devices' sources.
    """

    def __init__(self, folder: Path, example: str, options: Mapping[str, str]) -> None:
        self._folder, self._example, self._options = folder, EXAMPLES / example, options
        self._place = FleetFolder(folder / "fleet")
        self._stack = ExitStack()
        self.programs = Programs(stop_timeout_s=20)

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.broker = stack.enter_context(DevelopmentBroker(choose="mosquitto"))
            stack.enter_context(self.programs)
            address = f"{self.broker.host}:{self.broker.port}"
            url = self._serve(address)
            self.api = ApiClient(url, self._place.admin_key.read_text().strip())
            stack.callback(self.api.close)
            self._start_agents(address, url)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _serve(self, broker: str) -> str:
        command = [sys.executable, "-P", "-m", "hedgerow.cli", "fleet", "serve", "--json", "--port", "0"]
        command += ["--fleet-folder", str(self._place.path), "--broker", broker]
        command += ["--retrain-task", f"{self._example / 'task.py'}:task"]
        wishes = {"RETRAIN_ROUNDS": "10", "RETRAIN_MINIMUM_DEVICES": str(len(TARGETS))}
        env = environment(self._folder, **{f"HEDGEROW_FLEET_{name}": value for name, value in wishes.items()})
        log = self._folder / "logs" / "service.log"
        self.programs.start(command, log, _SERVICE, env=env)
        told = self.wait_for("the service's address", lambda: _first_record(log))
        return str(told["url"])

    def _start_agents(self, broker: str, url: str) -> None:
        root = self._folder / "root.json"
        shutil.copyfile(self._place.tuf_metadata / "1.root.json", root)
        commands = [
            (
                name,
                agent_command(
                    name,
                    target,
                    fleet="live",
                    broker=broker,
                    server=url,
                    trusted_root=root,
                    state_folder=self._folder / "devices" / name,
                    source=f"{self._example / 'device.py'}:stream",
                    source_options=dict(self._options),
                    window_samples=100,
                ),
            )
            for name, target in TARGETS.items()
        ]
        start_agents(self.programs, commands, self._folder / "logs")

    def wait_for(self, what: str, found: Callable[[], T], timeout_s: float = 240.0) -> T:
        """Return what *found* does as soon as it is anything; nothing may end by itself meanwhile."""
        deadline = time.monotonic() + timeout_s
        while not (value := found()):
            ended = self.programs.first_ended()
            assert ended is None, self._last_lines(ended.name)
            assert time.monotonic() < deadline, f"expected {what} in {timeout_s:g} s\n{self._last_lines(_SERVICE)}"
            time.sleep(_LOOK_S)
        return value

    def _last_lines(self, name: str) -> str:
        return self.programs.log_paths[name].read_text()[-3000:]

    def devices(self) -> dict[str, dict[str, Any]]:
        return {device["name"]: device for device in self.api.get("/v1/devices")}

    def running(self) -> dict[str, str | None]:
        """Device -> the release that it says it runs."""
        return {name: device["release"] for name, device in self.devices().items()}

    def wait_until_all_run(self, release: str) -> None:
        self.wait_for(f"{release} on every device", lambda: self.running() == dict.fromkeys(TARGETS, release))

    def roll_out(self, release: str, plan: Mapping[str, Any]) -> dict[str, Any]:
        """Start a rollout, and return how it ended."""
        return self.ended(self.api.post("/v1/rollouts", {"release": release, "plan": dict(plan)})["id"])

    def ended(self, rollout_id: str) -> dict[str, Any]:
        def over() -> dict[str, Any] | None:
            found: dict[str, Any] = self.api.get(f"/v1/rollouts/{rollout_id}")
            return None if found["state"] in {"RUNNING", "SCHEDULED"} else found

        found = self.wait_for(f"the end of {rollout_id}", over)
        assert found is not None
        return found

    def retrained(self, number: int, state: str = "") -> dict[str, Any]:
        """Return a retraining, the first is 1, once it is in a state; without one, once it has made a release."""

        def ended() -> dict[str, Any] | None:
            runs = self.api.get("/v1/runs")[number - 1 :]
            for run in runs[:1]:
                assert run["state"] != "failed", run
            return next((run for run in runs if run["state"] in ({state} if state else {"done", "recovered"})), None)

        found = self.wait_for(f"retraining {number} {state}", ended)
        assert found is not None
        return found

    def says(self, device: str, words: str) -> bool:
        """Whether a device's log says something."""
        return words in self.programs.log_paths[device].read_text()

    def installed(self, release: str) -> set[str]:
        """Return the devices that ever installed a release, by their logs."""
        return {name for name in TARGETS if self.says(name, f"installed {release} in")}

    def windows(self, device: str, release: str, since: float) -> list[Window]:
        """Return a device's windows of a release that began at a time or later."""
        records = self.api.get(f"/v1/windows?device={device}&release={release.replace('@', '%40')}&limit=1000")
        found = [Window.from_fields(Fields(record["window"], "window")) for record in records]
        return [window for window in found if window.started_at >= since]

    def scores(self, devices: tuple[str, ...], release: str, *, least: int, since: float = 0.0) -> ScoreCounts:
        """Return the scores of devices under a release since a time, once each has told *least* of them or more."""

        def told() -> dict[str, ScoreCounts] | None:
            found = {
                name: sum((window.scores for window in self.windows(name, release, since)), NO_SCORES)
                for name in devices
            }
            return found if all(scores.samples >= least for scores in found.values()) else None

        found = self.wait_for(f"{least} scores of {release} from each of {', '.join(devices)}", told)
        assert found is not None
        return sum(found.values(), NO_SCORES)

    def move_the_world(self, world: Mapping[str, Any]) -> float:
        """Change the world of half of the devices; return when."""
        for name in MOVED:
            (self._folder / "devices" / name / "world.json").write_text(json.dumps(world))
        return time.time()


def _first_record(log: Path) -> dict[str, Any] | None:
    lines = log.read_text().splitlines() if log.exists() else []
    return next((json.loads(line) for line in lines if line.startswith("{")), None)
