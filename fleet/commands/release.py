"""``hedgerow release``: sign a build as a release, list releases, show one."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from hedgerow.compile.build import load_build
from hedgerow.fleet.folder import FleetFolder
from hedgerow.fleet.trust import releases
from hedgerow.fleet.trust.checkpoints import check_checkpoint, keep_checkpoint
from hedgerow.fleet.trust.expiry import expiry_alarms
from hedgerow.fleet.trust.releases import ReleaseEntry
from hedgerow.fleet.trust.signing import expiries, signed_releases
from hedgerow.manifest.artifact import Artifact
from hedgerow.manifest.release import Manifest
from hedgerow.options import json_option
from hedgerow.outputs import Output

__all__ = ["create", "list_releases", "show"]

_folder_option = click.option(
    "--fleet-folder",
    "fleet_folder",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    metavar="DIR",
    help="The fleet's folder, made by `hedgerow fleet init`.",
)


@click.command(epilog="\b\nExample:\n  hedgerow release create digits --build out/build --fleet-folder out/fleet")
@click.argument("name")
@click.option(
    "--build",
    "build_folder",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    metavar="DIR",
    help="The build to sign: what `hedgerow compile` wrote.",
)
@_folder_option
@click.option(
    "--checkpoint",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="The checkpoint that the build was compiled from; kept in the fleet's folder, so that devices can train on "
    "from it. It is never published.",
)
@click.option("--parent", metavar="RELEASE", help="The release that this one was trained from, such as digits@1.")
@click.option("--note", default="", metavar="TEXT", help="One line for people, kept in the manifest.")
@click.option("--allow-failed-checks", is_flag=True, help="Sign it although checks failed; the manifest says which.")
@json_option
def create(
    name: str,
    build_folder: Path,
    fleet_folder: Path,
    checkpoint: Path | None,
    parent: str | None,
    note: str,
    *,
    allow_failed_checks: bool,
    as_json: bool,
) -> None:
    """Sign a build as the next release of NAME: NAME@1, NAME@2 and so on.

    Needs the keys of the roles targets, snapshot and timestamp in the fleet's folder.
    """
    folder = FleetFolder(fleet_folder)
    if checkpoint is not None:
        check_checkpoint(checkpoint, load_build(build_folder).checkpoint_sha256, str(build_folder))
    manifest = releases.create_release(
        folder,
        name,
        build_folder,
        now=time.time(),
        parent=parent,
        note=note,
        allow_failed_checks=allow_failed_checks,
    )
    if checkpoint is not None:
        keep_checkpoint(folder, manifest, checkpoint)
    if as_json:
        click.echo(json.dumps(_summary(manifest, "listed")))
        return
    click.echo(f"{manifest.release} is signed for {', '.join(artifact.target for artifact in manifest.artifacts)}")


@click.command("list", epilog="\b\nExample:\n  hedgerow release list --fleet-folder out/fleet")
@_folder_option
@json_option
def list_releases(fleet_folder: Path, *, as_json: bool) -> None:
    """List all releases. Devices install those that are listed, and neither revoked nor unlisted ones.

    A signature that ends soon is told on stderr; `hedgerow fleet status` says it by its exit code as well.
    """
    folder = FleetFolder(fleet_folder)
    entries = releases.list_releases(folder)
    alarms = expiry_alarms(expiries(folder), time.time())
    for alarm in alarms:
        click.echo(f"warning: {alarm.sentence}", err=True)
    if as_json:
        listed = [_summary(entry.manifest, entry.state) for entry in entries]
        click.echo(json.dumps({"releases": listed, "alarms": [alarm.to_record() for alarm in alarms]}))
        return
    if not entries:
        click.echo("no releases yet; make one with `hedgerow release create`")
        return
    Console().print(_list_table(entries))


@click.command(epilog="\b\nExample:\n  hedgerow release show digits@1 --fleet-folder out/fleet")
@click.argument("release")
@_folder_option
@json_option
def show(release: str, fleet_folder: Path, *, as_json: bool) -> None:
    """Show one release, such as digits@1: its artifacts, how they were checked, and where they come from."""
    folder = FleetFolder(fleet_folder)
    manifest = releases.load_release(folder, release)
    revoked = releases.revocation(folder, release)
    state = "listed" if release in signed_releases(folder) else "revoked" if revoked else "unlisted"
    if as_json:
        click.echo(json.dumps({"state": state, **json.loads(manifest.encode())}))
        return
    Console().print(_facts_table(manifest, state, revoked))
    for artifact in manifest.artifacts:
        Console().print(_artifact_table(artifact))


def _summary(manifest: Manifest, state: str) -> Mapping[str, Any]:
    return {
        "release": manifest.release,
        "state": state,
        "created_at": manifest.created_at,
        "targets": [artifact.target for artifact in manifest.artifacts],
        "metrics": dict(manifest.metrics),
        "parent": manifest.lineage.parent,
        "note": manifest.lineage.note,
    }


def _list_table(entries: tuple[ReleaseEntry, ...]) -> Table:
    has_notes = any(entry.manifest.lineage.note for entry in entries)
    names = Column("release", no_wrap=True), Column("state", no_wrap=True), Column("created", no_wrap=True)
    table = Table(*names, "parent", "metrics", Column("targets", no_wrap=True), *["note"] * has_notes, box=SIMPLE)
    for entry in entries:
        manifest = entry.manifest
        cells = [
            manifest.release,
            entry.state,
            manifest.created_at.partition("T")[0],
            manifest.lineage.parent or "-",
            "\n".join(_numbers(manifest.metrics)),
            "\n".join(artifact.target for artifact in manifest.artifacts),
        ]
        _add_row(table, *cells, *[manifest.lineage.note] * has_notes)
    return table


def _facts_table(manifest: Manifest, state: str, revoked: tuple[str, str] | None) -> Table:
    lineage = manifest.lineage
    facts = {
        "state": state if revoked is None or state == "listed" else f"{state} at {revoked[0]}: {revoked[1]}",
        "task": manifest.task,
        "created": manifest.created_at,
        "inputs": "\n".join(f"{spec.name} {spec.dtype}{list(spec.shape)}" for spec in manifest.model_schema.inputs),
        "outputs": "\n".join(f"{name}: {_told(output)}" for name, output in manifest.model_schema.answers.items())
        or "-",
        "score": manifest.model_schema.answers.score_name if manifest.model_schema.answers else "-",
        "metrics": ", ".join(_numbers(manifest.metrics)),
        "trains with": ", ".join(graph.runtime for graph in manifest.train_graphs) or "-",
        "parent": lineage.parent or "-",
        "run": lineage.run,
        "checkpoint": lineage.checkpoint_sha256[:12],
        "compiled by": f"hedgerow {lineage.code_version}",
        "note": lineage.note or "-",
    }
    return _pairs_table(manifest.release, facts)


def _told(output: Output) -> str:
    """Return an output's kind and all that its record says, such as the names of its classes."""
    said = {name: value for name, value in output.to_record().items() if value not in (None, [], ())}
    facts = (
        f"{name} {', '.join(map(str, value)) if isinstance(value, list) else value}" for name, value in said.items()
    )
    return "; ".join([output.kind, *facts])


def _artifact_table(artifact: Artifact) -> Table:
    states = sorted(set(artifact.checks.values()), key=lambda state: (state != "passed", state))
    checks = [f"{state}: {', '.join(n for n, s in artifact.checks.items() if s == state)}" for state in states]
    facts = {
        "format": f"{artifact.format} for {artifact.runtime}, {artifact.blob.length_bytes:,} bytes",
        "recipe": "\n".join(artifact.recipe),
        "metrics": ", ".join(_numbers(artifact.metrics)),
        "checks": "\n".join(checks) or "-",
    }
    return _pairs_table(f"artifact for {artifact.target}", facts)


def _pairs_table(title: str, facts: Mapping[str, str]) -> Table:
    first = Column(no_wrap=True, min_width=11)
    table = Table(first, Column(overflow="fold"), title=title, title_justify="left", box=SIMPLE, show_header=False)
    for fact, value in facts.items():
        _add_row(table, fact, value)
    return table


def _numbers(metrics: Mapping[str, float]) -> list[str]:
    return [f"{name} {value:,.0f}" if value >= 10_000 else f"{name} {value:.4g}" for name, value in metrics.items()]


def _add_row(table: Table, *cells: str) -> None:
    # Notes and labels are data: rich must not read markup in them.
    table.add_row(*(Text(cell) for cell in cells))
