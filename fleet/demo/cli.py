"""``hedgerow demo``: the main job as one command."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path

import click

from hedgerow.fleet.demo.display import Display
from hedgerow.fleet.demo.errors import DemoError, DemoInterruptedError
from hedgerow.fleet.demo.folder import LOG_FILE, claim_folder
from hedgerow.fleet.demo.plan import plan_devices
from hedgerow.fleet.demo.report import write_report
from hedgerow.fleet.demo.result import DemoResult
from hedgerow.fleet.drift.findings import DriftPlan
from hedgerow.installation import require
from hedgerow.interrupts import Interrupted

__all__ = ["demo"]

_MODULES = ("ai_edge_litert", "coremltools", "fastapi", "flwr", "jinja2", "litert_torch", "onnx", "sklearn", "torch")
"""One or more of each extra that the demo goes through."""


@click.command("demo", epilog="\b\nExample:\n  hedgerow demo --seed 3")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("out/demo"),
    show_default=True,
    metavar="DIR",
    help="Folder of the report, the logs and everything that is made.",
)
@click.option("--devices", type=int, default=8, show_default=True, help="Agents to start, each in its own process.")
@click.option(
    "--seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True, help="Seed of everything random."
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object, the last line of stdout.")
def demo(out: Path, devices: int, seed: int, as_json: bool) -> None:
    """Watch one model make the whole round trip: train, compile, sign, roll out, drift, retrain, stop a bad release.

    Everything is real: agents in processes of their own, an MQTT broker, TUF signatures, SQLite, ONNX Runtime and
    LiteRT, on 1,797 real images. It takes one to two minutes.
    """
    plan_devices(devices)
    # Before a broker is started, and before what an earlier demo left is replaced.
    require("the demo", "all", _MODULES)
    try:
        result = _run(out.resolve(), devices, seed)
    except KeyboardInterrupt as exc:
        raise DemoInterruptedError(exc.signal_name if isinstance(exc, Interrupted) else "SIGINT") from exc
    if as_json:
        click.echo(json.dumps(result.to_record()))


def _run(out: Path, devices: int, seed: int) -> DemoResult:
    from hedgerow.fleet.demo.run import run_demo
    from hedgerow.fleet.demo.scene import DemoSettings

    settings = DemoSettings(out=out, example=_example(), devices=devices, seed=seed)
    with claim_folder(out, settings.work), _quiet_logs(out):
        with Display() as display:
            result, story = run_demo(settings, display)
        report = out / "report.html"
        write_report(report, result, story, threshold_js_bits=DriftPlan().minimum_effect_js)
    _print_table(result)
    click.echo(f"report with plots: {report}", err=True)
    return result


def _example() -> Path:
    folder = Path(str(resources.files("hedgerow.examples").joinpath("digits")))
    if not (folder / "task.py").is_file():
        raise DemoError(f"expected the digits example in {folder}, found none; install Hedgerow again")
    return folder


@contextmanager
def _quiet_logs(out: Path) -> Iterator[None]:
    """Send log lines to a file: bars and log lines on one terminal make both unreadable."""
    handler = logging.FileHandler(out / LOG_FILE, mode="w", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    try:
        yield
    finally:
        root.handlers[:] = before
        root.setLevel(level)
        handler.close()


def _print_table(result: DemoResult) -> None:
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table

    console = Console(stderr=True, highlight=False)
    artifacts = Table(title="artifacts of the first release", title_justify="left", box=SIMPLE)
    for column in ("target", "format"):
        artifacts.add_column(column, no_wrap=True)
    for column in ("bytes", "float bytes", "accuracy", "float accuracy"):
        # As wide as the longest word: a heading may take two lines, but its words stay whole.
        artifacts.add_column(column, justify="right", min_width=max(map(len, column.split())))
    artifacts.add_column("checks", justify="right", no_wrap=True)
    for artifact in result.artifacts:
        passed = list(artifact.checks.values()).count("passed")
        artifacts.add_row(
            artifact.target,
            artifact.format,
            f"{artifact.bytes:,}",
            f"{artifact.float_bytes:,}",
            "not run" if artifact.accuracy is None else f"{artifact.accuracy:.1%}",
            f"{artifact.float_accuracy:.1%}",
            f"{passed} of {len(artifact.checks)}",
        )
    story = Table(title="the round trip", title_justify="left", show_header=False, box=SIMPLE)
    story.add_column()
    story.add_column()
    train, rollout, drift = result.train, result.rollout, result.drift
    retrain, bad = result.retrain, result.bad_release
    rows = {
        "broker": result.broker,
        "first training": f"{train.strategy}, {train.rounds} rounds, accuracy {train.accuracy:.1%}",
        "rollout": f"{rollout.state}, {rollout.succeeded} devices succeeded, {rollout.failed} failed",
        "drift": f"alert after {drift.windows_to_detect} windows, {drift.false_alarms} false alarms"
        if drift.detected
        else "not detected",
        "accuracy where the world moved": f"{drift.accuracy_before:.1%} before, {drift.accuracy_during:.1%} during, "
        f"{retrain.accuracy_after:.1%} after",
        "retraining": f"{retrain.grid}, {retrain.rounds} rounds, started by: {retrain.trigger}",
        "bad release": f"{'stopped' if bad.stopped else 'not stopped'}, {bad.exposed} devices exposed, "
        f"{'rolled back' if bad.rolled_back else 'not rolled back'}",
        "the fleet runs": result.final_release,
        "seconds": f"{result.seconds:.0f}",
    }
    for name, value in rows.items():
        story.add_row(name, value)
    console.print(artifacts)
    for artifact in result.artifacts:
        if absent := [name for name, state in artifact.checks.items() if state != "passed"]:
            console.print(f"{artifact.target}: not checked on this machine: {', '.join(absent)}")
    console.print(story)
