"""``hedgerow release``: sign a build as a release, list releases, show one."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from hedgerow.fleet import releases
from hedgerow.fleet.layout import FleetFolder
from hedgerow.fleet.releases import ReleaseEntry
from hedgerow.fleet.signing import signed_releases
from hedgerow.manifest import Manifest

__all__ = ["create", "list_releases", "show"]

_folder_option = click.option(
    "--fleet-folder",
    "fleet_folder",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    metavar="DIR",
    help="The fleet's folder, made by `hedgerow fleet init`.",
)
_json_option = click.option("--json", "as_json", is_flag=True, help="Write one JSON object on the last line instead.")


@click.command()
@click.argument("name")
@click.option(
    "--build",
    "build_folder",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    metavar="DIR",
    help="What `hedgerow compile` wrote.",
)
@_folder_option
@click.option("--parent", metavar="RELEASE", help="The release that this one was trained from.")
@click.option("--note", default="", help="One line for people.")
@click.option("--allow-failed-checks", is_flag=True, help="Release although checks failed; the manifest says which.")
@_json_option
def create(
    name: str,
    build_folder: Path,
    fleet_folder: Path,
    parent: str | None,
    note: str,
    *,
    allow_failed_checks: bool,
    as_json: bool,
) -> None:
    """Sign a build as the next release NAME@NUMBER.

    Needs the keys of the roles targets, snapshot and timestamp in the fleet's folder.
    """
    manifest = releases.create_release(
        FleetFolder(fleet_folder),
        name,
        build_folder,
        now=time.time(),
        parent=parent,
        note=note,
        allow_failed_checks=allow_failed_checks,
    )
    if as_json:
        click.echo(json.dumps(_summary(manifest, "listed")))
        return
    click.echo(f"{manifest.release} is signed for {', '.join(artifact.target for artifact in manifest.artifacts)}")


@click.command("list")
@_folder_option
@_json_option
def list_releases(fleet_folder: Path, *, as_json: bool) -> None:
    """List all releases; devices install the listed ones only."""
    entries = releases.list_releases(FleetFolder(fleet_folder))
    if as_json:
        click.echo(json.dumps({"releases": [_summary(entry.manifest, entry.state) for entry in entries]}))
        return
    if not entries:
        click.echo("no releases yet; make one with `hedgerow release create`")
        return
    Console().print(_list_table(entries))


@click.command()
@click.argument("release")
@_folder_option
@_json_option
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
    Console().print(_artifact_table(manifest))


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
    table = Table(Column("release", no_wrap=True), "state", "created", "targets", "metrics", "parent", "note")
    for entry in entries:
        manifest = entry.manifest
        _add_row(
            table,
            manifest.release,
            entry.state,
            manifest.created_at,
            "\n".join(artifact.target for artifact in manifest.artifacts),
            _numbers(manifest.metrics),
            manifest.lineage.parent or "-",
            manifest.lineage.note,
        )
    return table


def _facts_table(manifest: Manifest, state: str, revoked: tuple[str, str] | None) -> Table:
    table = Table("fact", "value", title=manifest.release)
    lineage = manifest.lineage
    facts = {
        "state": state if revoked is None or state == "listed" else f"{state} at {revoked[0]}: {revoked[1]}",
        "task": manifest.task,
        "created": manifest.created_at,
        "inputs": "\n".join(f"{spec.name} {spec.dtype}{list(spec.shape)}" for spec in manifest.model_schema.inputs),
        "labels": ", ".join(manifest.model_schema.labels),
        "metrics": _numbers(manifest.metrics),
        "trains with": ", ".join(graph.runtime for graph in manifest.train_graphs) or "-",
        "parent": lineage.parent or "-",
        "run": lineage.run,
        "checkpoint": lineage.checkpoint_sha256[:12],
        "compiled by": f"hedgerow {lineage.code_version}",
        "note": lineage.note,
    }
    for fact, value in facts.items():
        _add_row(table, fact, value)
    return table


def _artifact_table(manifest: Manifest) -> Table:
    table = Table(
        Column("target", no_wrap=True), "format", "runtime", "bytes", "recipe", "metrics", "checks", title="artifacts"
    )
    for artifact in manifest.artifacts:
        _add_row(
            table,
            artifact.target,
            artifact.format,
            artifact.runtime,
            f"{artifact.blob.length_bytes:,}",
            "\n".join(artifact.recipe),
            _numbers(artifact.metrics),
            "\n".join(f"{name}: {state}" for name, state in artifact.checks.items()),
        )
    return table


def _numbers(metrics: Mapping[str, float]) -> str:
    return "\n".join(f"{name} {value:.4g}" for name, value in metrics.items())


def _add_row(table: Table, *cells: str) -> None:
    # Notes and labels are data: rich must not read markup in them.
    table.add_row(*(Text(cell) for cell in cells))
