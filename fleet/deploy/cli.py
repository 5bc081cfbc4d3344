"""``hedgerow deploy``: from a checkpoint to running agents."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from hedgerow.installation import require
from hedgerow.interrupts import UndisturbedStack
from hedgerow.options import json_option
from hedgerow.progress_display import ProgressDisplay

__all__ = ["deploy"]

_NEEDED = ("fastapi", "httpx", "jinja2", "onnx", "rich", "sqlite_utils", "torch", "uvicorn")
_DEFAULT_URL = "http://127.0.0.1:8080"
_PATIENCE_S = 300.0


@click.command(
    epilog="\b\nExamples:\n  hedgerow deploy out/imported --task task.py:task --fleet out/fleet\n"
    "  hedgerow deploy out/run/checkpoint --task task.py:task --fleet out/fleet \\\n"
    "      --target raspberry-pi-4 --target android-arm64 --stay"
)
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("--task", "reference", required=True, metavar="T", help="module:attribute or file.py:attribute.")
@click.option(
    "--fleet",
    "fleet_path",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="The fleet's folder; where there is none, a development fleet is made.",
)
@click.option(
    "--target",
    "targets",
    multiple=True,
    metavar="NAME",
    help="A hardware target, as for `hedgerow compile`; repeat it for more.  [default: those of the fleet's devices; "
    "in a new fleet the one most like this machine]",
)
@click.option(
    "--server",
    "url",
    metavar="URL",
    help=f"Address of the fleet service.  [default: {_DEFAULT_URL} if one runs on the folder, else one is started]",
)
@click.option(
    "--floor",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    metavar="SCORE",
    help="Score that the devices must show.  [default: as of `hedgerow rollout start`]",
)
@click.option(
    "--patience",
    "patience_s",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help=f"How long a stage waits for its gate.  [default: {_PATIENCE_S:g} in a development fleet, else that of "
    "`hedgerow rollout start`]",
)
@click.option("--no-gate", is_flag=True, help="Go on by install results alone, whatever the quality of the model.")
@click.option(
    "--max-drop",
    type=click.FloatRange(0, 100),
    default=1.5,
    show_default=True,
    help="Points of the mean score (of accuracy, where the task has classes) that an artifact may lose against the "
    "float model.",
)
@click.option("--stay", is_flag=True, help="Let a development fleet run on until Ctrl-C.")
@json_option
def deploy(
    checkpoint: Path,
    reference: str,
    fleet_path: Path,
    targets: tuple[str, ...],
    url: str | None,
    floor: float | None,
    patience_s: float | None,
    no_gate: bool,
    max_drop: float,
    stay: bool,
    as_json: bool,
) -> int:
    """Compile CHECKPOINT (a folder), sign it as a release, and roll it out to the fleet's devices.

    Where no service runs on the fleet's folder, a development fleet is started: a broker, a service and an agent for
    each target on this machine, which see the task's held-out samples. What is done already is not done again, so the
    same command goes on after a kill. The exit code is 1 unless the rollout is FINISHED.
    """
    if no_gate and (floor is not None or patience_s is not None):
        raise click.UsageError("expected --floor or --patience of a gate, or --no-gate, found both; leave one out")
    require("deploying", "all", _NEEDED)
    # Imported after the packages were found, so that what is absent is named at once.
    from hedgerow.compile.budget import Budget
    from hedgerow.fleet.deploy.deployment import DeployWishes, run_deployment, stay_until_stopped

    plan: dict[str, Any] = {} if patience_s is None else {"gate_timeout_s": patience_s}
    if no_gate or floor is not None:
        plan["gate"] = None if no_gate else {"floor": floor}
    wishes = DeployWishes(
        checkpoint=checkpoint,
        task=reference,
        fleet=fleet_path,
        targets=tuple(dict.fromkeys(targets)),
        url=url,
        plan=plan,
        budget=Budget(max_drop=max_drop / 100),
    )
    with UndisturbedStack() as stack, ProgressDisplay() as display:
        try:
            found = run_deployment(wishes, stack, display.report, display.say)
        except KeyboardInterrupt:
            display.say("stopped; the same command goes on from here")
            raise
        if as_json:
            click.echo(json.dumps(found.to_record(), allow_nan=False))
        for line in () if as_json else found.lines():
            click.echo(line)
        if found.site.development is not None and stay and found.is_finished:
            display.say("the development fleet runs on; stop it with Ctrl-C")
            with suppress(KeyboardInterrupt):  # its end as it should be
                stay_until_stopped(found.site)
        elif found.site.development is not None:
            display.say("the development fleet ends here; --stay lets it run on")
    return 0 if found.is_finished else 1
