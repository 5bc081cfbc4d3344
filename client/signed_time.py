"""The time that signatures vouch for: a lower bound for a clock that may stand in the past. Pure.

A device without a battery for its clock wakes up in 1970, and every signature that ever expired looks fresh. TUF
metadata say when they end, but not when they were made; Hedgerow's say that too, in a signed field of their own. No
clock may be earlier than that, nor than the day on which the agent itself was released.

The bound rests on signed bytes alone, and its jumps are bounded: a signature counts up to its own end, and up to the
end of root and targets, which are signed with offline keys. So a stolen or mistaken online key can at most say that the
offline keys' word has ended. Only the newest documents count, those that the newest root vouches for; what a wrong
clock or a thief signed is taken back by signing again, or by a new key. Nothing of this concerns what is installed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

__all__ = ["RELEASED_AT", "SIGNED_AT", "DatedDocument", "LowerBound", "format_time", "lower_bound", "read_time"]

RELEASED_AT = datetime(2026, 11, 21, tzinfo=UTC)
"""When this version of the agent was released, or the line of work that leads to it; a test keeps it fresh."""

SIGNED_AT = "signed_at"
"""The field of the signed part of a metadata document that says when it was signed."""

_FORMAT = "%Y-%m-%dT%H:%M:%SZ"
_OFFLINE_ROLES = ("root", "targets")


@dataclass(frozen=True, slots=True, kw_only=True)
class DatedDocument:
    """What one verified metadata document says about time.

    Attributes:
        role: ``root``, ``targets``, ``snapshot`` or ``timestamp``.
        expires: When its signature ends.
        signed_at: When it was signed; None where it does not say so.
    """

    role: str
    expires: datetime
    signed_at: datetime | None


@dataclass(frozen=True, slots=True)
class LowerBound:
    """It is at least so late.

    Attributes:
        time: How late.
        witness: Who says so, for messages.
    """

    time: datetime
    witness: str


def format_time(time: datetime) -> str:
    """Return *time* as TUF writes it, in whole seconds of UTC."""
    return time.astimezone(UTC).strftime(_FORMAT)


def read_time(fields: Mapping[str, Any]) -> datetime | None:
    """Return what :data:`SIGNED_AT` among the unrecognized fields of a document says, or None for no such time."""
    value = fields.get(SIGNED_AT)
    if not isinstance(value, str):
        return None
    try:
        return datetime.strptime(value, _FORMAT).replace(tzinfo=UTC)
    except ValueError:
        return None


def lower_bound(documents: Mapping[str, DatedDocument], released_at: datetime = RELEASED_AT) -> LowerBound:
    """Return the earliest time that it can be.

    Args:
        documents: The newest verified document of each role, by role.
        released_at: When the agent was released.
    """
    offline_end = min((documents[role].expires for role in _OFFLINE_ROLES if role in documents), default=None)
    found = LowerBound(released_at, "the release of this agent")
    for document in documents.values():
        if document.signed_at is not None:
            time = min(document.signed_at, document.expires, offline_end or document.expires)
            if time > found.time:
                found = LowerBound(time, f"the signature of {document.role}.json")
    return found
