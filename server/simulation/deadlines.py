"""What a round costs in virtual time: who is done when, who is late, who drops out, and when the round ends. Pure.

The server waits for all, for the first k of n (over-selection, Bonawitz et al. 2019, arXiv 1902.01046, section 4.2), or
until a deadline; a device that cannot do all its epochs by the deadline may send what it has (FedProx's stragglers, Li
et al. 2020, arXiv 1812.06127, section 5.2).
"""

import math
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from hedgerow.server.simulation.draws import Floats, Numbers
from hedgerow.server.simulation.population import Population

__all__ = [
    "DeviceOutcome",
    "DeviceTimes",
    "DeviceWork",
    "RoundPolicy",
    "RoundSchedule",
    "device_times",
    "schedule_round",
]


class DeviceOutcome(IntEnum):
    """What became of a device's work."""

    DONE = 0
    PARTIAL = 1
    """Fewer epochs than asked, but in time."""
    LATE = 2
    """Not done when the round ended."""
    DROPPED = 3
    """It went away: by chance, or because it was no longer available."""
    UNAVAILABLE = 4
    """It was not there when the round began, or its battery was too low."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceWork:
    """What a device does in a round.

    Attributes:
        down_bytes: What it downloads first.
        up_bytes: What it uploads last.
        flops_per_sample: Floating-point operations of the training step on one sample, forward and backward.
        epochs: Passes over its samples.
    """

    down_bytes: int
    up_bytes: int
    flops_per_sample: float
    epochs: int = 1

    def __post_init__(self) -> None:
        if self.down_bytes < 0 or self.up_bytes < 0 or not 0 <= self.flops_per_sample < math.inf or self.epochs < 1:
            raise ValueError(f"expected work of at least 0 bytes and operations and 1 epoch, found {self}")


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundPolicy:
    """When the server ends a round.

    Attributes:
        deadline_s: So long after its start at the latest.
        wanted: As soon as so many updates are there; None: when all are. The others are then late.
        keep_partial: A device that cannot do all epochs by the deadline sends what it has after fewer, at least one.
        minimum_battery: A device whose battery is emptier does not take part.
    """

    deadline_s: float = math.inf
    wanted: int | None = None
    keep_partial: bool = False
    minimum_battery: float = 0.2

    def __post_init__(self) -> None:
        if not self.deadline_s > 0 or (self.wanted is not None and self.wanted < 1):
            raise ValueError(f"expected a deadline above 0 and at least 1 wanted update, found {self}")
        if not 0 <= self.minimum_battery <= 1:
            raise ValueError(f"expected a battery level of 0 to 1, found {self.minimum_battery}")


@dataclass(frozen=True, slots=True)
class DeviceTimes:
    """How long the parts of a device's work take, ``float64[n]`` each.

    Attributes:
        before_s: Connecting and downloading.
        epoch_s: One pass over its samples.
        after_s: Uploading.
    """

    before_s: Floats
    epoch_s: Floats
    after_s: Floats

    def total_s(self, epochs: int) -> Floats:
        """Return the time of the whole work."""
        return self.before_s + epochs * self.epoch_s + self.after_s


@dataclass(frozen=True, slots=True)
class RoundSchedule:
    """What became of every device of a round; arrays are in the order in which the devices were given.

    Attributes:
        devices: Numbers, ``int64[n]``.
        outcomes: Values of :class:`DeviceOutcome`, ``int64[n]``.
        epochs: Epochs of those whose update counts, else 0; ``int64[n]``.
        settled_at_s: When its update arrived, or when it was known that there will be none; ``float64[n]``.
        energy_j: What its computing took, ``float64[n]``.
        starts_at_s: When the round began.
        ends_at_s: When it ended.
    """

    devices: Numbers
    outcomes: NDArray[np.int64]
    epochs: NDArray[np.int64]
    settled_at_s: Floats
    energy_j: Floats
    starts_at_s: float
    ends_at_s: float

    @property
    def counts_update(self) -> NDArray[np.bool_]:
        """Whose update counts, ``bool[n]``."""
        return self.outcomes <= DeviceOutcome.PARTIAL

    def counts(self) -> dict[str, int]:
        """Return how many devices came to each outcome, by its name in small letters."""
        return {outcome.name.lower(): int((self.outcomes == outcome).sum()) for outcome in DeviceOutcome}


def device_times(population: Population, devices: Numbers, work: DeviceWork, samples: Numbers) -> DeviceTimes:
    """Return how long the work takes on each device.

    Args:
        population: Whose devices.
        devices: Numbers, ``int64[n]``.
        work: What each does.
        samples: How many samples each has, ``int64[n]``.
    """
    down, up = population.bits_per_s(devices)
    return DeviceTimes(
        before_s=population.network.setup_s + 8 * work.down_bytes / down,
        epoch_s=np.asarray(samples) * work.flops_per_sample / population.flops_per_s(devices),
        after_s=8 * work.up_bytes / up,
    )


def schedule_round(
    population: Population,
    devices: Numbers,
    work: DeviceWork,
    *,
    samples: Numbers,
    now_s: float,
    round_number: int,
    policy: RoundPolicy | None = None,
    used_j: Floats | float = 0.0,
) -> RoundSchedule:
    """Let *devices* do their work from *now_s* on.

    The server learns at once that a device has gone (as from a connection that breaks), so a round also ends when
    nobody is left whom it could wait for. Equal times are ordered by the devices' numbers. Nothing depends on the
    order in which devices are given.

    Args:
        population: Whose devices.
        devices: Numbers of those that were chosen, each once: ``int64[n]``.
        work: What each does.
        samples: How many samples each has, ``int64[n]``.
        now_s: When the round begins.
        round_number: With the population's seed it decides who drops out.
        policy: When the round ends; None: when all are done.
        used_j: What training has taken from their batteries since they were last charged, ``float64[n]``.
    """
    policy = policy or RoundPolicy()
    devices = np.asarray(devices, dtype=np.int64)
    times = device_times(population, devices, work, samples)
    present = population.availability.is_available(devices, now_s)
    if population.battery is not None:
        present &= population.battery.level(devices, now_s, used_j) >= policy.minimum_battery
    deadline_s = now_s + policy.deadline_s
    epochs = _epochs_by(times, work.epochs, policy)
    finishes = np.minimum(now_s + times.before_s + epochs * times.epoch_s + times.after_s, deadline_s)
    settled = np.where(epochs > 0, finishes, deadline_s)
    outcomes = np.select(
        [epochs == work.epochs, epochs > 0], [DeviceOutcome.DONE, DeviceOutcome.PARTIAL], DeviceOutcome.LATE
    )
    # A device without an end in sight works until it is cut off, so that a chance to drop out applies to that time.
    planned = np.minimum(times.total_s(work.epochs), settled - now_s)
    leaves = np.minimum(
        now_s + population.drops_at(devices, round_number) * planned, population.availability.until(devices, now_s)
    )
    gone = leaves < settled
    outcomes[gone], settled[gone] = DeviceOutcome.DROPPED, leaves[gone]
    outcomes[~present], settled[~present] = DeviceOutcome.UNAVAILABLE, now_s
    ends_at_s = float(settled.max(initial=now_s))
    usable = np.flatnonzero(outcomes <= DeviceOutcome.PARTIAL)
    if policy.wanted is not None and len(usable) >= policy.wanted:
        first = usable[np.lexsort((devices[usable], settled[usable]))]
        ends_at_s = float(settled[first[policy.wanted - 1]])
        outcomes[first[policy.wanted :]] = DeviceOutcome.LATE
        waiting = settled > ends_at_s
        outcomes[waiting & (outcomes == DeviceOutcome.DROPPED)] = DeviceOutcome.LATE  # nobody knew yet
        settled[waiting | (outcomes == DeviceOutcome.LATE)] = ends_at_s
    worked = np.clip(settled - now_s - times.before_s, 0.0, work.epochs * times.epoch_s)
    computing = np.where(outcomes <= DeviceOutcome.PARTIAL, epochs * times.epoch_s, worked)
    return RoundSchedule(
        devices=devices,
        outcomes=outcomes.astype(np.int64),
        epochs=np.where(outcomes <= DeviceOutcome.PARTIAL, epochs, 0),
        settled_at_s=settled,
        energy_j=np.where(present, computing * population.active_watts(devices), 0.0),
        starts_at_s=now_s,
        ends_at_s=ends_at_s,
    )


def _epochs_by(times: DeviceTimes, epochs: int, policy: RoundPolicy) -> NDArray[np.int64]:
    """Return how many epochs each can do by the deadline: all or none, or with partial work any number."""
    if math.isinf(policy.deadline_s):
        return np.full(len(times.epoch_s), epochs, dtype=np.int64)
    budget = policy.deadline_s - times.before_s - times.after_s
    whole = epochs * times.epoch_s <= budget
    if not policy.keep_partial:
        return np.where(whole, epochs, 0).astype(np.int64)
    fitting = np.floor(np.divide(budget, times.epoch_s, out=np.zeros_like(budget), where=times.epoch_s > 0))
    return np.where(whole, epochs, np.clip(fitting, 0, epochs - 1)).astype(np.int64)
