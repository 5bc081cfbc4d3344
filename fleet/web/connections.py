"""Connections that cost nothing before they ask something: bounded in number, in header size and in patience.

uvicorn bounds a connection that idles after a request, and nothing else: one whose headers never end is kept for ever,
and so is one that does not read its answer. Here every connection is looked at once a second.
"""

import asyncio
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

__all__ = ["BoundedProtocol", "ConnectionLimits", "sweep", "watch"]

_SWEEP_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionLimits:
    """What a connection may cost.

    Attributes:
        connections: Connections at a time; beyond them, one that has asked nothing gives way.
        per_address: Connections at a time from one address; further ones are closed.
        header_bytes: Length of a request's line and headers.
        header_s: Seconds from the first byte (of a new connection: from its start) to the end of the headers.
        idle_s: Seconds that a connection may be silent between two requests.
        unread_s: Seconds in which a client that does not read its answer must take some of it.
        closing_s: Seconds for the last bytes of an answer after which the connection is closed.
    """

    connections: int = 768
    per_address: int = 512
    header_bytes: int = 16 * 1024
    header_s: float = 10.0
    idle_s: int = 5
    unread_s: float = 120.0
    closing_s: float = 10.0


class BoundedProtocol(H11Protocol):
    """uvicorn's connection that knows since when it keeps us waiting.

    On h11 and not on httptools, which takes headers without end. The limits are those of :meth:`limited`.
    """

    limits = ConnectionLimits()

    @classmethod
    def limited(cls, limits: ConnectionLimits) -> "type[BoundedProtocol]":
        """Return the protocol with other limits."""
        return type("BoundedProtocol", (cls,), {"limits": limits})

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self.asking_since: float | None = None
        self.unread_since: float | None = None
        self.closing_since: float | None = None

    @property
    def has_request(self) -> bool:
        """Whether a request came whole up to its body, and is not answered yet."""
        return self.cycle is not None and not self.cycle.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, unless there are too many."""
        super().connection_made(transport)
        self.asking_since = self.loop.time()
        others = [peer for peer in self.connections if isinstance(peer, BoundedProtocol) and peer is not self]
        address = self.client[0] if self.client else ""
        if Counter(peer.client[0] for peer in others if peer.client)[address] >= self.limits.per_address:
            transport.abort()
        elif len(others) >= self.limits.connections:
            # Whoever has asked nothing for longest: a flood of silent connections must not lock the others out.
            silent = [peer for peer in others if peer.asking_since is not None]
            longest = min(silent, key=lambda peer: peer.asking_since or 0.0, default=self)
            longest.transport.abort()

    def data_received(self, data: bytes) -> None:
        """Take bytes; note since when headers are incomplete."""
        super().data_received(data)
        if self.has_request:
            self.asking_since = None
        elif self.asking_since is None:
            self.asking_since = self.loop.time()

    def pause_writing(self) -> None:
        """Note since when the client reads nothing."""
        super().pause_writing()
        self.unread_since = self.loop.time()

    def resume_writing(self) -> None:
        """Note that the client reads."""
        super().resume_writing()
        self.unread_since = None

    def end_if_late(self, now: float) -> None:
        """End the connection when it has kept us waiting for too long."""
        if self.transport.is_closing() and self.closing_since is None:
            self.closing_since = now
        for since, limit_s in (
            (self.asking_since, self.limits.header_s),
            (self.unread_since, self.limits.unread_s),
            (self.closing_since, self.limits.closing_s),
        ):
            if since is not None and now - since > limit_s:
                self.transport.abort()


def sweep(connections: Iterable[object], now: float) -> None:
    """End the connections that have kept us waiting for too long.

    Args:
        connections: uvicorn's.
        now: Seconds, by the event loop's clock.
    """
    for connection in tuple(connections):
        if isinstance(connection, BoundedProtocol):
            connection.end_if_late(now)


async def watch(connections: Iterable[object]) -> None:
    """Sweep once a second, until cancelled."""
    while True:
        await asyncio.sleep(_SWEEP_S)
        sweep(connections, asyncio.get_running_loop().time())
