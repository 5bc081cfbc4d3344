"""What every command that asks the fleet service is told: its address, the admin key, and how to answer."""

import os
from pathlib import Path

import click

from hedgerow.fleet.errors import AdminKeyError
from hedgerow.fleet.web.admin_keys import read_key_file
from hedgerow.fleet.web.client import ApiClient
from hedgerow.wire.topics import NAME

__all__ = ["KEY_VARIABLE", "checked_name", "connect", "key_file_option", "server_option"]

KEY_VARIABLE = "HEDGEROW_ADMIN_KEY"

server_option = click.option(
    "--server",
    "url",
    default="http://127.0.0.1:8080",
    show_default=True,
    metavar="URL",
    help="Address of the fleet service.",
)
key_file_option = click.option(
    "--key-file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="File with the admin key, admin.key in the fleet's folder.  "
    f"[default: the key itself in the variable {KEY_VARIABLE}]",
)


def checked_name(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    """Return a name of a device or a rollout as it was given, a callback for click.

    Raises:
        click.BadParameter: There can be none of that name; in an address it might mean something else.
    """
    if value is not None and not NAME.fullmatch(value):
        raise click.BadParameter(f"expected a name like {NAME.pattern}, found {value!r}")
    return value


def connect(url: str, key_file: Path | None) -> ApiClient:
    """Return a client of the service at *url*.

    Args:
        url: Its address.
        key_file: Holds the admin key; None: the variable :data:`KEY_VARIABLE` does.

    Raises:
        AdminKeyError: There is no key.
        ServiceUnreachableError: The address is none.
    """
    if key_file is not None:
        return ApiClient(url, read_key_file(key_file))
    key = os.environ.get(KEY_VARIABLE, "").strip()
    if not key:
        raise AdminKeyError("none")
    return ApiClient(url, key)
