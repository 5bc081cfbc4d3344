"""When signatures end, and whose end is near enough to say so. Pure.

Root and targets are signed with keys that a person must fetch, so their end is an alarm weeks before. Snapshot and
timestamp are signed anew every few hours; when they come near their end, nobody is doing that.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

__all__ = ["ExpiryAlarm", "ExpiryWatch", "expiry_alarms"]

_OFFLINE = ("root", "targets")
_DAY_S = 86400.0
_OFFLINE_WARNING_S = 30 * _DAY_S
_ONLINE_WARNING_S = _DAY_S / 4


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpiryAlarm:
    """A signature that ends soon, or has ended.

    Attributes:
        role: ``root``, ``targets``, ``snapshot`` or ``timestamp``.
        expires_at: Unix time.
        is_over: Whether it has ended, so that no device accepts anything new.
    """

    role: str
    expires_at: float
    is_over: bool

    @property
    def sentence(self) -> str:
        """What is wrong, and what to do."""
        at = datetime.fromtimestamp(self.expires_at, UTC).isoformat(timespec="minutes")
        state = f"ended at {at}, and devices accept nothing new" if self.is_over else f"ends at {at}"
        remedy = (
            "bring the offline keys and run `hedgerow fleet renew`"
            if self.role in _OFFLINE
            else "keep `hedgerow fleet serve` running, with the online keys in reach and the right time"
        )
        return f"the signature of {self.role} {state}; {remedy}"

    def to_record(self) -> dict[str, Any]:
        """Return this as plain JSON values."""
        return {
            "role": self.role,
            "expires_at": self.expires_at,
            "is_over": self.is_over,
            "sentence": self.sentence,
        }


def expiry_alarms(expiries: Mapping[str, float], now: float) -> tuple[ExpiryAlarm, ...]:
    """Return an alarm for each role whose signature ends soon, the first to end first.

    Args:
        expiries: Role -> when its signature ends, Unix time.
        now: Unix time.
    """
    return tuple(
        ExpiryAlarm(role=role, expires_at=at, is_over=at <= now)
        for role, at in sorted(expiries.items(), key=lambda item: (item[1], item[0]))
        if at - now < (_OFFLINE_WARNING_S if role in _OFFLINE else _ONLINE_WARNING_S)
    )


class ExpiryWatch:
    """Says each alarm once a day, and at once when a signature has ended."""

    def __init__(self) -> None:
        self._said_at: dict[tuple[str, bool], float] = {}

    def due(self, expiries: Mapping[str, float], now: float) -> list[str]:
        """Return the sentences that are to be said now; arguments as for :func:`expiry_alarms`."""
        found = []
        for alarm in expiry_alarms(expiries, now):
            key = (alarm.role, alarm.is_over)
            said_at = self._said_at.get(key)
            if said_at is None or not 0 <= now - said_at < _DAY_S:
                self._said_at[key] = now
                found.append(alarm.sentence)
        return found
