"""``hedgerow rollout start`` and ``hedgerow rollout status``."""

import json
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from hedgerow.fleet.commands.options import checked_name
from hedgerow.fleet.commands.options import connect as _connect
from hedgerow.fleet.commands.options import key_file_option as _key_file
from hedgerow.fleet.commands.options import server_option as _server
from hedgerow.fleet.rollout.gates import GatePlan
from hedgerow.fleet.rollout.plan import RolloutPlan
from hedgerow.fleet.rollout.state import RolloutState
from hedgerow.fleet.web.client import ApiClient
from hedgerow.options import json_option

__all__ = ["OVER", "follow_rollout", "rollout_line", "start", "status"]

OVER = {state.value for state in RolloutState if state.is_terminal}
_POLL_S = 0.5
_SAY_AGAIN_S = 10.0
"""While nothing else changes, the evidence so far is told again no sooner; it changes with every window."""
_DEFAULT_STAGES = " ".join(f"{stage.name}={stage.share:g}" for stage in RolloutPlan().stages)


def _stage(_context: click.Context, _option: click.Parameter, values: tuple[str, ...]) -> list[dict[str, Any]]:
    stages = []
    for value in values:
        name, separator, share = value.partition("=")
        try:
            stages.append({"name": name, "share": float(share)})
        except ValueError:
            separator = ""
        if not separator or not name:
            raise click.BadParameter(f"expected NAME=SHARE like canary=0.25, found {value!r}")
    return stages


@click.command(
    "start",
    epilog="\b\nExamples:\n  hedgerow rollout start digits@1 --key-file out/fleet/admin.key --wait\n"
    "  hedgerow rollout start digits@2 --key-file out/fleet/admin.key \\\n"
    "      --stage canary=0.05 --stage half=0.5 --stage fleet=1",
)
@click.argument("release")
@_server
@_key_file
@click.option(
    "--stage",
    "stages",
    multiple=True,
    callback=_stage,
    metavar="NAME=SHARE",
    help="A stage, and the share of the devices that have the release after it; the last is 1. Repeat it for more.  "
    f"[default: {_DEFAULT_STAGES}]",
)
@click.option(
    "--floor",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    metavar="SCORE",
    help="Mean score (of classes: accuracy) that the devices must show, such as 0.9.  [default: what was measured "
    "before release, at the lower end of its interval, less the margin]",
)
@click.option(
    "--margin",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    metavar="SHARE",
    help="Fall of the mean score that is accepted.  "
    f"[default: {GatePlan().maximum_accuracy_drop:g}, {100 * GatePlan().maximum_accuracy_drop:g} points]",
)
@click.option(
    "--disagreement",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    metavar="SHARE",
    help="Disagreement with the model before that is accepted. It can stop a release to which no target values arrive, "
    "and alone lets one go on whose outputs no device scores.  [default: no bound]",
)
@click.option(
    "--patience",
    "patience_s",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="How long a stage waits for its gate to decide before everything goes back.  "
    f"[default: {RolloutPlan().gate_timeout_s:g}]",
)
@click.option("--no-gate", is_flag=True, help="Go on by install results alone, whatever the quality of the model.")
@click.option(
    "--needs-approval", is_flag=True, help="Wait for a person to approve it through the admin API before it starts."
)
@click.option(
    "--wait", is_flag=True, help="Return when it is over or paused; the exit code is 1 unless it is FINISHED."
)
@json_option
def start(
    release: str,
    url: str,
    key_file: Path | None,
    stages: list[dict[str, Any]],
    floor: float | None,
    margin: float | None,
    disagreement: float | None,
    patience_s: float | None,
    no_gate: bool,
    needs_approval: bool,
    wait: bool,
    as_json: bool,
) -> int:
    """Roll RELEASE (such as digits@1) out to the fleet, in stages.

    After each stage a gate reads what the stage's devices counted on samples with target values. It goes on when they
    show that the mean score (of classes: the accuracy) is above the floor and not worse than that of the model before,
    and rolls all of them back when they show the opposite or nothing within its patience.
    """
    plan: dict[str, Any] = {"needs_approval": needs_approval}
    if stages:
        plan["stages"] = stages
    asked = {"floor": floor, "maximum_accuracy_drop": margin, "maximum_disagreement": disagreement}
    gate = {name: value for name, value in asked.items() if value is not None}
    if no_gate and (gate or patience_s is not None):
        raise click.UsageError(
            "expected a gate's --floor, --margin, --disagreement or --patience, or --no-gate, found both; leave one out"
        )
    if no_gate or gate:
        plan["gate"] = None if no_gate else gate
    if patience_s is not None:
        plan["gate_timeout_s"] = patience_s
    client = _connect(url, key_file)
    try:
        rollout = client.post("/v1/rollouts", {"release": release, "plan": plan})
        if wait:
            rollout = follow_rollout(client, rollout, lambda line: None if as_json else click.echo(line, err=True))
    finally:
        client.close()
    click.echo(json.dumps(rollout) if as_json else rollout_line(rollout))
    return 0 if not wait or rollout["state"] == RolloutState.FINISHED.value else 1


@click.command(
    "status",
    epilog="\b\nExamples:\n  hedgerow rollout status --key-file out/fleet/admin.key\n"
    "  hedgerow rollout status rollout-1 --key-file out/fleet/admin.key",
)
@click.argument("rollout_id", required=False, metavar="[ID]", callback=checked_name)
@_server
@_key_file
@json_option
def status(rollout_id: str | None, url: str, key_file: Path | None, as_json: bool) -> None:
    """Show how the rollout ID goes, device by device; without ID, one line for each rollout."""
    client = _connect(url, key_file)
    try:
        found = client.get(f"/v1/rollouts/{rollout_id}" if rollout_id else "/v1/rollouts")
    finally:
        client.close()
    if as_json:
        click.echo(json.dumps(found if rollout_id else {"rollouts": found}))
        return
    for rollout in [found] if rollout_id else found:
        click.echo(rollout_line(rollout))
    if rollout_id:
        for device, execution in sorted(found["executions"].items()):
            parts = [execution["state"], f"attempt {execution['attempt']}", execution["step"], execution["reason"]]
            click.echo(f"  {device}: {', '.join(part for part in parts if part)}")
    elif not found:
        click.echo("no rollout was started yet")


def follow_rollout(
    client: ApiClient, rollout: dict[str, Any], say: Callable[[str], None], check: Callable[[], None] = lambda: None
) -> dict[str, Any]:
    """Wait until a rollout is over or paused, and return it as it is then.

    Args:
        client: Of the service that has it.
        rollout: As the service gave it.
        say: Told each step at once, and the evidence so far now and then.
        check: Called at every look; what it raises ends the waiting.
    """
    watch = _Watch()
    while rollout["state"] not in OVER | {RolloutState.PAUSED.value}:
        if line := watch.news(rollout, time.monotonic()):
            say(line)
        time.sleep(_POLL_S)
        check()
        rollout = client.get(f"/v1/rollouts/{rollout['id']}")
    return rollout


class _Watch:
    """What a person who waits is told: each step at once, the evidence so far now and then."""

    def __init__(self) -> None:
        self._head, self._whole, self._said_at = "", "", 0.0

    def news(self, rollout: dict[str, Any], now: float) -> str:
        """Return what to print now; nothing when it was said."""
        head, whole = _head(rollout), rollout_line(rollout)
        if rollout["gate_since"] is not None:
            whole += f"\n  without a decision everything goes back after {rollout['plan']['gate_timeout_s']:g} s"
        if whole == self._whole or (head == self._head and now < self._said_at + _SAY_AGAIN_S):
            return ""
        self._head, self._whole, self._said_at = head, whole, now
        return whole


def _head(rollout: dict[str, Any]) -> str:
    stages = [stage["name"] for stage in rollout["plan"]["stages"]]
    line = f"{rollout['id']}: {rollout['release']} {rollout['state']}, stage {stages[rollout['stage']]}"
    if "executions" in rollout:
        counts = Counter(execution["state"] for execution in rollout["executions"].values())
        line += f", {', '.join(f'{number} {state}' for state, number in sorted(counts.items()))}"
    return line if rollout["plan"]["gate"] is not None else f"{line}, no gate: its quality is not judged"


def rollout_line(rollout: dict[str, Any]) -> str:
    """Return how a rollout stands, as people read it."""
    return f"{_head(rollout)}\n  {rollout['reason']}" if rollout["reason"] else _head(rollout)
