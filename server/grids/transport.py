"""How a round reaches devices: the seam between Flower's strategies and the fleet's messages, and its public fake."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from hedgerow.local_work import LocalWork
from hedgerow.weights import Arrays

__all__ = ["DeviceUpdate", "LocalStep", "RoundTransport", "RoundWork", "SimulatedTransport", "UpdateState"]

UpdateState = Literal["done", "declined", "failed", "timed out"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundWork:
    """What every chosen device does in one round.

    Attributes:
        run: The training run's identity.
        weights: The global weights; name -> array.
        devices: Who takes part, sorted.
        local: What each of them does: plain SGD, for that is what train graphs hold.
        deadline_s: The round goes on after so many seconds without those that have not answered.
    """

    run: str
    weights: Arrays
    devices: tuple[str, ...]
    local: LocalWork
    deadline_s: float

    @property
    def round(self) -> int:
        """The round's number, from 1."""
        return self.local.round


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceUpdate:
    """One device's answer. It comes from outside: nothing in it has been checked against the work.

    Attributes:
        device: Name of the device.
        state: ``done``, ``declined`` (policy, too few samples), ``failed`` or ``timed out``.
        examples: Samples that it trained on.
        metrics: Such as ``loss``.
        weights: Its new weights; None unless done.
        reason: Why it is not done; one sentence.
    """

    device: str
    state: UpdateState
    examples: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)
    weights: Arrays | None = None
    reason: str = ""


class RoundTransport(Protocol):
    """Carries a round to devices and brings their answers."""

    def devices(self) -> Sequence[str]:
        """Return the names of the devices that can train now, sorted."""
        ...

    def run_round(self, work: RoundWork) -> Sequence[DeviceUpdate]:
        """Send the work, wait until all answered or ``work.deadline_s`` passed; at most one answer a device."""
        ...


LocalStep = Callable[[RoundWork, str], DeviceUpdate | None]


class SimulatedTransport:
    """A fleet in memory: one function for each device, called in the order of names.

    A function gets the work and its device's name; it returns an update, or None for a device that never answers.

    Attributes:
        rounds: Every work that was carried.
    """

    def __init__(self, steps: Mapping[str, LocalStep]) -> None:
        self.steps = dict(steps)
        self.rounds: list[RoundWork] = []

    def devices(self) -> Sequence[str]:
        """Return all names, sorted."""
        return sorted(self.steps)

    def run_round(self, work: RoundWork) -> Sequence[DeviceUpdate]:
        """Call the functions of the work's devices."""
        self.rounds.append(work)
        updates = []
        for device in work.devices:
            update = self.steps[device](work, device) if device in self.steps else None
            if update is not None:
                updates.append(update)
        return updates
