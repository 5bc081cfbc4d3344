"""When to say again what a device has not acted on: doubling waits, one clock for each device. Pure."""

from collections.abc import Mapping

__all__ = ["Reminders"]


class Reminders:
    """Waits that double with every repetition and begin anew with every new version.

    Args:
        first_s: Wait before the first repetition.
        longest_s: The waits grow no longer than this.
    """

    def __init__(self, first_s: float, longest_s: float) -> None:
        self._first_s, self._longest_s = first_s, longest_s
        self._clocks: dict[str, tuple[int, float, float]] = {}

    def forget(self, device: str) -> None:
        """Forget a device, so that the next version that is wanted under its name is not taken for a repetition."""
        self._clocks.pop(device, None)

    def due(self, pending: Mapping[str, int], now: float) -> list[str]:
        """Return the devices to which their desired state is to be published again, sorted.

        Args:
            pending: Device -> the desired version it has not acted on. Devices that are absent are forgotten.
            now: Seconds, of any clock that does not go back.
        """
        self._clocks = {device: clock for device, clock in self._clocks.items() if device in pending}
        found = []
        for device, version in sorted(pending.items()):
            known, at, wait_s = self._clocks.get(device, (-1, 0.0, 0.0))
            if known != version:
                self._clocks[device] = (version, now + self._first_s, self._first_s)
            elif now >= at:
                wait_s = min(wait_s * 2, self._longest_s)
                self._clocks[device] = (version, now + wait_s, wait_s)
                found.append(device)
        return found
