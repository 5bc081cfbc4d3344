"""A fleet of virtual devices, described by distributions: a million of them cost nothing until they are asked for.

Every property of a device is a function of the population's seed and the device's number
(``hedgerow.server.simulation.draws``). Pure.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hedgerow.errors import DecodeError
from hedgerow.plugins import is_reference
from hedgerow.server.simulation.availability import AlwaysAvailable, Availability
from hedgerow.server.simulation.battery import Battery
from hedgerow.server.simulation.draws import Floats, Numbers, normals, uniforms

__all__ = [
    "PHONE",
    "DeviceKind",
    "Network",
    "Population",
    "kind_of_target",
    "parse_mix",
    "population_from_targets",
]

_MAX_KINDS = 64


@dataclass(frozen=True, slots=True)
class DeviceKind:
    """What devices of one kind have in common.

    Attributes:
        name: Such as ``raspberry-pi-4``.
        flops_per_s: Sustained float32 operations a second while it trains; a multiply-accumulate is two.
        active_watts: Power while it computes.
    """

    name: str
    flops_per_s: float
    active_watts: float = 4.0

    def __post_init__(self) -> None:
        if not (0 < self.flops_per_s < math.inf and 0 <= self.active_watts < math.inf):
            raise ValueError(f"expected a speed above 0 and a power of at least 0, found {self}")


PHONE = DeviceKind("phone", 1.8e10, 2.0)
"""One core of a phone, as ``hardware/targets/android-arm64.toml`` has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """What lies between devices and the server; log-normal over the devices, a device keeps its own.

    The defaults are assumptions: medians of home and mobile links, with a tail in which one device in forty is five
    times slower.

    Attributes:
        down_bits_per_s: Median rate to the device.
        up_bits_per_s: Median rate from the device.
        sigma: Standard deviation of the logarithm of both; a device that is slow down is as slow up.
        setup_s: Time that each round loses before the first byte: waking up, connecting, loading.
    """

    down_bits_per_s: float = 20e6
    up_bits_per_s: float = 5e6
    sigma: float = 0.8
    setup_s: float = 0.5

    def __post_init__(self) -> None:
        if not (self.down_bits_per_s > 0 and self.up_bits_per_s > 0 and self.sigma >= 0 and self.setup_s >= 0):
            raise ValueError(f"expected rates above 0, and a sigma and a time of at least 0, found {self}")


@dataclass(frozen=True, slots=True)
class Population:
    """So many virtual devices.

    Attributes:
        devices: How many; they are numbered from 0.
        seed: With a device's number it decides all that differs between devices.
        kinds: Kind -> share of the devices; shares are divided by their sum.
        speed_sigma: Standard deviation of the logarithm of a device's speed relative to its kind.
        network: Rates of the links.
        availability: When devices can train.
        drop_out: Chance that a device that begins a round never answers.
        battery: None: all are on mains.
    """

    devices: int
    seed: int = 0
    kinds: Mapping[DeviceKind, float] = field(default_factory=lambda: {PHONE: 1.0})
    speed_sigma: float = 0.4
    network: Network = field(default_factory=Network)
    availability: Availability = field(default_factory=AlwaysAvailable)
    drop_out: float = 0.0
    battery: Battery | None = None

    def __post_init__(self) -> None:
        if self.devices < 1:
            raise ValueError(f"expected at least 1 device, found {self.devices}")
        if not self.kinds or not all(0 <= share < math.inf for share in self.kinds.values()):
            raise ValueError(f"expected kinds with shares of at least 0, found {dict(self.kinds)}")
        if sum(self.kinds.values()) <= 0:
            raise ValueError("expected at least one kind with a share above 0")
        if not (self.speed_sigma >= 0 and 0 <= self.drop_out <= 1):
            raise ValueError(f"expected a sigma and a chance, found {self.speed_sigma} and {self.drop_out}")

    def __len__(self) -> int:
        return self.devices

    def kind_of(self, devices: Numbers) -> NDArray[np.int64]:
        """Return each one's place in *kinds*, ``int64[n]``."""
        shares = np.fromiter(self.kinds.values(), dtype=np.float64)
        edges = np.cumsum(shares / shares.sum())[:-1]
        return np.searchsorted(edges, uniforms(self.seed, "kind", devices), side="right").astype(np.int64)

    def flops_per_s(self, devices: Numbers) -> Floats:
        """Return how fast each computes, ``float64[n]``."""
        speeds = np.array([kind.flops_per_s for kind in self.kinds])[self.kind_of(devices)]
        return np.asarray(speeds * np.exp(self.speed_sigma * normals(self.seed, "speed", devices)))

    def active_watts(self, devices: Numbers) -> Floats:
        """Return each one's power while it computes, ``float64[n]``."""
        return np.array([kind.active_watts for kind in self.kinds])[self.kind_of(devices)]

    def bits_per_s(self, devices: Numbers) -> tuple[Floats, Floats]:
        """Return each one's rates down and up, ``float64[n]`` each."""
        factor = np.exp(self.network.sigma * normals(self.seed, "network", devices))
        return self.network.down_bits_per_s * factor, self.network.up_bits_per_s * factor

    def drops_at(self, devices: Numbers, attempt: Numbers | int) -> Floats:
        """Return after which share of its work each drops out of its *attempt*, ``float64[n]``; infinity for never.

        Args:
            devices: Whose, ``int64[n]``.
            attempt: Number of the round, or whatever tells this work from the device's others: one, or ``int64[n]``.
        """
        chance = uniforms(self.seed, "drop", devices, attempt)
        share = uniforms(self.seed, "drop share", devices, attempt)
        return np.where(chance < self.drop_out, share, np.inf)


class _Cost(Protocol):
    @property
    def macs_per_s(self) -> Mapping[str, float]: ...

    @property
    def active_watts(self) -> float: ...


class _Target(Protocol):
    """What this module needs of ``hedgerow.hardware.Target``; server does not import hardware."""

    @property
    def name(self) -> str: ...

    @property
    def cost(self) -> _Cost: ...


def kind_of_target(target: _Target) -> DeviceKind:
    """Return the kind of devices that a hardware target describes.

    Its float32 rate counts, or the slowest that it has: what trains, trains in float32.
    """
    rates = target.cost.macs_per_s
    return DeviceKind(target.name, 2.0 * rates.get("float32", min(rates.values())), target.cost.active_watts)


def population_from_targets(
    mix: Mapping[str, float], load_target: Callable[[str], _Target], *, devices: int, **rest: Any
) -> Population:
    """Make a population of hardware targets.

    Args:
        mix: Target -> share of the devices.
        load_target: ``hedgerow.hardware.load_target``.
        devices: How many.
        rest: Further arguments of :class:`Population`.

    Raises:
        UnknownNameError: There is no such target.
    """
    return Population(devices, kinds={kind_of_target(load_target(name)): share for name, share in mix.items()}, **rest)


def parse_mix(text: str) -> dict[str, float]:
    """Read ``raspberry-pi-4:0.5,android-arm64:0.5``; a name without a share counts 1.

    Raises:
        DecodeError: It is written in another way, names something twice, or a share is not above 0.
    """
    mix: dict[str, float] = {}
    parts = text.split(",")
    if len(parts) > _MAX_KINDS:
        raise DecodeError("population", f"at most {_MAX_KINDS} kinds", str(len(parts)))
    for part in parts:
        name, colon, written = (piece.strip() for piece in part.rpartition(":"))
        try:
            share = float(written)
        except ValueError:
            share = -1.0
        if not colon or (share < 0 and is_reference(part.strip())):
            name, share = part.strip(), 1.0
        if not name or name in mix or not 0 < share < math.inf:
            raise DecodeError(
                "population", "names and shares like raspberry-pi-4:0.5,android-arm64:0.5", repr(text)[:80]
            )
        mix[name] = share
    return mix
