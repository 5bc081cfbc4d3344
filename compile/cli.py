"""``hedgerow compile``."""

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hedgerow.compile.budget import Budget
from hedgerow.compile.cache import CACHE_VARIABLE, default_cache_folder
from hedgerow.compile.errors import CompileError, InternalError
from hedgerow.compile.input_shapes import parse_shapes, shape_option
from hedgerow.compile.outcome import Outcome
from hedgerow.compile.pipeline import compile_targets
from hedgerow.compile.refused import INTERNAL
from hedgerow.compile.scoring import score_in
from hedgerow.compile.search import PASSED, PREFERENCES, pareto_front
from hedgerow.compile.train_graph.options import parse_step_options
from hedgerow.counted import counted
from hedgerow.hardware.lookup import target_names
from hedgerow.installation import require
from hedgerow.options import json_option
from hedgerow.progress_display import ProgressDisplay

if TYPE_CHECKING:
    from hedgerow.compile.third_party import FileWishes

__all__ = ["compile_command"]

_MAXIMUM_JOBS = 8
_PIPE_WIDTH = 200


@click.command(
    "compile",
    epilog="\b\nExamples:\n  hedgerow compile out/run/checkpoint --task examples/digits/task.py:task \\\n"
    "      --target raspberry-pi-4 --target android-arm64 --out out/build\n"
    "  hedgerow compile out/run/checkpoint --task examples/digits/task.py:task \\\n"
    "      --all-targets --prefer size --max-drop 1.0",
)
@click.argument("checkpoint", type=click.Path(path_type=Path), required=False)
@click.option("--task", metavar="TASK", help="What was trained: module:attribute or file.py:attribute.")
@click.option(
    "--artifact",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Check and pack this .tflite or .onnx file, instead of compiling a checkpoint; with --data or --task it is "
    "measured, and quantized where it does not fit as it is.",
)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Samples for --artifact: a .npz file with an array for each input and 'labels', or a .csv table with a column "
    "'labels'.",
)
@shape_option
@click.option(
    "--state",
    multiple=True,
    metavar="IN=OUT",
    help="An input of --artifact that takes what this output was one step before, zero at the start; repeat it for "
    "more.",
)
@click.option(
    "--target",
    "targets",
    multiple=True,
    metavar="NAME",
    help="A hardware target, as in `hedgerow targets list`, or your own: a .toml file, or file.py:ATTRIBUTE; repeat it "
    "for more.",
)
@click.option("--all-targets", is_flag=True, help="Compile for every target there is.")
@click.option(
    "--recipe",
    "recipes",
    multiple=True,
    metavar="TARGET=NAME",
    help="Compile for TARGET by this recipe alone, a name or file.py:ATTRIBUTE of your own; repeat it for more.  "
    "[default: each target's own]",
)
@click.option(
    "--max-drop",
    type=click.FloatRange(0, 100),
    default=1.5,
    show_default=True,
    help="Points of the mean score (of accuracy, where the task has classes) that an artifact may lose against the "
    "float model; one that loses more is refused.",
)
@click.option(
    "--min-snr",
    "minimum_snr_db",
    type=click.FloatRange(0, 200),
    metavar="DB",
    help="Least signal to noise of an artifact's outputs against the float model's.  [default: what its recipe "
    "promises]",
)
@click.option(
    "--min-agreement",
    type=click.FloatRange(0, 100),
    metavar="PERCENT",
    help="Least mean agreement of artifact and float model on held-out samples, of each output: for classes the share "
    "on which both predict the same one.  [default: what its recipe promises]",
)
@click.option(
    "--time-limit",
    "limit_s",
    type=click.FloatRange(1, 604_800),
    default=600.0,
    show_default=True,
    metavar="SECONDS",
    help="Longest time that making one target's artifact may take, all its recipes together.",
)
@click.option(
    "--prefer",
    type=click.Choice(PREFERENCES),
    help="Search each target's recipes for the artifact with the least of it.  [default: each target's first recipe "
    "that passes]",
)
@click.option(
    "--train-graph",
    "step_options",
    multiple=True,
    metavar="NAME=VALUE",
    help="What the train graphs hold beyond plain SGD, such as optimizer=adam, trainable='head.*', batch_norm=train or "
    "dropout=yes (docs/train-graph.md); repeat it for more.",
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
    "--cache/--no-cache",
    "use_cache",
    default=True,
    show_default=True,
    help=f"Take what was compiled before from {CACHE_VARIABLE}, or ~/.cache/hedgerow.",
)
@click.option(
    "--jobs",
    type=click.IntRange(1, 64),
    default=None,
    help=f"Processes that work at once.  [default: one for each core, at most {_MAXIMUM_JOBS}]",
)
@json_option
def compile_command(
    checkpoint: Path | None,
    task: str | None,
    artifact: Path | None,
    data: Path | None,
    shapes: tuple[str, ...],
    state: tuple[str, ...],
    targets: tuple[str, ...],
    all_targets: bool,
    recipes: tuple[str, ...],
    max_drop: float,
    minimum_snr_db: float | None,
    min_agreement: float | None,
    limit_s: float,
    prefer: str | None,
    step_options: tuple[str, ...],
    out: Path,
    use_cache: bool,
    jobs: int | None,
    as_json: bool,
) -> int:
    """Compile the trained CHECKPOINT (a folder) for hardware targets, and verify every artifact.

    The result is a build folder with a report, from which `hedgerow release create` makes a release. A target that is
    refused is named with the reason, does not stop the others, and makes the command exit with 1.
    """
    chosen = target_names() if all_targets else tuple(dict.fromkeys(targets))
    if all_targets == bool(targets):
        raise click.UsageError("expected --target NAME (once or more) or --all-targets, not both and not none")
    # Before anything is read: what is absent here must not be blamed on what was given.
    require(
        "compiling", "compile", ("jinja2", "onnx", "rich", "torch") if artifact is None else ("jinja2", "onnx", "rich")
    )
    budget = Budget(
        max_drop=max_drop / 100,
        minimum_snr_db=minimum_snr_db,
        minimum_agreement=min_agreement / 100 if min_agreement is not None else None,
        limit_s=limit_s,
    )
    with ProgressDisplay() as display:
        if artifact is not None:
            if checkpoint is not None or prefer is not None or step_options:
                raise click.UsageError(
                    "--artifact takes no CHECKPOINT, --prefer or --train-graph: it has no torch model"
                )
            if task is not None and data is not None:
                raise click.UsageError("expected --data or --task beside --artifact, not both")
            from hedgerow.compile.packing import pack_targets

            wishes = _wishes(task, data, shapes, state, _parse_recipes(recipes), budget)
            outcome = pack_targets(artifact, chosen, out, wishes, report=display.report)
        elif data is not None or shapes or state:
            raise click.UsageError("--data, --shape and --state belong to --artifact FILE")
        elif checkpoint is None or task is None:
            raise click.UsageError("expected CHECKPOINT and --task, or --artifact FILE")
        else:
            outcome = compile_targets(
                task,
                checkpoint,
                chosen,
                out,
                budget=budget,
                train_options=parse_step_options(step_options),
                jobs=jobs or min(_MAXIMUM_JOBS, len(os.sched_getaffinity(0))),
                recipes=_parse_recipes(recipes),
                prefer=prefer,
                cache=default_cache_folder() if use_cache else None,
                report=display.report,
            )
    if as_json:
        place = str(out) if outcome.build is not None else None
        click.echo(json.dumps({"out": place, **outcome.to_record()}, allow_nan=False))
    else:
        _print_outcome(outcome, out, searched=prefer is not None)
    if any(refusal.check == INTERNAL for refusal in outcome.refused):
        return InternalError.exit_code
    return 1 if outcome.refused else 0


def _wishes(
    task: str | None,
    data: Path | None,
    shapes: Sequence[str],
    state: Sequence[str],
    recipes: Mapping[str, str],
    budget: Budget,
) -> "FileWishes":
    """Return what is wanted of a file from elsewhere.

    Raises:
        CompileError: An option makes no sense.
        TaskError: The task cannot be imported, or its data is wrong.
    """
    from hedgerow.compile.samples import HeldOutSamples, SampleFile, SampleOrigin
    from hedgerow.compile.third_party import FileWishes
    from hedgerow.task import load_task

    source: SampleOrigin | None = SampleFile(data) if data is not None else None
    name = None
    if task is not None:
        loaded = load_task(task)
        source, name = HeldOutSamples(loaded, loaded.load_data()), loaded.name
    if recipes and source is None:
        raise CompileError("--recipe: expected samples to quantize with, found none; give --data or --task")
    pairs = {}
    for pair in state:
        into, separator, out = pair.partition("=")
        if not separator or not into or not out or into in pairs:
            raise CompileError(f"--state: expected IN=OUT, each input once, found {pair!r}; for example h0=h1")
        pairs[into] = out
    return FileWishes(
        task=name, shapes=parse_shapes(shapes), state=pairs, samples=source, recipes=recipes, budget=budget
    )


def _parse_recipes(pairs: tuple[str, ...]) -> dict[str, str]:
    recipes = {}
    for pair in pairs:
        target, separator, recipe = pair.partition("=")
        if not separator or not target or not recipe:
            raise CompileError(f"--recipe: expected TARGET=NAME, found {pair!r}; for example x86-gateway=onnx-int8-inc")
        recipes[target] = recipe
    return recipes


def _print_outcome(outcome: Outcome, out: Path, *, searched: bool) -> None:
    record, key, name = outcome.to_record(), outcome.score_key, outcome.score_name
    rows = [
        (
            artifact["target"],
            artifact["recipe"],
            f"{artifact['bytes']:,}",
            _shown(artifact["float_bytes"], ","),
            _shown(artifact[key], ".1%"),
            _shown(artifact[f"float_{key}"], ".1%"),
            _shown(artifact["target_latency_ms"], ".3g"),
            f"{list(artifact['checks'].values()).count(PASSED)} of {len(artifact['checks'])}",
        )
        for artifact in record["artifacts"]
    ]
    if rows:
        columns = ("bytes", "float bytes", name, f"float {name}", "ms (model)", "checks")
        _print_table(("target", "recipe"), columns, rows)
    if searched:
        _print_front(outcome)
    for artifact in record["artifacts"]:
        for line in _instead(artifact, name):
            click.echo(line)
        for runtime in dict.fromkeys(artifact["executed_by"].values()):
            checks = [check for check, ran in artifact["executed_by"].items() if ran == runtime]
            click.echo(f"{artifact['target']}: {', '.join(checks)} in {runtime}")
        for check, reason in artifact["not_run"].items():
            click.echo(f"{artifact['target']}: the check {check} was not run: {reason}")
    for graph in record["train_graphs"]:
        click.echo(f"train graph {graph['format']}: {graph['bytes']:,} bytes")
    for refusal in record["refused"]:
        further = f" ({refusal['further']})" if refusal["further"] else ""
        click.echo(f"refused: {refusal['target']}: {refusal['reason']}{further}")
    for refusal in outcome.refused:
        if refusal.details:
            click.echo(refusal.details, err=True)
    taken = f", {len(outcome.cached)} from the cache" if outcome.cached else ""
    click.echo(f"{counted(len(rows), 'artifact')} in {outcome.seconds:.1f} s{taken}")
    click.echo(f"build: {out}" if outcome.build is not None else "no build: nothing passed")


def _instead(artifact: Mapping[str, Any], score_name: str) -> Iterator[str]:
    """Yield what was refused before the artifact passed, and what passing cost."""
    for trial in artifact["instead_of"]:
        yield f"{artifact['target']}: {trial['recipe']} was refused: {trial['reason']}"
    if artifact["instead_of"]:
        first = artifact["instead_of"][0]["metrics"]
        costs = [f"{artifact['bytes']:,} bytes" + (f" instead of {int(first['bytes']):,}" if "bytes" in first else "")]
        if (score := score_in(artifact)) is not None:
            before = score_in(first)
            costs.append(f"{score_name} {score:.1%}" + (f" instead of {before:.1%}" if before is not None else ""))
        yield f"{artifact['target']}: {artifact['recipe']} passes and is taken: {', '.join(costs)}"


def _shown(value: float | None, form: str) -> str:
    return "not run" if value is None else format(value, form)


def _print_front(outcome: Outcome) -> None:
    """Print, for each target, the trials that no other beats in both bytes and score."""
    rows = []
    for target in dict.fromkeys(trial.target for trial in outcome.trials):
        own = [trial for trial in outcome.trials if trial.target == target]
        for trial in pareto_front(own):
            metrics = trial.metrics
            rows.append(
                (
                    target,
                    trial.recipe,
                    f"{int(metrics['bytes']):,}",
                    _shown(score_in(metrics), ".2%"),
                    _shown(metrics.get("target_latency_ms"), ".3g"),
                    _shown(metrics.get("target_energy_mj"), ".3g"),
                    "chosen" if outcome.recipes.get(target) == trial.recipe else "",
                )
            )
    name = outcome.score_name
    click.echo(f"Pareto front of bytes and {name}:")
    _print_table(("target", "recipe"), ("bytes", name, "ms (model)", "mJ (model)", ""), rows)


def _print_table(names: Sequence[str], numbers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table

    table = Table(box=SIMPLE)
    for name in names:
        table.add_column(name, no_wrap=True)
    for number in numbers:
        table.add_column(number, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    # A pipe has no width; cutting columns there would lose facts.
    console = Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH)
    console.print(table)
