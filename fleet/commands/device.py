"""``hedgerow device reset`` and ``hedgerow device forget``."""

import json
from pathlib import Path

import click

from hedgerow.fleet.commands.options import checked_name, connect, key_file_option, server_option
from hedgerow.options import json_option

__all__ = ["forget", "reset"]


@click.command("reset", epilog="\b\nExample:\n  hedgerow device reset pi-0 --key-file out/fleet/admin.key")
@click.argument("device", callback=checked_name)
@server_option
@key_file_option
@json_option
def reset(device: str, url: str, key_file: Path | None, as_json: bool) -> None:
    """Let the fleet forget what DEVICE said of itself, and believe its next report.

    For a device that got other hardware, or in whose name somebody sent numbers that it never reached. What is wanted
    of it stays.
    """
    client = connect(url, key_file)
    try:
        found = client.post(f"/v1/devices/{device}/reset")
    finally:
        client.close()
    if as_json:
        click.echo(json.dumps(found))
        return
    wanted = (found["desired"] or {}).get("release") or "nothing"
    click.echo(f"{device} is reset; {wanted} stays wanted of it, and its next report counts")


@click.command("forget", epilog="\b\nExample:\n  hedgerow device forget pi-0 --key-file out/fleet/admin.key")
@click.argument("device", callback=checked_name)
@server_option
@key_file_option
@json_option
def forget(device: str, url: str, key_file: Path | None, as_json: bool) -> None:
    """Let the fleet keep nothing of DEVICE, as if it had never been heard of.

    For a device that is gone for good. Rollouts that wait for it go on without it, but one whose canary it was alone:
    that is aborted, since nothing speaks for going on. One in which it has done its part must end first. If it reports
    again, it is a new device.
    """
    client = connect(url, key_file)
    try:
        found = client.delete(f"/v1/devices/{device}")
    finally:
        client.close()
    click.echo(json.dumps(found) if as_json else f"{device} is forgotten; if it reports again, it is new")
