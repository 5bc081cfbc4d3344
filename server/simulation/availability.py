"""Which devices can train at a virtual time. Pure: a function of the device's number and the time.

A device trains while it is idle, charging and on an unmetered network (Bonawitz et al. 2019, arXiv 1902.01046, section
2), which makes the number of available devices swing with the time of day. A recorded trace
(``hedgerow.server.simulation.traces``) takes the place of a modelled one.
"""

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hedgerow.server.simulation.clock import DAY_HOURS, HOUR_S, LocalTime
from hedgerow.server.simulation.draws import Floats, Numbers, uniforms

__all__ = ["AlwaysAvailable", "Availability", "DiurnalAvailability"]

_HORIZON_DAYS = 366
_SHORTEST_H = 1.0 / HOUR_S
"""Windows of less than two seconds are none: they would end where rounding begins."""
_INTO_WINDOW_S = 1e-3
"""A start is named so much late that rounding cannot put it before the window; no stay is shorter."""


class Availability(Protocol):
    """When devices can train."""

    def is_available(self, devices: Numbers, at_s: Floats | float) -> NDArray[np.bool_]:
        """Tell which of *devices* can train at *at_s*, ``bool[n]``."""
        ...

    def until(self, devices: Numbers, at_s: Floats | float) -> Floats:
        """Return when those that can train at *at_s* will have left, ``float64[n]``; *at_s* itself for the others."""
        ...

    def next_start(self, devices: Numbers, at_s: Floats | float) -> Floats:
        """Return the first time from *at_s* on at which each can train, ``float64[n]``; infinity for never."""
        ...


@dataclass(frozen=True, slots=True)
class AlwaysAvailable:
    """Every device can train at any time."""

    def is_available(self, devices: Numbers, at_s: Floats | float) -> NDArray[np.bool_]:
        """Return true for all."""
        del at_s
        return np.ones(len(devices), dtype=np.bool_)

    def until(self, devices: Numbers, at_s: Floats | float) -> Floats:
        """Return infinity for all."""
        del at_s
        return np.full(len(devices), np.inf)

    def next_start(self, devices: Numbers, at_s: Floats | float) -> Floats:
        """Return *at_s* for all."""
        return np.broadcast_to(np.asarray(at_s, dtype=np.float64), (len(devices),)).copy()


@dataclass(frozen=True, slots=True, kw_only=True)
class DiurnalAvailability:
    """Devices come at night and go in the morning.

    At the local hour h a share p(h) of the devices can train, a cosine between *low* and *high* with its top at
    *peak_hour*. Each device draws one uniform number u for each local day (from twelve hours before the peak to twelve
    after) and is available while p(h) exceeds it: one window a day round the peak, of a length that differs from day to
    day, and none on days with u above *high*. So the share at every hour is exactly p(h), and when a window ends or the
    next begins is a formula.

    Attributes:
        seed: With the device's number and the day it decides the window.
        low: Share of the devices at the worst hour; these are available all day.
        high: Share at the best hour.
        peak_hour: The best hour, local time.
        local: What time it is for each device.
    """

    seed: int = 0
    low: float = 0.05
    high: float = 0.4
    peak_hour: float = 2.0
    local: LocalTime = field(default_factory=LocalTime)

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.high <= 1 or self.high == 0:
            raise ValueError(f"expected shares 0 <= low <= high <= 1 with high above 0, found {self.low}, {self.high}")
        if not 0 <= self.peak_hour < DAY_HOURS:
            raise ValueError(f"expected a peak hour from 0 to below 24, found {self.peak_hour}")

    def is_available(self, devices: Numbers, at_s: Floats | float) -> NDArray[np.bool_]:
        """Tell whether p at each device's local hour exceeds its number of the day."""
        day, hour = self._position(devices, at_s)
        half = self._half_width(devices, day)
        return (-half <= hour) & (hour < half)

    def until(self, devices: Numbers, at_s: Floats | float) -> Floats:
        """Return when the window ends; whole days in a row are one window, at most a year of them."""
        day, hour = self._position(devices, at_s)
        half = self._half_width(devices, day)
        start = np.broadcast_to(np.asarray(at_s, dtype=np.float64), hour.shape)
        inside = (-half <= hour) & (hour < half)
        ends = start + np.where(inside, np.maximum((half - hour) * HOUR_S, _INTO_WINDOW_S), 0.0)
        going = np.flatnonzero(inside & (half == DAY_HOURS / 2))
        for ahead in range(1, _HORIZON_DAYS):
            if not len(going):
                break
            going = going[self._half_width(devices[going], day[going] + ahead) == DAY_HOURS / 2]
            ends[going] += DAY_HOURS * HOUR_S
        return np.asarray(ends)

    def next_start(self, devices: Numbers, at_s: Floats | float) -> Floats:
        """Return *at_s* for those who are available, else the beginning of the next window within a year."""
        day, hour = self._position(devices, at_s)
        half = self._half_width(devices, day)
        start = np.broadcast_to(np.asarray(at_s, dtype=np.float64), hour.shape)
        found = np.where((-half <= hour) & (hour < half), start, np.inf)
        later = hour < -half
        found[later & (half > 0)] = (start + (-half - hour) * HOUR_S + _INTO_WINDOW_S)[later & (half > 0)]
        searching = np.flatnonzero(np.isinf(found))
        for ahead in range(1, _HORIZON_DAYS):
            if not len(searching):
                break
            halves = self._half_width(devices[searching], day[searching] + ahead)
            begins = start[searching] + (ahead * DAY_HOURS - halves - hour[searching]) * HOUR_S + _INTO_WINDOW_S
            found[searching] = np.where(halves > 0, begins, np.inf)
            searching = searching[halves <= 0]
        return np.asarray(found)

    def _position(self, devices: Numbers, at_s: Floats | float) -> tuple[Numbers, Floats]:
        """Return the local day, and the hours since its peak, from -12 to below 12."""
        since = self.local.hours(devices, at_s) - self.peak_hour + DAY_HOURS / 2
        day = np.floor(since / DAY_HOURS)
        return day.astype(np.int64), since - day * DAY_HOURS - DAY_HOURS / 2

    def _half_width(self, devices: Numbers, day: Numbers) -> Floats:
        """Return how many hours before and after the peak the day's window reaches; -1: there is none."""
        number = uniforms(self.seed, "window", devices, day)
        span = self.high - self.low
        scaled = np.clip((number - self.low) / span, 0.0, 1.0) if span else np.ones_like(number)
        half = np.arccos(2.0 * scaled - 1.0) * (DAY_HOURS / 2 / np.pi)
        half = np.where(number < self.low, DAY_HOURS / 2, half)
        return np.where(half < _SHORTEST_H, -1.0, half)
