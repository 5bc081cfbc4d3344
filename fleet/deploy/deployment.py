"""A checkpoint's whole way: compiled, signed, rolled out, and what runs where at its end."""

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hedgerow.checkpoint import load_checkpoint_of
from hedgerow.compile.budget import Budget
from hedgerow.errors import CheckpointError
from hedgerow.fleet.commands.rollout import rollout_line
from hedgerow.fleet.deploy.development import device_name
from hedgerow.fleet.deploy.site import Devices, Site, open_site, wait_for_devices, wanted_targets
from hedgerow.fleet.deploy.steps import compile_for, roll_out, sign_release
from hedgerow.fleet.errors import DeployError
from hedgerow.fleet.folder import FleetFolder
from hedgerow.fleet.rollout.state import RolloutState
from hedgerow.hardware.lookup import load_target
from hedgerow.progress import Report
from hedgerow.task import Task, load_task

__all__ = ["DeployWishes", "Deployment", "run_deployment", "stay_until_stopped"]

_DEVELOPMENT_PATIENCE_S = 300.0
_LOOK_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class DeployWishes:
    """What is to be deployed where.

    Attributes:
        checkpoint: Its folder.
        task: Reference of its task.
        fleet: The fleet's folder.
        targets: What to compile for; nothing: the targets of the fleet's devices.
        url: Of the fleet's service; None: found out, or started.
        plan: Of the rollout, as the admin API takes it.
        budget: What an artifact may lose.
    """

    checkpoint: Path
    task: str
    fleet: Path
    targets: tuple[str, ...] = ()
    url: str | None = None
    plan: Mapping[str, Any] = field(default_factory=dict)
    budget: Budget = field(default_factory=Budget)


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """What became of it.

    Attributes:
        site: The fleet.
        release: What was rolled out.
        is_new: Whether the release was made now.
        build: Folder of its build.
        targets: What it has artifacts for.
        cached: Targets whose artifact came from the cache.
        rollout: Its rollout, as the admin API gives it.
        devices: All devices of the fleet at the end, likewise.
        without: Target -> why no agent was started for it.
    """

    site: Site
    release: str
    is_new: bool
    build: Path
    targets: tuple[str, ...]
    cached: tuple[str, ...]
    rollout: Mapping[str, Any]
    devices: Devices
    without: Mapping[str, str]

    @property
    def is_finished(self) -> bool:
        """Whether its rollout came to its good end."""
        return bool(self.rollout["state"] == RolloutState.FINISHED.value)

    def to_record(self) -> dict[str, Any]:
        """Return this as plain JSON values."""
        facts = ("name", "target", "release", "online")
        return {
            "release": self.release,
            "new": self.is_new,
            "build": str(self.build),
            "targets": list(self.targets),
            "cached": list(self.cached),
            "rollout": {name: self.rollout[name] for name in ("id", "state", "reason")},
            "devices": [{name: device[name] for name in facts} for device in self.devices],
            "without_agent": dict(self.without),
            "server": self.site.url,
            "development": self.site.development is not None,
        }

    def lines(self) -> list[str]:
        """Return what it came to, and what runs where."""
        found = [rollout_line(dict(self.rollout))]
        for device in self.devices:
            state = "" if device["online"] else ", which is offline"
            found.append(f"{device['name']} ({device['target']}) runs {device['release'] or 'nothing'}{state}")
        found += [f"{target} has an artifact and no agent: {why}" for target, why in self.without.items()]
        return found


def run_deployment(wishes: DeployWishes, stack: ExitStack, report: Report, say: Callable[[str], None]) -> Deployment:
    """Deploy a checkpoint; what an earlier call has done already is not done again.

    Args:
        wishes: What and where.
        stack: Ends what is started of a development fleet.
        report: Takes progress.
        say: Takes a line for each step.

    Raises:
        HedgerowError: A step failed; what was done until then is kept.
    """
    task = load_task(wishes.task)
    _check_checkpoint(wishes.checkpoint, task.name)
    _check_gate(task, wishes.plan)
    site = open_site(FleetFolder(wishes.fleet), wishes.url, stack, say)
    targets = wanted_targets(site, wishes.targets)
    say(f"compile for {', '.join(targets)}")
    place = wishes.fleet / "deployments" / task.name / "build"
    build, outcome = compile_for(wishes.task, wishes.checkpoint, targets, place, budget=wishes.budget, report=report)
    signed = sign_release(site.folder, place, build, wishes.checkpoint)
    release = signed.manifest.release
    say(f"{release} is {'signed' if signed.is_new else 'there already, signed before'}")
    without: Mapping[str, str] = {}
    plan = dict(wishes.plan)
    if site.development is not None:
        without = site.development.start_agents(targets, task, task.load_data().held_out)
        wanted = {device_name(load_target(name).name) for name in targets} - {device_name(name) for name in without}
        wait_for_devices(site, "an agent for each target", lambda found: wanted <= _online(found))
        if plan.get("gate", {}) is not None:
            plan.setdefault("gate_timeout_s", _DEVELOPMENT_PATIENCE_S)
    rollout = roll_out(site, release, plan, say)
    names = tuple(artifact.target for artifact in signed.manifest.artifacts)
    devices: Devices = site.devices()
    if rollout["state"] == RolloutState.FINISHED.value:
        devices = wait_for_devices(site, f"{release} on every device", lambda found: _all_run(found, release, names))
    return Deployment(
        site=site,
        release=release,
        is_new=signed.is_new,
        build=place,
        targets=names,
        cached=outcome.cached,
        rollout=rollout,
        devices=devices,
        without=without,
    )


def stay_until_stopped(site: Site) -> None:
    """Let a development fleet run on until a signal ends this command.

    Raises:
        KeyboardInterrupt: It came.
        BrokerEndedError, ChildDiedError: Something of the fleet ended by itself.
    """
    while True:
        site.check()
        time.sleep(_LOOK_S)


def _check_gate(task: Task, plan: Mapping[str, Any]) -> None:
    """Refuse a gate that could never decide, before anything is started.

    Raises:
        DeployError: No device scores an output of the task.
    """
    unscored = ", ".join(name for name, output in task.answers.items() if not output.is_scored_on_devices)
    if unscored and plan.get("gate", {}) is not None:
        raise DeployError(
            "outputs that devices score, by which the gate decides",
            f"{unscored}, whose score function stays where the model is trained",
            "add --no-gate, or compile and release it, and start the rollout with --disagreement",
        )


def _check_checkpoint(folder: Path, task: str) -> None:
    """Refuse what is no checkpoint of the task, before anything is started.

    Raises:
        CheckpointError: It is none.
        CheckpointMismatchError: It is another task's.
    """
    if folder.is_file():
        raise CheckpointError(
            f"expected the folder of a checkpoint at {folder}, found a file; make one of your own weights: "
            f"hedgerow checkpoint import {folder} --task ..."
        )
    load_checkpoint_of(task, folder)


def _online(devices: Devices) -> set[str]:
    return {str(device["name"]) for device in devices if device["online"]}


def _all_run(devices: Devices, release: str, targets: tuple[str, ...]) -> bool:
    ours = [device for device in devices if device["online"] and device["target"] in targets]
    return bool(ours) and all(device["release"] == release for device in ours)
