"""How full a device's battery is: it drains by day, by its owner's use and by training, and is charged at night. Pure.

The owner's use is a function of device and day; only what training took is stored, for the devices that trained.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from hedgerow.decode import Fields
from hedgerow.server.simulation.clock import DAY_HOURS, LocalTime
from hedgerow.server.simulation.draws import Floats, Numbers, uniforms

__all__ = ["Battery", "BatteryLedger"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Battery:
    """A battery that is on the charger every night.

    Between two charges the owner uses a share of the capacity, drawn for each device and day, evenly over the hours;
    on the charger it fills evenly, and training costs nothing. The defaults are a phone's and assumptions: 4,000 mAh
    at 3.85 V, on the charger from 22 h to 6 h, three hours to fill an empty one.

    Attributes:
        seed: With the device's number and the day it decides the owner's use.
        capacity_j: What a full battery holds.
        daily_use: Smallest and largest share that the owner uses between two charges, uniformly distributed.
        charge_from_h: Local hour at which it is put on the charger.
        charging_h: Hours that it stays there.
        full_in_h: Hours that it takes to charge an empty one.
        local: What time it is for each device.
    """

    seed: int = 0
    capacity_j: float = 55_000.0
    daily_use: tuple[float, float] = (0.4, 0.9)
    charge_from_h: float = 22.0
    charging_h: float = 8.0
    full_in_h: float = 3.0
    local: LocalTime = field(default_factory=LocalTime)

    def __post_init__(self) -> None:
        if not 0 <= self.daily_use[0] <= self.daily_use[1] <= 1:
            raise ValueError(f"expected a daily use of 0 to 1, the smaller first, found {self.daily_use}")
        if not 0 <= self.charge_from_h < DAY_HOURS or not 0 < self.charging_h < DAY_HOURS:
            raise ValueError(f"expected hours of a day, found {self.charge_from_h} and {self.charging_h}")
        if self.capacity_j <= 0 or self.full_in_h <= 0:
            raise ValueError(f"expected a capacity and a time above 0, found {self.capacity_j} and {self.full_in_h}")

    def level(self, devices: Numbers, at_s: Floats | float, used_j: Floats | float = 0.0) -> Floats:
        """Return how full the batteries are.

        Args:
            devices: Whose, ``int64[n]``.
            at_s: When.
            used_j: What training took in the current :meth:`period`, ``float64[n]``.

        Returns:
            ``float64[n]`` from 0 to 1.
        """
        hour, period = self._position(devices, at_s)
        low, high = self.daily_use
        use = low + (high - low) * uniforms(self.seed, "use", devices, period)
        taken = np.asarray(used_j) / self.capacity_j
        plugged = hour < self.charging_h
        share = np.where(plugged, 1.0, (hour - self.charging_h) / (DAY_HOURS - self.charging_h))
        drained = np.maximum(0.0, 1.0 - use * share - taken)
        return np.where(plugged, np.minimum(1.0, drained + hour / self.full_in_h), drained)

    def is_charging(self, devices: Numbers, at_s: Floats | float) -> NDArray[np.bool_]:
        """Tell which are on the charger, ``bool[n]``."""
        return self._position(devices, at_s)[0] < self.charging_h

    def period(self, devices: Numbers, at_s: Floats | float) -> Numbers:
        """Return which discharge each is in, or was in before it was put on the charger: ``int64[n]``."""
        return self._position(devices, at_s)[1]

    def _position(self, devices: Numbers, at_s: Floats | float) -> tuple[Floats, Numbers]:
        """Return the hours since it was last put on the charger, and the number of the discharge."""
        since = self.local.hours(devices, at_s) - self.charge_from_h
        cycle = np.floor(since / DAY_HOURS)
        hour = since - cycle * DAY_HOURS
        return hour, cycle.astype(np.int64) - (hour < self.charging_h)


class BatteryLedger:
    """What training took from the batteries of the devices that trained; nothing for all others."""

    def __init__(self, entries: Mapping[int, tuple[int, float]] | None = None) -> None:
        self._entries = dict(entries or {})

    def used_j(self, battery: Battery, devices: Numbers, at_s: float) -> Floats:
        """Return what was taken from each in its current discharge, ``float64[n]``."""
        used = np.zeros(len(devices))
        if not self._entries:
            return used
        keys = np.array(sorted(self._entries), dtype=np.int64)
        places = np.minimum(np.searchsorted(keys, devices), len(keys) - 1)
        known = np.flatnonzero(keys[places] == devices)
        periods = battery.period(np.asarray(devices)[known], at_s)
        for place, device, period in zip(known, np.asarray(devices)[known].tolist(), periods.tolist(), strict=True):
            then, joules = self._entries[device]
            used[place] = joules if then == period else 0.0
        return used

    def take(self, battery: Battery, devices: Numbers, at_s: float, joules: Floats) -> None:
        """Take *joules* from each of *devices*; those on the charger lose nothing."""
        spent = np.flatnonzero((joules > 0) & ~battery.is_charging(devices, at_s))
        chosen = np.asarray(devices)[spent]
        before = self.used_j(battery, chosen, at_s)
        periods = battery.period(chosen, at_s)
        for device, period, total in zip(
            chosen.tolist(), periods.tolist(), (before + joules[spent]).tolist(), strict=True
        ):
            self._entries[device] = (period, total)

    def to_record(self) -> dict[str, list[float]]:
        """Return this as plain JSON values: the columns of a table."""
        ordered = sorted(self._entries)
        return {
            "devices": [float(device) for device in ordered],
            "periods": [float(self._entries[device][0]) for device in ordered],
            "used_j": [self._entries[device][1] for device in ordered],
        }

    @classmethod
    def from_fields(cls, fields: Fields) -> "BatteryLedger":
        """Read what :meth:`to_record` returned.

        Raises:
            DecodeError: It is another document.
        """
        columns = [fields.numbers(name, maximum_items=2**24) for name in ("devices", "periods", "used_j")]
        fields.finish()
        return cls({int(d): (int(p), used) for d, p, used in zip(*columns, strict=False)})
