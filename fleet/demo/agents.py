"""The demo's agents: real ``hedgerow agent run`` processes, and the worlds that their simulated sensors look at."""

import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path

from hedgerow.children.child import numeric_threads
from hedgerow.children.programs import Programs
from hedgerow.durable import write_durably
from hedgerow.fleet.demo.plan import DemoDevice

__all__ = ["DRIFTED_WORLD", "agent_command", "move_worlds", "start_agents"]

DRIFTED_WORLD = {"inverted": True, "shift": 1}
"""What half of the sensors see later: every pixel one to the right, dark and bright exchanged."""

_HEALTHY_AFTER_S = 1.0
"""The story is told in minutes; the gates judge quality meanwhile."""


def agent_command(
    device: DemoDevice,
    *,
    fleet: str,
    broker: str,
    server: str,
    trusted_root: Path,
    state_folder: Path,
    source: str,
    source_options: dict[str, str],
    window_samples: int,
) -> list[str]:
    """Return the command line of one agent; the README shows the same."""
    command = [sys.executable, "-P", "-m", "hedgerow.cli", "agent", "run"]
    command += ["--device", device.name, "--fleet", fleet, "--target", device.target]
    command += ["--broker", broker, "--server", server, "--trusted-root", str(trusted_root)]
    command += ["--state", str(state_folder), "--window-samples", str(window_samples), "--source", source]
    command += ["--healthy-after-s", f"{_HEALTHY_AFTER_S:g}"]
    for key, value in source_options.items():
        command += ["--source-option", f"{key}={value}"]
    return command


def start_agents(children: Programs, commands: Iterable[tuple[str, list[str]]], logs: Path) -> None:
    """Start a process for each (name, command line); its output goes to ``<logs>/<name>.log``."""
    # One thread each, as on a small device: numerical libraries would otherwise take every core for every agent.
    env = {**os.environ, **numeric_threads(1)}
    for name, command in commands:
        children.start(command, logs / f"{name}.log", name, env=env)


def move_worlds(state_folders: Iterable[Path]) -> None:
    """Change what these devices' sensors see, from their next image on."""
    for folder in state_folders:
        write_durably(folder / "world.json", json.dumps(DRIFTED_WORLD).encode())
