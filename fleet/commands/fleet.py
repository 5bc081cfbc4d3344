"""``hedgerow fleet init``, ``hedgerow fleet serve`` and ``hedgerow fleet broker``."""

import dataclasses
import json
import logging
import os
import signal
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import click

from hedgerow.durable import write_durably
from hedgerow.errors import HedgerowError
from hedgerow.fleet.errors import FleetFolderError, ServiceSettingsError
from hedgerow.fleet.folder import FleetFolder
from hedgerow.fleet.settings import FleetSettings
from hedgerow.fleet.store.writing import Store
from hedgerow.fleet.web.admin_keys import hash_key, make_key, write_key_file
from hedgerow.options import json_option
from hedgerow.progress_display import progress_log
from hedgerow.settings_options import settings_file_option, settings_option
from hedgerow.wire.topics import NAME

__all__ = ["broker", "init", "serve"]

_log = logging.getLogger(__name__)
_REFRESH_S = 3600.0
_CHECK_S = 1.0
_NAME_FILE = "name"


@contextmanager
def _until_stopped() -> Iterator[threading.Event]:
    """Set the event on SIGINT or SIGTERM, so that everything is stopped in order."""
    stopped = threading.Event()
    before = {number: signal.signal(number, lambda *_: stopped.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopped
    finally:
        for number, action in before.items():
            signal.signal(number, action)


def make_fleet(folder: FleetFolder, name: str, *, now: float) -> str | None:
    """Make a fleet's folder: name, signing keys, signed repository, store, admin key. What is there already stays.

    Returns:
        The new admin key, or None when there was one.

    Raises:
        FleetFolderError: The folder belongs to a fleet of another name, or cannot be written.
        SigningError: The repository is damaged.
        StoreError: The store cannot be used.
    """
    from hedgerow.fleet.trust.keys import create_keys, load_signers
    from hedgerow.fleet.trust.signing import init_repository

    if not NAME.fullmatch(name):
        raise ServiceSettingsError("--name", name, f"a name like {NAME.pattern}")
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
        path = folder.path / _NAME_FILE
        found = path.read_text(encoding="utf-8").strip() if path.exists() else name
        if found != name:
            raise FleetFolderError(str(folder.path), f"the fleet {name!r}", f"{found!r}", "choose another folder")
        create_keys(folder)
        init_repository(folder, load_signers(folder), now)
        store = Store(folder.database)
        try:
            if store.admin_key_hashes():
                key = None
            else:
                key = make_key()
                write_key_file(folder.admin_key, key)
                store.add_admin_key(hash_key(key), "first", now)
        finally:
            store.close()
        # Written last: a fleet that has a name is whole.
        write_durably(path, f"{name}\n".encode())
    except OSError as exc:
        raise FleetFolderError(
            str(folder.path), "a folder that can be written", exc.strerror or str(exc), "choose another folder"
        ) from exc
    return key


def read_fleet_name(folder: FleetFolder) -> str:
    """Return the name of the fleet in a folder.

    Raises:
        FleetFolderError: No fleet is there.
    """
    try:
        name = (folder.path / _NAME_FILE).read_text(encoding="utf-8").strip()
    except OSError as exc:
        raise FleetFolderError(
            str(folder.path), "the folder of a fleet", exc.strerror or str(exc), "make one with `hedgerow fleet init`"
        ) from exc
    if not NAME.fullmatch(name):
        raise FleetFolderError(str(folder.path), f"a fleet with a name like {NAME.pattern}", repr(name), "correct it")
    return name


@click.command("init", epilog="\b\nExample:\n  hedgerow fleet init out/fleet --name garden")
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--name",
    default="fleet",
    show_default=True,
    help="Name of the fleet, part of its MQTT topics; agents are given the same.",
)
@json_option
def init(directory: Path, name: str, as_json: bool) -> None:
    """Make a fleet's folder in DIRECTORY: signing keys, an empty signed repository, a store, an admin key.

    What is there already stays as it is.
    """
    folder = FleetFolder(directory)
    key = make_fleet(folder, name, now=time.time())
    if as_json:
        click.echo(json.dumps({"fleet": name, "folder": str(directory), "admin_key_file": str(folder.admin_key)}))
        return
    click.echo(f"fleet {name} is in {directory}")
    if key is not None:
        click.echo(f"its admin key is in {folder.admin_key} (only you can read it)")
    click.echo(f"keep {folder.offline_keys} off this machine when you do not release")


def _settings_help() -> str:
    """Return the list of settings, for the end of a help text."""
    rows = [
        f"  {setting.name.upper()} = {str(setting.default).lower()}\n"
        + textwrap.fill(setting.metadata["help"], 78, initial_indent=" " * 6, subsequent_indent=" " * 6)
        for setting in dataclasses.fields(FleetSettings)
        if setting.metadata["flag"] is None and setting.name != "fleet"
    ]
    listed = "\n".join(rows)
    example = "hedgerow fleet serve --fleet-folder out/fleet --broker 127.0.0.1:1883"
    sources = "HEDGEROW_FLEET_<NAME> in the environment, or keys of a file"
    return f"\b\nExample:\n  {example}\n\n\b\nSettings, {sources}:\n{listed}"


@click.command("serve", epilog=_settings_help())
@click.option(
    "--fleet-folder",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="The fleet's folder, made by `hedgerow fleet init`.",
)
@click.option(
    "--broker", "broker_address", metavar="HOST:PORT", help="Address of the MQTT broker.  [default: 127.0.0.1:1883]"
)
@settings_option(FleetSettings, "host")
@settings_option(FleetSettings, "port")
@settings_file_option()
@click.option(
    "--retrain-task",
    metavar="TASK",
    help="Train this task (module:attribute or file.py:attribute) again on the devices when drift is found, and roll "
    "the result out.  [default: alerts only]",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on one line of stdout when it is up.")
def serve(
    fleet_folder: Path,
    broker_address: str | None,
    host: str | None,
    port: int | None,
    settings_file: Path | None,
    retrain_task: str | None,
    as_json: bool,
) -> None:
    """Run the fleet service: MQTT to the devices, downloads and the admin API over HTTP (described by /openapi.json).

    Retraining starts from the checkpoint that `hedgerow release create --checkpoint` kept. The service signs the
    repository's timestamp anew while it runs. SIGTERM or SIGINT ends it in order.
    """
    from hedgerow.fleet.service.event_log import EventLog
    from hedgerow.fleet.serving import Retraining, serve_fleet

    folder = FleetFolder(fleet_folder)
    broker_host, broker_port = _address(broker_address)
    name = read_fleet_name(folder)
    told = FleetSettings.collect(file=settings_file, env=os.environ).get("fleet")
    if told is not None and told.value != name:
        raise ServiceSettingsError(told.place, told.value, f"{name}, the name of the fleet in {fleet_folder}")
    options = {
        "fleet": name,
        "host": host,
        "port": port,
        "broker_host": broker_host,
        "broker_port": broker_port,
    }
    settings = FleetSettings.read(file=settings_file, env=os.environ, options=options)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for library in ("httpx", "uvicorn"):
        logging.getLogger(library).setLevel(logging.WARNING)
    with _until_stopped() as stopped, ExitStack() as stack:
        retraining = Retraining(task=retrain_task, report=progress_log(_log)) if retrain_task is not None else None
        fleet = serve_fleet(folder, settings, stack, retraining=retraining)
        fleet.service.subscribe(EventLog())
        url = fleet.url
        if as_json:
            click.echo(json.dumps({"fleet": settings.fleet, "url": url}))
        else:
            click.echo(f"fleet {settings.fleet} serves at {url}; stop it with Ctrl-C", err=True)
        _keep_signed(folder, stopped)


def _keep_signed(folder: FleetFolder, stopped: threading.Event) -> None:
    """Sign timestamp and snapshot anew while they have half of their life left, until stopped; say what ends soon."""
    from hedgerow.fleet.trust.expiry import ExpiryWatch
    from hedgerow.fleet.trust.keys import ONLINE_ROLES, load_signers
    from hedgerow.fleet.trust.signing import expiries, refresh_online

    watch = ExpiryWatch()
    while True:
        try:
            refresh_online(folder, load_signers(folder, ONLINE_ROLES), time.time())
        except (HedgerowError, OSError) as exc:
            _log.error("could not sign the timestamp anew: %s", exc)
        try:
            for sentence in watch.due(expiries(folder), time.time()):
                _log.warning("%s", sentence)
        except (HedgerowError, OSError) as exc:
            _log.error("could not look when signatures end: %s", exc)
        if stopped.wait(_REFRESH_S):
            return


def _address(text: str | None) -> tuple[str | None, int | None]:
    if text is None:
        return None, None
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal():
        raise ServiceSettingsError("--broker", text, "HOST:PORT such as 127.0.0.1:1883")
    return host.strip("[]"), int(port)


@click.command("broker", epilog="\b\nExample:\n  hedgerow fleet broker --port 1883")
@click.option("--host", default="127.0.0.1", show_default=True, metavar="HOST", help="Loopback address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=1883,
    show_default=True,
    metavar="PORT",
    help="Port to listen on; 0 takes a free one.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on one line of stdout when it is up.")
def broker(host: str, port: int, as_json: bool) -> None:
    """Run an MQTT broker for development: mosquitto when it is installed, else an embedded one.

    It has no passwords, so it listens on this machine only. SIGTERM or SIGINT ends it in order.
    """
    from hedgerow.fleet.brokers.development import DevelopmentBroker

    with _until_stopped() as stopped, DevelopmentBroker(host, port) as running:
        if as_json:
            click.echo(json.dumps({"broker": running.name, "host": running.host, "port": running.port}))
        else:
            click.echo(f"{running.name} listens on {running.host}:{running.port}; stop it with Ctrl-C", err=True)
        while not stopped.wait(_CHECK_S):
            running.check()
