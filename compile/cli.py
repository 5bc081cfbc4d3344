"""``hedgerow compile``."""

import json
import sys
from pathlib import Path
from typing import Any, Self

import click

from hedgerow.compile.build import Build
from hedgerow.compile.errors import CompileError
from hedgerow.compile.pipeline import compile_checkpoint
from hedgerow.compile.verify import PASSED
from hedgerow.progress import Progress, Report

__all__ = ["compile_command"]


@click.command(
    "compile",
    epilog="\b\nExample:\n  hedgerow compile out/run/checkpoint --task examples/digits/task.py:task \\\n"
    "      --target raspberry-pi-4 --target android-arm64 --out out/build",
)
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("--task", required=True, metavar="TASK", help="What was trained: module:attribute or file.py:attribute.")
@click.option(
    "--target",
    "targets",
    multiple=True,
    required=True,
    metavar="NAME",
    help="A hardware target, as in `hedgerow targets list`; repeat it for more.",
)
@click.option(
    "--recipe",
    "recipes",
    multiple=True,
    metavar="TARGET=NAME",
    help="Compile for TARGET by another recipe than its own; repeat it for more.  [default: each target's own]",
)
@click.option(
    "--max-drop",
    type=click.FloatRange(0, 100),
    default=1.5,
    show_default=True,
    help="Points of accuracy that an artifact may lose against the float model; one that loses more fails.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("out/build"),
    show_default=True,
    metavar="DIR",
    help="Folder of the build; an earlier build there is replaced.",
)
@click.option(
    "--jobs",
    type=click.IntRange(1, 64),
    default=None,
    help="Processes that work at once.  [default: one for each format]",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, the last line of stdout.")
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
    header = ("target", "format", "bytes", "float bytes", "accuracy", "float accuracy", "checks")
    rows = [header]
    for artifact in build.artifacts:
        metrics = artifact.metrics
        passed = list(artifact.checks.values()).count(PASSED)
        rows.append(
            (
                artifact.target,
                artifact.format,
                f"{int(metrics['bytes']):,}",
                f"{int(metrics['float_bytes']):,}",
                f"{metrics['accuracy']:.1%}" if "accuracy" in metrics else "not run",
                f"{metrics['float_accuracy']:.1%}",
                f"{passed} of {len(artifact.checks)}",
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
    for row in rows:
        names = [value.ljust(width) for value, width in zip(row[:2], widths, strict=False)]
        numbers = [value.rjust(width) for value, width in zip(row[2:], widths[2:], strict=True)]
        click.echo("  ".join(names + numbers))
    for artifact in build.artifacts:
        if absent := [name for name, state in artifact.checks.items() if state != PASSED]:
            click.echo(f"{artifact.target}: not run on this machine: {', '.join(absent)}")
    for graph in build.train_graphs:
        click.echo(f"train graph {graph.format}: {graph.blob.length_bytes:,} bytes, batches of {graph.batch_size}")
    click.echo(f"build: {out}")
