"""The fleet that is deployed to: one whose service runs already, or a development fleet that is started for it."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from hedgerow.fleet.commands.fleet import make_fleet, read_fleet_name
from hedgerow.fleet.commands.options import connect
from hedgerow.fleet.deploy.development import DevelopmentFleet, default_target, device_name
from hedgerow.fleet.errors import AdminKeyError, DeployError, ServiceUnreachableError
from hedgerow.fleet.folder import FleetFolder
from hedgerow.fleet.store.writing import is_written
from hedgerow.fleet.web.client import ApiClient
from hedgerow.hardware.lookup import load_target

__all__ = ["DEFAULT_URL", "Devices", "Site", "open_site", "wait_for_devices", "wanted_targets"]

DEFAULT_URL = "http://127.0.0.1:8080"
_NEW_NAME = "development"
_POLL_S, _TIMEOUT_S = 0.2, 120.0
Devices = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Site:
    """The fleet that is deployed to.

    Attributes:
        folder: Where it signs.
        client: Of its service.
        url: Its service's address.
        development: What we started of it; None: its service runs whether we do or not.
    """

    folder: FleetFolder
    client: ApiClient
    url: str
    development: DevelopmentFleet | None

    def check(self) -> None:
        """Return if all of it runs that we started.

        Raises:
            BrokerEndedError, ChildDiedError: Something ended by itself.
        """
        if self.development is not None:
            self.development.check()

    def devices(self) -> list[dict[str, Any]]:
        """Return the devices that the fleet knows, by name."""
        return sorted(self.client.get("/v1/devices"), key=lambda device: str(device["name"]))


def open_site(folder: FleetFolder, url: str | None, stack: ExitStack, say: Callable[[str], None]) -> Site:
    """Find the fleet's service, or start a development fleet in its folder, which is made where there is none.

    Args:
        folder: The fleet's.
        url: Of its service; None: found out.
        stack: Ends what is started.
        say: Told what is.

    Raises:
        FleetFolderError, StoreError, SigningError: The folder cannot be used.
        ServiceUnreachableError: No service answers, although one runs on the folder or was named.
        AdminKeyError: The admin key is not in the folder, or not the service's.
        HedgerowError: The development fleet does not start.
    """
    _check_folder(folder)
    if url is None and not is_written(folder.database):
        name = read_fleet_name(folder) if (folder.path / "name").is_file() else _NEW_NAME
        make_fleet(folder, name, now=time.time())
        development = DevelopmentFleet(folder, stack)
        say(f"a development fleet is in {folder.path}: {development.broker}, and the service at {development.url}")
        return Site(folder, _client(folder, development.url, stack), development.url, development)
    place = url if url is not None else DEFAULT_URL
    name = read_fleet_name(folder)
    site = Site(folder, _client(folder, place, stack), place, None)
    try:
        found = site.client.get("/v1/status")["fleet"]
    except (ServiceUnreachableError, AdminKeyError):
        if url is not None:
            raise
        raise DeployError(
            f"the service of {folder.path}, which another process runs, at {place}",
            "none of its own there",
            "say where it answers with --server, or wait for the end of another `hedgerow deploy`",
        ) from None
    if found != name:
        advice = "give the --server of the fleet in the folder"
        raise DeployError(f"the fleet {name!r} of {folder.path} at {place}", f"{found!r}", advice)
    return site


def _check_folder(folder: FleetFolder) -> None:
    """Refuse a folder of something else, in which a fleet would be made.

    Raises:
        DeployError: It is one.
    """
    path = folder.path
    if not path.is_dir() or (path / "name").is_file():
        return
    # What a fleet has that was killed while it was made.
    own = {folder.tuf.name, folder.releases.name, folder.admin_key.name, folder.offline_keys.parent.name}
    others = sorted(
        each.name
        for each in path.iterdir()
        if each.name not in own and not each.name.startswith((folder.database.name, "."))
    )
    if others:
        raise DeployError(
            f"a fleet's folder at {path}, a new or an empty one", f"{others[0]!r} in it", "choose another"
        )


def _client(folder: FleetFolder, url: str, stack: ExitStack) -> ApiClient:
    client = connect(url, folder.admin_key if folder.admin_key.exists() else None)
    stack.callback(client.close)
    return client


def wanted_targets(site: Site, asked: Sequence[str]) -> tuple[str, ...]:
    """Return the targets to compile for: those that are asked for, else those of the fleet's devices.

    Raises:
        DeployError: The fleet has no device that is online, none of what is asked for, or, where its service does not
            run, devices that are none of a development fleet.
        UnknownNameError: There is no such target.
    """
    devices = site.devices()
    names = {load_target(name).name: name for name in asked}
    known = sorted({str(device["target"]) for device in devices})
    if site.development is None:
        if not devices or (names and not set(known) & set(names)):
            wanted = f" of {', '.join(names)}" if names else ""
            found = ", ".join(known) or "none"
            advice = "start an agent with `hedgerow agent run`, or correct --target"
            raise DeployError(f"devices{wanted} in the fleet at {site.url}", found, advice)
        chosen = [device for device in devices if not names or device["target"] in names]
        if not any(device["online"] for device in chosen):
            stand = ", ".join(str(device["name"]) for device in chosen[:5])
            raise DeployError("a device that is online", f"none among {stand}", "start its agent, or wait for it")
        return tuple(names.values()) or tuple(known)
    others = [str(device["name"]) for device in devices if device["name"] != device_name(str(device["target"]))]
    if others:
        raise DeployError(
            f"the service of {site.folder.path} to run, or a folder of a development fleet",
            f"no service, and the devices {', '.join(others[:5])}",
            "start it with `hedgerow fleet serve`, or deploy to another folder first",
        )
    return tuple(names.values()) or tuple(known) or (default_target(),)


def wait_for_devices(site: Site, what: str, are_ready: Callable[[Devices], bool]) -> list[dict[str, Any]]:
    """Wait until the fleet's devices are as they should be, and return them.

    Args:
        site: The fleet.
        what: What they should be, for the message.
        are_ready: Of all devices.

    Raises:
        DeployError: They are not, in two minutes.
    """
    deadline = time.monotonic() + _TIMEOUT_S
    while not are_ready(found := site.devices()):
        site.check()
        if time.monotonic() > deadline:
            each = [f"{device['name']} with {device['release'] or 'nothing'}" for device in found]
            where = site.development.logs if site.development is not None else "the log of the fleet service"
            raise DeployError(f"{what} within {_TIMEOUT_S:g} s", ", ".join(each) or "no device", f"see {where}")
        time.sleep(_POLL_S)
    return found
