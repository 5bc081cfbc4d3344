"""``hedgerow targets list`` and ``hedgerow targets show``."""

import json

import click

from hedgerow.hardware.target import load_target, target_names

__all__ = ["list_command", "show"]


@click.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def list_command(as_json: bool) -> None:
    """List the hardware targets."""
    targets = [load_target(name) for name in target_names()]
    if as_json:
        click.echo(json.dumps({"targets": [target.to_record() for target in targets]}))
        return
    width = max(len(target.name) for target in targets)
    for target in targets:
        click.echo(f"{target.name:<{width}}  {target.format:<9}  {target.runtime:<11}  {target.summary}")


@click.command("show")
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def show(name: str, as_json: bool) -> None:
    """Show the hardware target NAME."""
    record = load_target(name).to_record()
    if as_json:
        click.echo(json.dumps(record))
        return
    cost = record.pop("cost")
    rates = ", ".join(f"{kind} {rate:.3g}/s" for kind, rate in cost.pop("macs_per_s").items())
    lines = {**record, "multiply-accumulates": rates, **cost}
    width = max(len(key) for key in lines)
    for key, value in lines.items():
        click.echo(f"{key.replace('_', ' '):<{width}}  {', '.join(value) if isinstance(value, list) else value}")
