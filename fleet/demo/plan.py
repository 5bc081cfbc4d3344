"""Who is in the demo: devices, their targets, and whose world will move. Pure."""

from dataclasses import dataclass

from hedgerow.fleet.demo.errors import DemoError

__all__ = ["BUILT_ONLY", "DEVICE_TARGETS", "DemoDevice", "plan_devices"]

DEVICE_TARGETS = (*["raspberry-pi-4", "android-arm64"] * 3, "raspberry-pi-4", "x86-gateway")
"""Targets in the order in which devices get them: of eight, four, three and one."""

BUILT_ONLY = ("iphone-15",)
"""Targets that are compiled and checked, with no device in the demo."""

_SHORT = {"raspberry-pi-4": "pi", "android-arm64": "phone", "x86-gateway": "gateway"}
_MOST_DEVICES = 64


@dataclass(frozen=True, slots=True)
class DemoDevice:
    """One agent process.

    Attributes:
        index: Its shard of the training data.
        name: Its name in the fleet.
        target: Its hardware target.
        meets_drift: Whether its world will move.
    """

    index: int
    name: str
    target: str
    meets_drift: bool


def plan_devices(count: int) -> tuple[DemoDevice, ...]:
    """Return *count* devices; the world of every second pair moves, so that each runtime sees both.

    Raises:
        DemoError: There are too few devices for a canary and a rest, or more than one machine should run.
    """
    if not 4 <= count <= _MOST_DEVICES:
        raise DemoError(f"expected from 4 to {_MOST_DEVICES} devices, found {count}; choose another --devices")
    devices = []
    for index in range(count):
        target = DEVICE_TARGETS[index % len(DEVICE_TARGETS)]
        devices.append(DemoDevice(index, f"{_SHORT[target]}-{index}", target, meets_drift=index % 4 < 2))
    return tuple(devices)
