"""The steps of a deployment; each looks first at what is there already, so that one that was killed goes on."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hedgerow.compile.budget import Budget
from hedgerow.compile.build import Build
from hedgerow.compile.cache import default_cache_folder
from hedgerow.compile.outcome import Outcome
from hedgerow.compile.pipeline import compile_targets
from hedgerow.fleet.commands.rollout import OVER, follow_rollout
from hedgerow.fleet.deploy.site import Site
from hedgerow.fleet.errors import DeployError
from hedgerow.fleet.folder import FleetFolder
from hedgerow.fleet.rollout.state import RolloutState
from hedgerow.fleet.trust.checkpoints import checkpoint_folder, keep_checkpoint
from hedgerow.fleet.trust.releases import create_release, list_releases
from hedgerow.hardware.lookup import load_target
from hedgerow.manifest.release import Manifest
from hedgerow.progress import Report

__all__ = ["SignedRelease", "compile_for", "roll_out", "sign_release"]

_MAXIMUM_JOBS = 8
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class SignedRelease:
    """The release of a build.

    Attributes:
        manifest: It.
        is_new: Whether it was made now; else it was there already.
    """

    manifest: Manifest
    is_new: bool


def compile_for(
    task: str, checkpoint: Path, targets: Sequence[str], out: Path, *, budget: Budget, report: Report
) -> tuple[Build, Outcome]:
    """Compile a checkpoint for all of the targets, from the cache where that has it.

    Raises:
        DeployError: A target is refused.
        HedgerowError: As :func:`hedgerow.compile.pipeline.compile_targets`.
    """
    outcome = compile_targets(
        task,
        checkpoint,
        targets,
        out,
        budget=budget,
        jobs=min(_MAXIMUM_JOBS, len(os.sched_getaffinity(0))),
        cache=default_cache_folder(),
        report=report,
    )
    build = outcome.build
    made = {artifact.target for artifact in build.artifacts} if build is not None else set()
    absent = [name for name in (load_target(target).name for target in targets) if name not in made]
    if build is None or absent:
        reasons = "; ".join(refusal.reason for refusal in outcome.refused if refusal.target in absent)
        others = ", ".join(sorted(made))
        advice = f"deploy to the others with --target ({others})" if made else "see `hedgerow compile --help`"
        raise DeployError("an artifact for every target", f"{', '.join(absent)} refused ({reasons})", advice)
    return build, outcome


def sign_release(folder: FleetFolder, build_folder: Path, build: Build, checkpoint: Path) -> SignedRelease:
    """Return the release of a build: the one that is there already, or a new one; and keep its checkpoint.

    Raises:
        ReleaseError, SigningError, KeyFileError, CheckpointError, OSError: As
            :func:`hedgerow.fleet.trust.releases.create_release` and
            :func:`hedgerow.fleet.trust.checkpoints.keep_checkpoint`.
    """
    found = next((m for m in reversed(_listed(folder)) if _is_of(m, build)), None)
    manifest = found if found is not None else create_release(folder, build.task, build_folder, now=time.time())
    if not (checkpoint_folder(folder, manifest.release) / "checkpoint.json").is_file():
        keep_checkpoint(folder, manifest, checkpoint)
    return SignedRelease(manifest, found is None)


def _listed(folder: FleetFolder) -> list[Manifest]:
    return [entry.manifest for entry in list_releases(folder) if entry.state == "listed"]


def _is_of(manifest: Manifest, build: Build) -> bool:
    """Return whether a release was made of this very build."""
    one = (manifest.name, manifest.model_schema, manifest.artifacts, manifest.train_graphs, manifest.reference)
    other = (build.task, build.model_schema, build.artifacts, build.train_graphs, build.reference)
    return one == other and manifest.lineage.checkpoint_sha256 == build.checkpoint_sha256


def roll_out(site: Site, release: str, plan: Mapping[str, Any], say: Say) -> dict[str, Any]:
    """Bring a release to the devices, and return its rollout when that is over or paused.

    One that is under way is gone on with, one that is finished is not made again.

    Raises:
        RefusedRequestError: Another rollout is not over, or no device has such a target.
        ServiceUnreachableError: The service went away.
    """
    client = site.client
    rollouts = client.get("/v1/rollouts")
    for other in rollouts:
        if site.development is not None and other["state"] not in OVER and other["release"] != release:
            say(f"{other['id']} of {other['release']} was left unfinished, and is taken back")
            follow_rollout(client, client.post(f"/v1/rollouts/{other['id']}/abort"), say, site.check)
    own = next((each for each in rollouts if each["release"] == release and each["state"] not in OVER), None)
    if own is None:
        finished = [each for each in rollouts if each["state"] == RolloutState.FINISHED.value]
        if finished and finished[-1]["release"] == release:
            return dict(finished[-1])
        own = client.post("/v1/rollouts", {"release": release, "plan": dict(plan)})
    return follow_rollout(client, client.get(f"/v1/rollouts/{own['id']}"), say, site.check)
