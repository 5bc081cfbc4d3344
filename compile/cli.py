"""``hedgerow compile``."""

import json
import sys
from pathlib import Path
from typing import Any, Self

import click

from hedgerow.compile.build import Build
from hedgerow.compile.errors import CompileError
from hedgerow.compile.pipeline import compile_checkpoint
from hedgerow.progress import Progress, Report

__all__ = ["compile_command"]


@click.command("compile")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("--task", required=True, help="The task: module:attribute or file.py:attribute.")
@click.option("--target", "targets", multiple=True, required=True, help="Hardware target; give it once for each.")
@click.option("--recipe", "recipes", multiple=True, metavar="TARGET=NAME", help="Use another recipe for a target.")
@click.option("--max-drop", type=click.FloatRange(0, 100), default=1.5, show_default=True, help="Accuracy points.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("build/model"), show_default=True, help="Folder.")
@click.option("--jobs", type=click.IntRange(1, 64), default=None, help="Processes at once.  [default: all]")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")
def compile_command(
    checkpoint: Path,
    task: str,
    targets: tuple[str, ...],
    recipes: tuple[str, ...],
    max_drop: float,
    out: Path,
    jobs: int | None,
    as_json: bool,
) -> None:
    """Compile the trained CHECKPOINT (a folder) for hardware targets, and verify every artifact.

    The result is a build folder, from which `hedgerow release create` makes a release.
    """
    chosen = dict.fromkeys(targets)
    with _Bars(enabled=not as_json) as bars:
        build = compile_checkpoint(
            task,
            checkpoint,
            tuple(chosen),
            out,
            max_drop=max_drop / 100,
            jobs=jobs,
            recipes=_parse_recipes(recipes),
            report=bars.report,
        )
    if as_json:
        click.echo(json.dumps({"out": str(out), **json.loads(build.encode())}))
    else:
        _print_table(build, out)


def _parse_recipes(pairs: tuple[str, ...]) -> dict[str, str]:
    recipes = {}
    for pair in pairs:
        target, separator, recipe = pair.partition("=")
        if not separator or not target or not recipe:
            raise CompileError(f"--recipe: expected TARGET=NAME, found {pair!r}; for example x86-gateway=onnx-int8-inc")
        recipes[target] = recipe
    return recipes


class _Bars:
    """Progress bars on stderr; nothing where stderr is no terminal or bars are off."""

    def __init__(self, *, enabled: bool) -> None:
        self._progress: Any = None
        self._bars: dict[str, Any] = {}
        if enabled and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
            from rich.progress import Progress as RichProgress

            columns = (
                TextColumn("{task.description:<28}"),
                BarColumn(),
                TimeElapsedColumn(),
                TextColumn("{task.fields[note]}"),
            )
            self._progress = RichProgress(*columns, console=Console(stderr=True))

    def __enter__(self) -> Self:
        if self._progress is not None:
            self._progress.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    @property
    def report(self) -> Report:
        return self._draw

    def _draw(self, step: Progress) -> None:
        if self._progress is None:
            return
        if step.work not in self._bars:
            self._bars[step.work] = self._progress.add_task(step.work, total=step.total, note="")
        self._progress.update(self._bars[step.work], completed=step.done, total=step.total, note=step.note)


def _print_table(build: Build, out: Path) -> None:
    header = ("target", "format", "bytes", "float bytes", "accuracy", "float", "checks")
    rows = [header]
    for artifact in build.artifacts:
        metrics = artifact.metrics
        not_run = [name for name, state in artifact.checks.items() if state != "passed"]
        rows.append(
            (
                artifact.target,
                artifact.format,
                str(int(metrics["bytes"])),
                str(int(metrics["float_bytes"])),
                f"{metrics['accuracy']:.4f}" if "accuracy" in metrics else "not run",
                f"{metrics['float_accuracy']:.4f}",
                f"{len(artifact.checks) - len(not_run)} passed"
                + (f", not run: {', '.join(not_run)}" if not_run else ""),
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
    for row in rows:
        click.echo("  ".join(value.ljust(width) for value, width in zip(row, widths, strict=True)).rstrip())
    for graph in build.train_graphs:
        click.echo(f"train graph {graph.format}: {graph.blob.length_bytes} bytes, batch {graph.batch_size}")
    click.echo(f"build: {out}")
