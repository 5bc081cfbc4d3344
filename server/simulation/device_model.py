"""The device model of a simulation as its user says it, and the population that it means."""

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hedgerow.errors import DecodeError
from hedgerow.plugins import Plugin, load_plugin
from hedgerow.server.simulation.errors import SimulationError

if TYPE_CHECKING:
    from hedgerow.server.simulation.availability import Availability
    from hedgerow.server.simulation.deadlines import RoundPolicy
    from hedgerow.server.simulation.population import Population

__all__ = ["PHONES", "DeviceModel"]

PHONES = "phones"
"""The mix of devices where nothing is known of the hardware."""

_TARGETS = Plugin("hedgerow.hardware:load_target", "")


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceModel:
    """What the virtual devices are like and how long a round waits for them.

    Attributes:
        mix: :data:`PHONES`, or hardware targets with shares, such as ``raspberry-pi-4:0.5,android-arm64:0.5``.
        trace: A file of recorded availability (``hedgerow.server.simulation.traces``); None: *diurnal* decides.
        diurnal: Devices train at night, each in its time zone; else always.
        drop_out: Chance that a device that begins a round never answers.
        deadline_s: A round's longest virtual time; None: it waits for all.
        wait_for: A round ends when so many have answered; None: it waits for all.
        keep_partial: Who cannot make the deadline does as many epochs as it can.
    """

    mix: str = PHONES
    trace: Path | None = None
    diurnal: bool = False
    drop_out: float = 0.0
    deadline_s: float | None = None
    wait_for: int | None = None
    keep_partial: bool = False

    def to_settings(self) -> dict[str, str | int | float | bool]:
        """Return what makes two runs the same: plain values, and of a trace its hash.

        Raises:
            DecodeError: The trace cannot be read.
        """
        settings: dict[str, str | int | float | bool] = {"population": self.mix, "drop_out": self.drop_out}
        if self.trace is not None:
            settings["trace_sha256"] = hashlib.sha256(_read(self.trace)).hexdigest()
        if self.deadline_s is not None:
            settings["deadline_s"] = self.deadline_s
        if self.wait_for is not None:
            settings["wait_for"] = self.wait_for
        flags = {"diurnal": self.diurnal, "keep_partial": self.keep_partial}
        return {**settings, **{name: value for name, value in flags.items() if value}}

    def check(self) -> None:
        """Refuse a deadline that cannot be kept.

        Raises:
            SimulationError: The deadline is not above 0.
        """
        if self.deadline_s is not None and not self.deadline_s > 0:
            raise SimulationError("a deadline above 0 seconds", f"{self.deadline_s:g}", "give a longer one")

    def population(self, devices: int, seed: int) -> "Population":
        """Return the devices.

        Args:
            devices: How many.
            seed: Decides all that differs between them.

        Raises:
            UnknownNameError: A target of the mix is unknown.
            DecodeError: The mix or the trace cannot be read.
            SimulationError: The trace has no device that is ever available.
        """
        from hedgerow.server.simulation.population import Population, parse_mix, population_from_targets

        rest: dict[str, Any] = {"seed": seed, "drop_out": self.drop_out, "availability": self._availability(seed)}
        if self.mix == PHONES:
            return Population(devices, **rest)
        load_target = load_plugin("part", {"targets": _TARGETS}, "targets")
        return population_from_targets(parse_mix(self.mix), load_target, devices=devices, **rest)

    def policy(self) -> "RoundPolicy":
        """Return when a round ends.

        Raises:
            SimulationError: The deadline is not above 0.
        """
        from hedgerow.server.simulation.deadlines import RoundPolicy

        self.check()
        deadline_s = math.inf if self.deadline_s is None else self.deadline_s
        return RoundPolicy(deadline_s=deadline_s, wanted=self.wait_for, keep_partial=self.keep_partial)

    def _availability(self, seed: int) -> "Availability":
        from hedgerow.server.simulation.availability import AlwaysAvailable, DiurnalAvailability

        if self.trace is None:
            return DiurnalAvailability(seed=seed) if self.diurnal else AlwaysAvailable()
        from hedgerow.server.simulation.traces import TraceAvailability, decode_trace

        return TraceAvailability(decode_trace(_read(self.trace), self.trace.name))


def _read(trace: Path) -> bytes:
    from hedgerow.server.simulation.traces import MAX_TRACE_BYTES

    try:
        if trace.stat().st_size > MAX_TRACE_BYTES:
            raise DecodeError(trace.name, f"at most {MAX_TRACE_BYTES:,} bytes", f"{trace.stat().st_size:,}")
        return trace.read_bytes()
    except OSError as exc:
        raise DecodeError(str(trace), "a file with a trace of availability", f"none ({exc.strerror})") from exc
