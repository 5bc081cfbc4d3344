"""``hedgerow simulate``. Importing this module imports neither torch nor Flower."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hedgerow.counted import counted
from hedgerow.decode import encode_json
from hedgerow.errors import UnknownNameError
from hedgerow.installation import require
from hedgerow.local_work import OPTIMIZERS
from hedgerow.outputs import Outputs
from hedgerow.partition import PARTITIONS, parse_partition
from hedgerow.plugins import Plugin, load_plugin
from hedgerow.progress_display import ProgressDisplay
from hedgerow.server.cohort.engines import AUTO, ENGINES
from hedgerow.server.errors import RoundFailedError
from hedgerow.server.run_options import folder_options, rounds_option, seed_option, start_option
from hedgerow.server.simulation.device_model import PHONES, DeviceModel
from hedgerow.server.simulation.errors import SimulationError
from hedgerow.server.simulation.plan import ASYNCHRONOUS, SimulationPlan
from hedgerow.server.simulation.variations import VARIABLE, Variation, parse_variations, plan_with
from hedgerow.server.strategies import STRATEGIES
from hedgerow.task import load_task

if TYPE_CHECKING:
    from hedgerow.server.simulation.sweep import SweepResult

__all__ = ["simulate"]

_DEVICES = ("auto", "cpu", "cuda")
_PARTS = {
    "check of tasks": Plugin("hedgerow.server.check:examine_task", "simulate"),
    "simulator": Plugin("hedgerow.server.simulation.simulate:Simulator", "simulate"),
    "choice of devices": Plugin("hedgerow.server.simulation.simulate:resolve_device", "simulate"),
    "plots": Plugin("matplotlib.figure:Figure", "simulate"),
}


@click.command(
    epilog="\b\nExamples:\n"
    "  hedgerow simulate --task T --clients 1000 --cohort 50 \\\n    --partition dirichlet:0.1\n"
    "  hedgerow simulate --task T --clients 1000000 --cohort 1000 \\\n    --population phones --deadline 60\n"
    "  hedgerow simulate --task T --vary learning-rate=log:0.001..1 \\\n    --vary strategy=fedavg,fedadam --trials 30"
)
@click.option("--task", "reference", required=True, metavar="T", help="module:attribute or file.py:attribute.")
@click.option(
    "--clients",
    type=click.IntRange(1),
    help="Registered virtual clients; a million is fine.  [default: 100, or the values of the partition's column]",
)
@click.option("--cohort", default=10, show_default=True, type=click.IntRange(1), help="Clients of each round.")
@rounds_option(100)
@click.option(
    "--strategy",
    default="fedavg",
    show_default=True,
    metavar="NAME",
    help=f"How the clients' updates become new weights: {', '.join(STRATEGIES)}, {ASYNCHRONOUS} (asynchronous); "
    "averaging ones with differential privacy if wanted, such as fedavg+server-fixed:clip=1,noise=1; or your own, as "
    "file.py:ATTRIBUTE.",
)
@click.option(
    "--partition",
    metavar="NAME[:VALUE]",
    help=f"How the data is spread over clients: {', '.join(sorted(PARTITIONS))}, with their number or column, such as "
    "dirichlet:0.1, shards:2, quantity:0.5 or column:user; or your own, as file.py:ATTRIBUTE.  [default: the task's]",
)
@click.option(
    "--samples",
    type=click.IntRange(1),
    help="Samples of each client, on average; clients share them where there are too few.  [default: all, divided]",
)
@click.option(
    "--engine",
    default=AUTO,
    show_default=True,
    metavar="NAME",
    help=f"What trains the clients: {', '.join(sorted(ENGINES))}; their results agree to 1e-5.",
)
@click.option("--device", default="auto", show_default=True, type=click.Choice(_DEVICES), help="What it trains on.")
@click.option("--workers", type=click.IntRange(1), help="Processes of the engine workers.  [default: one a core]")
@click.option("--epochs", type=click.IntRange(1), help="Epochs of a client in a round.  [default: the task's]")
@click.option("--learning-rate", type=float, help="Learning rate of the clients.  [default: the task's]")
@click.option("--batch-size", type=click.IntRange(1), help="Samples in a batch of the clients.  [default: the task's]")
@click.option(
    "--optimizer", default="sgd", show_default=True, type=click.Choice(OPTIMIZERS), help="What the clients step by."
)
@click.option("--momentum", default=0.0, show_default=True, type=float, help="Momentum of the clients' SGD.")
@click.option("--weight-decay", default=0.0, show_default=True, type=float, help="Weight decay of the clients.")
@seed_option
@start_option
@click.option(
    "--population",
    metavar="MIX",
    help=f"Give devices a speed, a network and a virtual clock: {PHONES}, or hardware targets with shares, such as "
    "raspberry-pi-4:0.5,android-arm64:0.5.",
)
@click.option(
    "--trace",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="When devices were available, recorded (CSV or JSON lines).",
)
@click.option("--diurnal", is_flag=True, help="Devices are available at night, each at its own hours.")
@click.option(
    "--drop-out", default=0.0, show_default=True, type=click.FloatRange(0, 1), help="Chance to leave a round."
)
@click.option("--deadline", type=float, metavar="S", help="A round's longest virtual time in seconds.")
@click.option("--wait-for", type=click.IntRange(1), metavar="N", help="A round ends when so many have answered.")
@click.option("--keep-partial", is_flag=True, help="Who cannot make the deadline does as many epochs as it can.")
@click.option(
    "--buffer",
    type=click.IntRange(1),
    metavar="N",
    help=f"Updates that make new weights under {ASYNCHRONOUS}.  [default: half the cohort]",
)
@click.option(
    "--evaluate-every",
    type=click.IntRange(1),
    metavar="N",
    help="Rounds from one evaluation to the next.  [default: a hundred evaluations in all]",
)
@click.option(
    "--checkpoint-every",
    type=click.IntRange(1),
    metavar="N",
    help="Rounds from one checkpoint to the next.  [default: one in ten seconds]",
)
@click.option(
    "--vary",
    multiple=True,
    metavar="NAME=VALUES",
    help="Sweep: run with each value (learning-rate=0.01,0.1 or seed=0..4), every combination of several, or search a "
    f"range (learning-rate=log:0.001..1). May vary: {', '.join(VARIABLE)}.",
)
@click.option("--trials", type=click.IntRange(1), help="Trials of a search.  [default: 20]")
@click.option("--prune/--no-prune", default=True, show_default=True, help="Give up runs of a search that do badly.")
@folder_options("out/simulation", holds="the run or the sweep", found="what is in the folder")
def simulate(
    reference: str,
    engine: str,
    device: str,
    workers: int | None,
    start: Path | None,
    vary: tuple[str, ...],
    trials: int | None,
    prune: bool,
    out: Path,
    resume: bool,
    as_json: bool,
    **settings: Any,
) -> None:
    """Simulate federated training over thousands to millions of virtual clients on this machine.

    Nothing but the data differs from real training: Flower's strategies run unchanged. A simulation that was stopped
    goes on from its last checkpoint when the same command is called again, and ends with the same weights.
    """
    plan = _plan(settings)
    plan.check()
    if engine not in {*ENGINES, AUTO}:
        raise UnknownNameError("engine", engine, {*ENGINES, AUTO})
    variations = parse_variations(vary)
    if trials is not None and not variations:
        raise SimulationError("settings to vary in the trials", "none", "add --vary, or leave --trials out")
    _check_values(plan, variations)
    require("simulating", "simulate", ("matplotlib", "rich", "torch"))
    task = load_task(reference)
    # Imported after the names were found, so that a wrong one is answered at once; and all of it, so that nothing is
    # found to be absent after the last round.
    examine_task, simulator_class, resolve_device, *_rest = (load_plugin("part", _PARTS, name) for name in _PARTS)

    device = resolve_device(device)
    from hedgerow.server.weights.importing import starting_weights

    _report, data = examine_task(task, clients=1, seed=plan.seed)
    begun = starting_weights(start, task) if start is not None else None
    initial = begun.checkpoint.weights if begun is not None else None
    sweep: SweepResult | None = None
    with (
        ProgressDisplay() as display,
        simulator_class(task, data=data, engine=engine, device=device, workers=workers, initial=initial) as simulator,
    ):
        for note in begun.notes if begun is not None else ():
            display.say(note)
        try:
            if variations:
                from hedgerow.server.simulation.sweep import run_sweep

                sweep = run_sweep(
                    simulator,
                    plan,
                    variations,
                    out,
                    trials=trials,
                    prune=prune,
                    fresh=not resume,
                    report=display.report,
                )
            else:
                result = simulator.run(plan, out, fresh=not resume, report=display.report)
        except KeyboardInterrupt:
            display.say(f"stopped; {out} holds the last checkpoint, the same command goes on from there")
            raise
        except RoundFailedError as exc:
            if as_json:
                click.echo(encode_json(exc.to_record()))
            raise
    if as_json:
        click.echo(encode_json((sweep or result).to_record()))
    elif sweep is not None:
        _show(sweep, task.answers)
    else:
        for line in result.lines():
            click.echo(line)
    if sweep is not None:
        _check_end(sweep)


def _check_end(sweep: "SweepResult") -> None:
    """Refuse a sweep in which no trial came to its end.

    Raises:
        SimulationError: There is none.
    """
    if sweep.best is None:
        states = Counter(trial.state for trial in sweep.trials)
        raise SimulationError(
            "a trial that came to its end",
            ", ".join(f"{count} {state}" for state, count in states.most_common()) or "none",
            f"see {sweep.folder / 'sweep.json'}, and vary other settings",
        )


def _plan(settings: dict[str, Any]) -> SimulationPlan:
    """Return what the options say.

    Raises:
        UnknownNameError: There is no such partition.
        PartitionError: The partition is malformed.
        SimulationError: An option of the device model stands alone.
    """
    if settings["partition"] is not None:
        settings["partition"] = parse_partition(settings["partition"])
    mix, trace = settings.pop("population"), settings.pop("trace")
    names = ("diurnal", "drop_out", "deadline", "wait_for", "keep_partial")
    model = {name: settings.pop(name) for name in names}
    if mix is None and trace is None:
        alone = [f"--{name.replace('_', '-')}" for name, value in model.items() if value]
        if alone:
            raise SimulationError(
                f"a device model for {' and '.join(alone)}", "none", f"add --population {PHONES}, or --trace"
            )
        return SimulationPlan(**settings)
    model["deadline_s"] = model.pop("deadline")
    return SimulationPlan(**settings, devices=DeviceModel(mix=mix or PHONES, trace=trace, **model))


def _check_values(plan: SimulationPlan, variations: tuple[Variation, ...]) -> None:
    """Refuse a value of a sweep now rather than after the runs before it."""
    for variation in variations:
        for value in variation.values:
            plan_with(plan, {variation.name: value}).check()


def _show(sweep: "SweepResult", outputs: Outputs) -> None:
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table

    table = Table(*sweep.varied, outputs.score_name, "±", "rounds", "seconds", "state", box=SIMPLE)
    for trial in sweep.trials:
        record = trial.to_record()
        deviation = record[f"{outputs.score_key}_sd"]
        table.add_row(
            *(f"{value:.6g}" if isinstance(value, float) else str(value) for value in trial.choices.values()),
            "" if trial.score is None else f"{trial.score:.3f}",
            "" if deviation is None else f"{deviation:.3f}",
            str(sum(len(run.history) for run in trial.runs.values())),
            f"{record['seconds']:.1f}",
            trial.state,
        )
    Console().print(table)
    if sweep.best is not None:
        shown = ", ".join(f"{name} {value}" for name, value in sweep.best.choices.items()) or "the only one"
        best = sweep.best
        shown_score = f"loss {best.loss:.4g}" if best.score is None else f"{outputs.score_name} {best.score:.3f}"
        click.echo(f"best: {shown}; {shown_score}")
    click.echo(f"{counted(len(sweep.trials), 'trial')} in {sweep.seconds:.1f} s: {sweep.folder / 'sweep.json'}")
    click.echo(f"plots: {', '.join(str(path) for path in sweep.plots)}")
