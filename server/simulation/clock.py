"""Time in a simulated fleet: a clock that only events move, and what time of day it is where a device is. Pure."""

from dataclasses import dataclass

import numpy as np

from hedgerow.server.simulation.draws import Floats, Numbers, uniforms

__all__ = ["DAY_HOURS", "HOUR_S", "LocalTime", "VirtualClock"]

DAY_HOURS = 24.0
HOUR_S = 3600.0


class VirtualClock:
    """Seconds since the start of a simulation; no wall clock moves it.

    Attributes:
        now_s: Seconds since the start, which is midnight (UTC) for whatever depends on the time of day.
    """

    __slots__ = ("now_s",)

    def __init__(self, now_s: float = 0.0) -> None:
        self.now_s = now_s

    def advance_to(self, at_s: float) -> None:
        """Move to an event at *at_s*.

        Raises:
            ValueError: That is in the past, or no time at all.
        """
        if not self.now_s <= at_s < np.inf:
            raise ValueError(f"the clock stands at {self.now_s} s and cannot move to {at_s} s")
        self.now_s = at_s


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalTime:
    """What time of day it is for each device.

    Attributes:
        seed: With the device's number it decides the two below.
        utc_offsets_h: Time zones; each device lives in one of them, all equally likely (repeat one to weigh it).
        habit_h: A device's owner keeps hours that are so much earlier or later than the zone's at most, uniformly.
    """

    seed: int = 0
    utc_offsets_h: tuple[float, ...] = (0.0,)
    habit_h: float = 1.5

    def __post_init__(self) -> None:
        if not self.utc_offsets_h or not all(-14 <= offset <= 14 for offset in self.utc_offsets_h):
            raise ValueError(f"expected offsets from UTC of -14 to 14 hours, found {self.utc_offsets_h}")
        if not 0 <= self.habit_h <= 12:
            raise ValueError(f"expected habits within 0 to 12 hours, found {self.habit_h}")

    def hours(self, devices: Numbers, at_s: Floats | float) -> Floats:
        """Return the hours since local midnight of the first day, ``float64[n]``; below 0 before it."""
        shift = (2.0 * uniforms(self.seed, "habit", devices) - 1.0) * self.habit_h
        if len(self.utc_offsets_h) > 1:
            zones = (uniforms(self.seed, "zone", devices) * len(self.utc_offsets_h)).astype(np.int64)
            shift += np.asarray(self.utc_offsets_h)[zones]
        else:
            shift += self.utc_offsets_h[0]
        shift += np.asarray(at_s) / HOUR_S
        return shift
