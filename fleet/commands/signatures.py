"""``hedgerow fleet status`` and ``hedgerow fleet renew``: how long signatures last, and making them last."""

import json
import time
from datetime import UTC, datetime
from pathlib import Path

import click

from hedgerow.fleet.folder import FleetFolder
from hedgerow.fleet.trust.expiry import expiry_alarms
from hedgerow.options import json_option

__all__ = ["EXPIRY_EXIT_CODE", "renew", "status"]

EXPIRY_EXIT_CODE = 3
"""What ``hedgerow fleet status`` exits with when a signature ends soon or has ended."""

_folder_argument = click.argument("directory", type=click.Path(path_type=Path, file_okay=False))


@click.command("status", epilog="\b\nExample:\n  hedgerow fleet status out/fleet")
@_folder_argument
@json_option
def status(directory: Path, as_json: bool) -> int:
    """Show until when the signatures of the fleet in DIRECTORY count.

    The exit code is 3 when root or targets end within 30 days, or snapshot or timestamp within 6 hours; 0 when none
    does; 1 when there is no fleet, or its repository is damaged.
    """
    from hedgerow.fleet.trust.signing import expiries, signed_releases

    folder, now = FleetFolder(directory), time.time()
    ends, alarms = expiries(folder), expiry_alarms(expiries(folder), now)
    releases = signed_releases(folder)
    if as_json:
        record = {"releases": releases, "signatures": ends, "alarms": [alarm.to_record() for alarm in alarms]}
        click.echo(json.dumps(record))
    else:
        click.echo(f"releases: {', '.join(releases) or 'none'}")
        for role, at in ends.items():
            until = datetime.fromtimestamp(at, UTC).isoformat(timespec="minutes")
            click.echo(f"{role}: until {until}, {(at - now) / 86400:.1f} days")
        for alarm in alarms:
            click.echo(f"warning: {alarm.sentence}", err=True)
    return EXPIRY_EXIT_CODE if alarms else 0


@click.command("renew", epilog="\b\nExample:\n  hedgerow fleet renew out/fleet")
@_folder_argument
@json_option
def renew(directory: Path, as_json: bool) -> None:
    """Sign root and targets of the fleet in DIRECTORY for another year, with the same keys.

    Needs the keys of all four roles in the fleet's folder. Devices follow from whatever root they have.
    """
    from hedgerow.fleet.trust.keys import load_signers
    from hedgerow.fleet.trust.signing import expiries, renew_offline

    folder = FleetFolder(directory)
    renew_offline(folder, load_signers(folder), time.time())
    ends = expiries(folder)
    if as_json:
        click.echo(json.dumps({"signatures": ends}))
        return
    until = datetime.fromtimestamp(min(ends["root"], ends["targets"]), UTC).date().isoformat()
    click.echo(f"root and targets are signed until {until}")
