"""Agents in processes of their own on this machine: real ``hedgerow agent run``, as the README shows it."""

import os
import sys
from collections.abc import Iterable
from pathlib import Path

from hedgerow.children.child import numeric_threads
from hedgerow.children.programs import Programs

__all__ = ["agent_command", "start_agents"]

_HEALTHY_AFTER_S = 1.0
"""Somebody watches, for minutes; the gates judge quality meanwhile."""


def agent_command(
    name: str,
    target: str,
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
    command += ["--device", name, "--fleet", fleet, "--target", target]
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
