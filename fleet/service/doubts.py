"""Which start of a device lives, when two say that they do. Pure but for what it remembers.

Anybody on the broker may speak for a device, and its own late messages speak for a start that is over. So what
contradicts the present picture is neither believed nor ignored: the device is asked, and a start that answers, with a
higher number than before, lives.
"""

from dataclasses import dataclass
from typing import Literal

__all__ = ["Doubts", "RefusedReport", "Word"]

Word = Literal["doubt", "proof", "repeat"]
"""What it means that a start speaks that should not."""


@dataclass(frozen=True, slots=True)
class RefusedReport:
    """The last report of a device of which nothing was believed.

    Attributes:
        reason: Why, as the end of a sentence.
        at: Unix time, by the fleet's clock.
    """

    reason: str
    at: float


class Doubts:
    """What was heard and not believed, by device; forgotten with a restart.

    Args:
        pause_s: Shortest time between two questions to one device.
    """

    def __init__(self, pause_s: float) -> None:
        self._pause_s = pause_s
        self._heard: dict[str, dict[str, int]] = {}
        self._asked_at: dict[str, float] = {}
        self.refusals: dict[str, RefusedReport] = {}

    def hear(self, device: str, boot: str, sequence: int) -> Word:
        """Note that *boot* speaks although it should not; return what that means.

        Args:
            device: Name of a known device.
            boot: A start that is remembered of it, so that there are few.
            sequence: The number of its report.

        Returns:
            ``"doubt"``: the first such word, so the device must be asked. ``"proof"``: it said something new since, so
            it lives. ``"repeat"``: neither.
        """
        heard = self._heard.setdefault(device, {})
        if boot not in heard:
            heard[boot] = sequence
            return "doubt"
        if sequence <= heard[boot]:
            return "repeat"
        del self._heard[device]
        return "proof"

    def may_ask(self, device: str, now: float) -> bool:
        """Return whether it is time for a question to *device*, and count it as asked."""
        last = self._asked_at.get(device)
        # A clock that was set back must not silence us.
        if last is not None and 0 <= now - last < self._pause_s:
            return False
        self._asked_at[device] = now
        return True

    def refuse(self, device: str, reason: str, now: float) -> bool:
        """Remember why a report of *device* was refused; return whether that is news."""
        before = self.refusals.get(device)
        self.refusals[device] = RefusedReport(reason, now)
        return before is None or before.reason != reason

    def settle(self, device: str) -> None:
        """Forget who spoke for *device*: the present start was believed."""
        self._heard.pop(device, None)

    def forget(self, device: str) -> None:
        """Forget everything about *device*."""
        self._heard.pop(device, None)
        self._asked_at.pop(device, None)
        self.refusals.pop(device, None)
