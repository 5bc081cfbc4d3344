"""A fleet on this machine for development: broker, service, and an agent for each target, which sees held-out samples.

Everything of it lies in the fleet's folder below ``development/`` and ends with the command that started it; the next
one goes on from there.
"""

import io
import platform
import shutil
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from hedgerow.children.programs import Programs
from hedgerow.client.runtimes import available_runtimes
from hedgerow.durable import write_durably
from hedgerow.fleet.brokers.development import DevelopmentBroker
from hedgerow.fleet.commands.fleet import read_fleet_name
from hedgerow.fleet.deploy.agents import agent_command, start_agents
from hedgerow.fleet.errors import ChildDiedError
from hedgerow.fleet.folder import FleetFolder
from hedgerow.fleet.serving import serve_fleet
from hedgerow.fleet.settings import FleetSettings
from hedgerow.hardware.lookup import load_target
from hedgerow.outputs.wanted import array_name
from hedgerow.task import Dataset, Task

__all__ = ["DevelopmentFleet", "default_target", "device_name"]

_PREFIX = "dev-"
_WINDOW_SAMPLES, _RATE_PER_S, _MOST_SAMPLES = 100, 200.0, 2000


def default_target() -> str:
    """Return the target that is most like this machine."""
    return "raspberry-pi-4" if platform.machine() == "aarch64" else "x86-gateway"


def device_name(target: str) -> str:
    """Return what the agent of a target is called."""
    return f"{_PREFIX}{target}"


class DevelopmentFleet:
    """A broker and a fleet service in this process, and agents in processes of their own.

    Args:
        folder: The fleet's.
        stack: Stops everything, in order.

    Attributes:
        url: Of the service.
        broker: Which one runs.
    """

    def __init__(self, folder: FleetFolder, stack: ExitStack) -> None:
        self._folder, self._name = folder, read_fleet_name(folder)
        self._broker = stack.enter_context(DevelopmentBroker())
        self._children = Programs()
        # The agents are stopped after the fleet: a device outlives its server, and nobody hears them go.
        stack.enter_context(self._children)
        settings = FleetSettings(fleet=self._name, port=0, broker_host=self._broker.host, broker_port=self._broker.port)
        self.url = serve_fleet(folder, settings, stack).url
        self.broker = self._broker.name

    def start_agents(self, targets: Iterable[str], task: Task, samples: Dataset) -> Mapping[str, str]:
        """Start an agent for each target that this machine can run; return the others, with why.

        Args:
            targets: As `hedgerow compile --target` takes them.
            task: Whose samples they are.
            samples: What they see, again and again; at most two thousand of them.

        Raises:
            OSError: The folder cannot be written.
        """
        place = self._folder.path / "development"
        file = place / "samples.npz"
        content = io.BytesIO()
        # Spread evenly, so that all of a sorted data set is among them.
        shown = samples.take(np.linspace(0, len(samples) - 1, min(len(samples), _MOST_SAMPLES)).astype(np.int64))
        wanted = {array_name(task.answers, name): values for name, values in task.wanted(shown).items()}
        arrays: dict[str, Any] = {**shown.inputs, **wanted}
        np.savez(content, **arrays)
        write_durably(file, content.getvalue())
        shutil.copyfile(self._folder.tuf_metadata / "1.root.json", place / "root.json")
        commands, without = [], {}
        for target in map(load_target, targets):
            if target.runtime not in available_runtimes():
                without[target.name] = f"the runtime {target.runtime} does not run on this machine"
                continue
            command = agent_command(
                device_name(target.name),
                target.name,
                fleet=self._name,
                broker=f"{self._broker.host}:{self._broker.port}",
                server=self.url,
                trusted_root=place / "root.json",
                state_folder=place / device_name(target.name),
                source="hedgerow.client.sample_file:stream",
                source_options={
                    "file": str(file),
                    "rate_per_s": f"{_RATE_PER_S:g}",
                    "sequences": str(int(bool(task.state))),
                },
                window_samples=_WINDOW_SAMPLES,
            )
            commands.append((device_name(target.name), command))
        start_agents(self._children, commands, self.logs)
        return without

    @property
    def logs(self) -> Path:
        """Folder of the agents' output."""
        return self._folder.path / "development" / "logs"

    def check(self) -> None:
        """Return if all of it runs.

        Raises:
            BrokerEndedError: The broker ended by itself.
            ChildDiedError: An agent did.
        """
        self._broker.check()
        if (ended := self._children.first_ended()) is not None:
            raise ChildDiedError(ended, self._children.log_paths[ended.name])
