"""``hedgerow targets list`` and ``hedgerow targets show``."""

import json
import shutil
import textwrap

import click

from hedgerow.hardware.lookup import load_target, target_names
from hedgerow.options import json_option

__all__ = ["list_command", "show"]


@click.command("list", epilog="\b\nExample:\n  hedgerow targets list")
@json_option
def list_command(as_json: bool) -> None:
    """List the hardware targets that models can be compiled for: name, format, runtime, what it is."""
    targets = [load_target(name) for name in target_names()]
    if as_json:
        click.echo(json.dumps({"targets": [target.to_record() for target in targets]}))
        return
    width = max(len(target.name) for target in targets)
    for target in targets:
        click.echo(f"{target.name:<{width}}  {target.format:<9}  {target.runtime}")
        click.echo(textwrap.indent(textwrap.fill(target.summary, _width() - 2), "  "))


@click.command("show", epilog="\b\nExample:\n  hedgerow targets show raspberry-pi-4")
@click.argument("name")
@json_option
def show(name: str, as_json: bool) -> None:
    """Show the hardware target NAME: what its artifacts may hold, and what it is assumed to be capable of."""
    record = load_target(name).to_record()
    if as_json:
        click.echo(json.dumps(record))
        return
    cost = record.pop("cost")
    rates = ", ".join(f"{kind} {rate:.3g}/s" for kind, rate in cost.pop("macs_per_s").items())
    known = f"by the model below, within a factor of {cost['error_factor']:g}"
    unknown = f"not run: nothing has run on the accelerator ({record['accelerator']}); the model below is not used"
    lines = {
        **record,
        "latency and energy": known if load_target(name).is_modelled else unknown,
        "multiply-accumulates": rates,
        **cost,
    }
    width = max(len(key) for key in lines) + 2
    for key, value in lines.items():
        text = textwrap.fill(
            _text(value) or "-", max(_width() - width, 24), break_long_words=False, break_on_hyphens=False
        )
        click.echo(f"{key.replace('_', ' '):<{width}}" + text.replace("\n", "\n" + " " * width))


def _width() -> int:
    return min(shutil.get_terminal_size().columns, 120)


def _text(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(str(item) for item in value)
    if isinstance(value, dict):
        return ", ".join(f"{name} {version}" if version else str(name) for name, version in value.items())
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return f"{value:,}" if isinstance(value, int) or not value.is_integer() else f"{value:,.0f}"
    return str(value)
