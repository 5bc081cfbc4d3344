"""Who starts and arrives when in an asynchronous run: the event core of FedBuff. Pure.

FedBuff (Nguyen et al. 2022, arXiv 2106.06639, algorithm 1): a fixed number of devices is at work at any time, each from
the weights that were current when it started; as soon as a buffer of updates is full it becomes new weights. When
things happen does not depend on what is learned, so this module knows nothing of weights.
"""

import heapq
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from hedgerow.server.errors import NotEnoughDevicesError
from hedgerow.server.simulation.battery import BatteryLedger
from hedgerow.server.simulation.deadlines import DeviceWork, device_times
from hedgerow.server.simulation.draws import Numbers, uniforms
from hedgerow.server.simulation.population import Population

__all__ = ["Arrival", "BufferedPlan", "BufferedStep", "Start", "buffered_steps"]

_WAIT_STEP_S = 900.0
_BLOCKS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class BufferedPlan:
    """How an asynchronous run goes.

    Attributes:
        concurrency: Devices at work at any time.
        buffer: Updates that become new weights.
        server_learning_rate: Step along the buffer's mean update.
        staleness_exponent: An update that is s versions old weighs ``(1 + s) ** -staleness_exponent``; the paper has
            1/2.
        timeout_s: A device that needs longer is given up and another started.
        weigh_examples: Weigh updates by their examples as well, as FedAvg does; the paper does not.
        minimum_battery: A device whose battery is emptier is not started.
    """

    concurrency: int = 10
    buffer: int = 5
    server_learning_rate: float = 1.0
    staleness_exponent: float = 0.5
    timeout_s: float = math.inf
    weigh_examples: bool = False
    minimum_battery: float = 0.2

    def __post_init__(self) -> None:
        if self.concurrency < 1 or self.buffer < 1:
            raise ValueError(f"expected a concurrency and a buffer of at least 1, found {self}")
        if not (self.server_learning_rate > 0 and self.staleness_exponent >= 0 and self.timeout_s > 0):
            raise ValueError(f"expected a rate and a timeout above 0 and an exponent of at least 0, found {self}")

    def weight(self, staleness: int) -> float:
        """Return what an update weighs that is *staleness* versions old."""
        return float((1.0 + staleness) ** -self.staleness_exponent)


@dataclass(frozen=True, slots=True)
class Start:
    """A device began to work.

    Attributes:
        number: Its place in the order of starts, from 0.
        device: Who.
        at_s: When.
        version: Which weights it got.
        repeat: How often it had started from this version before.
        ends_at_s: When its update arrives, or when it is known that none will.
        arrives: Whether an update comes of it.
    """

    number: int
    device: int
    at_s: float
    version: int
    repeat: int
    ends_at_s: float
    arrives: bool


@dataclass(frozen=True, slots=True)
class Arrival:
    """An update came in.

    Attributes:
        start: The work that it comes from.
        staleness: Versions that were made since that began.
        weight: How much the update counts.
    """

    start: Start
    staleness: int
    weight: float


@dataclass(frozen=True, slots=True)
class BufferedStep:
    """A full buffer becomes new weights.

    Attributes:
        version: The number of the new weights, from 1; the first weights are version 0.
        at_s: When.
        starts: Work that began since the version before and brings an update some time; all from ``version - 1``.
        arrivals: The buffer, in the order of arrival.
        lost: Devices that were given up since the version before.
    """

    version: int
    at_s: float
    starts: tuple[Start, ...]
    arrivals: tuple[Arrival, ...]
    lost: int


@dataclass(slots=True)
class _Version:
    """What has happened since the last step."""

    starts: list[Start] = field(default_factory=list)
    arrivals: list[Arrival] = field(default_factory=list)
    repeats: dict[int, int] = field(default_factory=dict)
    lost: int = 0


class _Devices:
    """Which devices are idle and able, and how long they will take."""

    def __init__(
        self, population: Population, work: DeviceWork, plan: BufferedPlan, samples: Callable[[Numbers], Numbers]
    ) -> None:
        self._population, self._work, self._plan, self._samples = population, work, plan, samples
        self._running: set[int] = set()
        self._ledger = BatteryLedger()
        self._blocks = 0
        self._joules: dict[int, float] = {}

    def choose(self, wanted: int, now_s: float) -> Numbers:
        """Draw up to *wanted* idle devices that can train now, uniformly."""
        wanted = min(wanted, self._population.devices - len(self._running))
        chosen: list[int] = []
        for _ in range(_BLOCKS):
            if len(chosen) >= wanted:
                break
            self._blocks += 1
            drawn = uniforms(self._population.seed, f"start {self._blocks}", np.arange(4 * wanted + 16))
            candidates = self._able((drawn * self._population.devices).astype(np.int64), now_s)
            chosen = list(dict.fromkeys([*chosen, *candidates.tolist()]))
        if len(chosen) < wanted:  # few are there: look at all, and draw among them
            able = self._able(np.arange(self._population.devices), now_s)
            order = np.argsort(uniforms(self._population.seed, f"start {self._blocks}", able), kind="stable")
            chosen = list(dict.fromkeys([*chosen, *able[order].tolist()]))
        return np.array(chosen[:wanted], dtype=np.int64)

    def begin(self, devices: Numbers, numbers: Numbers, now_s: float) -> tuple[Numbers, list[float], list[bool]]:
        """Start *devices*; return them with when each ends and whether an update comes of it."""
        times = device_times(self._population, devices, self._work, self._samples(devices))
        total_s = times.total_s(self._work.epochs)
        leaves_s = np.minimum(
            now_s + self._population.drops_at(devices, numbers) * total_s,
            np.minimum(self._population.availability.until(devices, now_s), now_s + self._plan.timeout_s),
        )
        ends_s = np.minimum(now_s + total_s, leaves_s)
        computing_s = np.clip(ends_s - now_s - times.before_s, 0.0, self._work.epochs * times.epoch_s)
        joules = computing_s * self._population.active_watts(devices)
        self._joules.update(zip(devices.tolist(), joules.tolist(), strict=True))
        self._running.update(devices.tolist())
        return devices, ends_s.tolist(), (now_s + total_s <= leaves_s).tolist()

    def end(self, device: int, now_s: float) -> None:
        """Note that *device* is idle again."""
        self._running.discard(device)
        joules = np.array([self._joules.pop(device)])
        if self._population.battery is not None:
            self._ledger.take(self._population.battery, np.array([device]), now_s, joules)

    def next_chance_s(self, now_s: float) -> float:
        """Return when it makes sense to choose again; infinity for never."""
        idle = np.setdiff1d(np.arange(self._population.devices), np.fromiter(self._running, dtype=np.int64))
        starts_s = self._population.availability.next_start(idle, now_s)
        later = starts_s[starts_s > now_s]
        # Who is there and was not chosen has an empty battery, for whose charging nobody names a time.
        return min(float(later.min(initial=math.inf)), now_s + _WAIT_STEP_S if len(later) < len(idle) else math.inf)

    def _able(self, devices: Numbers, now_s: float) -> Numbers:
        able = devices[self._population.availability.is_available(devices, now_s)]
        battery = self._population.battery
        if battery is not None:
            level = battery.level(able, now_s, self._ledger.used_j(battery, able, now_s))
            able = able[level >= self._plan.minimum_battery]
        return able[~np.isin(able, np.fromiter(self._running, dtype=np.int64))] if self._running else able


def buffered_steps(
    population: Population,
    work: DeviceWork,
    plan: BufferedPlan | None = None,
    *,
    samples: Callable[[Numbers], Numbers],
    now_s: float = 0.0,
) -> Iterator[BufferedStep]:
    """Play an asynchronous run, without end: one item each time the buffer is full.

    Events at the same time happen in the order in which the devices started. The same arguments give the same events.

    Args:
        population: Whose devices; its seed decides who is chosen.
        work: What each does.
        plan: None: the default one.
        samples: Device numbers ``int64[n]`` -> samples of each.
        now_s: When it begins.

    Raises:
        NotEnoughDevicesError: Nobody is at work, and nobody will ever be available again.
    """
    plan = plan or BufferedPlan()
    devices = _Devices(population, work, plan, samples)
    running: list[tuple[float, int, Start]] = []
    version, began, since = 0, 0, _Version()
    retry_s = now_s
    while True:
        missing = plan.concurrency - len(running)
        if missing and now_s >= retry_s:
            chosen = devices.choose(missing, now_s)
            if len(chosen):
                numbers = np.arange(began, began + len(chosen))
                for number, device, ends_s, arrives in zip(
                    numbers.tolist(), chosen.tolist(), *devices.begin(chosen, numbers, now_s)[1:], strict=True
                ):
                    repeat = since.repeats.get(device, 0)
                    since.repeats[device] = repeat + 1
                    start = Start(number, device, now_s, version, repeat, ends_s, arrives)
                    heapq.heappush(running, (ends_s, number, start))
                    if arrives:
                        since.starts.append(start)
                began += len(chosen)
            if len(chosen) < missing:
                retry_s = devices.next_chance_s(now_s)
        if plan.concurrency > len(running) and (not running or retry_s < running[0][0]):
            if math.isinf(retry_s):
                raise NotEnoughDevicesError(1, 0, now_s)
            now_s = retry_s
            continue
        now_s, _, ended = heapq.heappop(running)
        devices.end(ended.device, now_s)
        retry_s = now_s
        if not ended.arrives:
            since.lost += 1
            continue
        staleness = version - ended.version
        since.arrivals.append(Arrival(ended, staleness, plan.weight(staleness)))
        if len(since.arrivals) == plan.buffer:
            version += 1
            yield BufferedStep(version, now_s, tuple(since.starts), tuple(since.arrivals), since.lost)
            since = _Version()
