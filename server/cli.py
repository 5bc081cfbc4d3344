"""``hedgerow train`` and ``hedgerow task check``. Importing this module imports neither torch nor Flower."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hedgerow.counted import counted
from hedgerow.decode import encode_json
from hedgerow.installation import require
from hedgerow.options import json_option
from hedgerow.progress_display import ProgressDisplay
from hedgerow.server.errors import RoundFailedError
from hedgerow.server.run_options import folder_options, rounds_option, seed_option, start_option
from hedgerow.server.strategies import STRATEGIES, check_strategy
from hedgerow.task import load_task

if TYPE_CHECKING:
    from hedgerow.server.task_report import TaskReport
    from hedgerow.server.training import TrainResult

__all__ = ["check", "train"]

_BAR_WIDTH = 20


@click.command(epilog="\b\nExample:\n  hedgerow train examples/digits/task.py:task --rounds 20 --out out/run")
@click.argument("task")
@click.option(
    "--strategy",
    default="fedavg",
    show_default=True,
    metavar="NAME",
    help=f"How the clients' updates become new weights: {', '.join(STRATEGIES)}; averaging ones with differential "
    "privacy if wanted, such as fedavg+server-fixed:clip=1,noise=1; or your own, as file.py:ATTRIBUTE.",
)
@rounds_option(20)
@click.option(
    "--clients",
    default=8,
    show_default=True,
    type=click.IntRange(1),
    help="Clients to simulate in this process, each with a part of the training data of its own.",
)
@click.option(
    "--fraction",
    default=1.0,
    show_default=True,
    type=click.FloatRange(0, 1, min_open=True),
    help="Share of the clients that train in each round.",
)
@seed_option
@start_option
@folder_options("out/run", holds="the run and its checkpoint", found="the run that is in the folder")
def train(
    task: str,
    strategy: str,
    rounds: int,
    clients: int,
    fraction: float,
    seed: int,
    start: Path | None,
    out: Path,
    resume: bool,
    as_json: bool,
) -> None:
    """Train TASK (module:attribute or file.py:attribute) with federated learning.

    Every mistake in the task is reported before the first round. A run that was stopped goes on from its last finished
    round when the same command is called again, and ends with the same weights.
    """
    check_strategy(strategy)
    require("training", "train", ("flwr", "rich", "torch"))
    loaded = load_task(task)
    # Imported after the names were found, so that a wrong one is answered at once.
    from hedgerow.server.check import examine_task
    from hedgerow.server.outcome import shown_metrics, shown_refusals
    from hedgerow.server.training import train_task
    from hedgerow.server.weights.importing import starting_weights

    _report, data = examine_task(loaded, clients=clients, seed=seed)
    begun = starting_weights(start, loaded) if start is not None else None
    with ProgressDisplay() as display:
        for note in begun.notes if begun is not None else ():
            display.say(note)
        try:
            result = train_task(
                loaded,
                out,
                strategy=strategy,
                rounds=rounds,
                clients=clients,
                fraction=fraction,
                seed=seed,
                initial=begun.checkpoint if begun is not None else None,
                data=data,
                fresh=not resume,
                report=display.report,
            )
        except KeyboardInterrupt:
            display.say(f"stopped; finished rounds are in {out}, the same command goes on from there")
            raise
        except RoundFailedError as exc:
            if as_json:
                click.echo(encode_json(exc.to_record()))
            raise
    if as_json:
        click.echo(encode_json(_record(result, strategy=strategy, clients=clients, seed=seed)))
        return
    shown, *more = shown_metrics(loaded, result.checkpoint.metrics)
    last = result.history[-1]
    trained = last.clients or len(last.participants)
    held = counted(len(result.history), "round")
    click.echo(f"{loaded.name}: {held} of {strategy} over {counted(trained, 'client')}; {shown}")
    for line in more:
        click.echo(line)
    click.echo(f"updates: {result.updates:,} used, {shown_refusals(result.refused)} refused")
    if result.privacy is not None:
        click.echo(result.privacy.line())
        if begun is not None:
            click.echo("privacy: nothing is said of the data that the first weights were trained on")
    click.echo(f"checkpoint: {result.checkpoint_folder}")


def _record(result: "TrainResult", *, strategy: str, clients: int, seed: int) -> dict[str, Any]:
    """Return *result* as plain JSON values."""
    return {
        "checkpoint": str(result.checkpoint_folder),
        "task": result.checkpoint.task,
        "run": result.checkpoint.run,
        "strategy": strategy,
        "rounds": len(result.history),
        "clients": clients,
        "seed": seed,
        "updates": result.updates,
        "refused": result.refused,
        "privacy": None if result.privacy is None else result.privacy.to_record(),
        "metrics": dict(result.checkpoint.metrics),
        "seconds": round(sum(entry.seconds for entry in result.history), 3),
        "history": [entry.to_record() for entry in result.history],
    }


@click.command(epilog="\b\nExample:\n  hedgerow task check examples/digits/task.py:task")
@click.argument("task")
@click.option(
    "--clients",
    default=8,
    show_default=True,
    type=click.IntRange(1),
    help="Clients to cut the training data for, as `hedgerow train` does.",
)
@json_option
def check(task: str, clients: int, as_json: bool) -> None:
    """Report every mistake in TASK (module:attribute or file.py:attribute).

    A task without mistakes is shown: its inputs and outputs, the class balance, how the data is cut into clients, and
    one forward pass.
    """
    require("checking a task", "train", ("rich", "torch"))
    loaded = load_task(task)
    from hedgerow.server.check import check_task

    report = check_task(loaded, clients=clients)
    if as_json:
        click.echo(encode_json(report.to_record()))
    else:
        _show(report)


def _show(report: "TaskReport") -> None:
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table

    console = Console()
    schema = Table(
        "tensor", "shape", "dtype", "unit", "range", title=f"{report.task}: schema", title_justify="left", box=SIMPLE
    )
    for kind, specs in (("in", report.schema.inputs), ("out", report.schema.outputs)):
        for spec in specs:
            bounds = f"{_number(spec.minimum)} .. {_number(spec.maximum)}"
            # State has its batch where the model wants it.
            is_state = spec.name in {*report.schema.state, *report.schema.state.values()}
            shape = spec.shape if is_state else ("n", *spec.shape)
            schema.add_row(f"{kind}  {spec.name}", _shape(shape), spec.dtype, spec.unit_text, bounds)
    console.print(schema)

    totals = ", ".join(f"{part} {count}" for part, count in report.samples.items())
    title = f"data: {totals}"
    for output, parts in report.class_counts.items():
        told = title if report.schema.answers.alone is not None else f"{title}; {output}"
        classes = Table("class", "train", "", "held out", "", title=told, title_justify="left", box=SIMPLE)
        most = {part: max(counts) for part, counts in parts.items()}
        for index, label in enumerate(report.schema.answers[output].strata_names):
            cells = [label]
            for part, counts in parts.items():
                cells += [str(counts[index]), _class_bar(counts[index], most[part])]
            classes.add_row(*cells)
        console.print(classes)
    if not report.class_counts:
        console.print(title)
    console.print(f"clients: {len(report.partition)}, samples of each: {', '.join(map(str, report.partition))}")

    stages = Table(
        "stage", "tensor", "shape", "dtype", "values", title="one forward pass", title_justify="left", box=SIMPLE
    )
    for stage in report.stages:
        values = f"{stage.minimum:.3g} .. {stage.maximum:.3g}"
        stages.add_row(stage.stage, stage.name, _shape(stage.shape), stage.dtype, values)
    console.print(stages)
    console.print(
        f"loss {report.loss:.4f}; the gradient reaches all {report.parameters:,} parameters "
        f"({report.parameter_bytes:,} bytes)"
    )
    if report.baseline is not None:
        outputs = report.schema.answers
        untrained = report.metrics.get(outputs.score_key)
        beside = "" if untrained is None else f"; the untrained model's is {untrained:.3f}"
        console.print(f"baseline: {report.baseline.answer}: {outputs.score_name} {report.baseline.score:.3f}{beside}")
    if report.last_value is not None:
        name = report.schema.answers.score_name
        console.print(f"always the last value: {name} {report.last_value:.3f}, which a forecast must beat")
    for warning in report.warnings:
        console.print(f"note: {warning}")
    console.print("no mistakes found")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:g}"


def _shape(sizes: tuple[object, ...]) -> str:
    return " x ".join(str(size) for size in sizes)


def _class_bar(count: int, most: int) -> str:
    return "█" * round(_BAR_WIDTH * count / most) if most else ""
