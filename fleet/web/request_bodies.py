"""Bodies of requests: nothing is read before somebody wants it, and then no more than may be.

:class:`BoundedBodies` stands around the whole application, so that no route can forget. What is not read by the time
of the answer is not read at all: the connection is closed.
"""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from starlette.exceptions import HTTPException

__all__ = ["BODY_LIMIT_BYTES", "BoundedBodies", "bound_body"]

BODY_LIMIT_BYTES = 256 * 1024
"""Length of a body that no route has its own bound for."""

_SILENCE_S = 20.0
_SLOWEST_BYTES_PER_S, _GRACE_S = 1024, 60.0
_BOUND = "hedgerow.body_limit_bytes"

AsgiMessage = MutableMapping[str, Any]
AsgiReceive = Callable[[], Awaitable[AsgiMessage]]
AsgiSend = Callable[[AsgiMessage], Awaitable[None]]
AsgiApp = Callable[[Any, AsgiReceive, AsgiSend], Awaitable[None]]


def bound_body(scope: MutableMapping[str, Any], limit_bytes: int) -> None:
    """Give a request's body another bound than :data:`BODY_LIMIT_BYTES`, before it is read."""
    scope[_BOUND] = limit_bytes


class BoundedBodies:
    """An ASGI application whose requests have bounded bodies.

    A body that says that it is too long is refused before its first byte is asked for, one that grows too long at the
    byte that is too many, and one that stops coming after a while.

    Args:
        app: The application.
        limit_bytes: Where no route says otherwise.
        silence_s: Longest wait for the next piece.
        grace_s: Time for a body, beside what its limit takes at 1 KiB a second.
    """

    def __init__(
        self,
        app: AsgiApp,
        *,
        limit_bytes: int = BODY_LIMIT_BYTES,
        silence_s: float = _SILENCE_S,
        grace_s: float = _GRACE_S,
    ) -> None:
        self._app, self._limit_bytes = app, limit_bytes
        self._silence_s, self._grace_s = silence_s, grace_s

    async def __call__(self, scope: MutableMapping[str, Any], receive: AsgiReceive, send: AsgiSend) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = _BoundedBody(scope, receive, self._limit_bytes, self._silence_s, self._grace_s)

        async def send_and_close(message: AsgiMessage) -> None:
            if message["type"] == "http.response.start" and not body.is_whole:
                # Closed, not drained: who was refused must not keep us reading.
                others = [(name, value) for name, value in message.get("headers", []) if name.lower() != b"connection"]
                message = {**message, "headers": [*others, (b"connection", b"close")]}
            await send(message)

        await self._app(scope, body.receive, send_and_close)


class _BoundedBody:
    """The body of one request, while it comes."""

    def __init__(
        self, scope: MutableMapping[str, Any], receive: AsgiReceive, limit_bytes: int, silence_s: float, grace_s: float
    ) -> None:
        self._scope, self._receive = scope, receive
        self._limit_bytes, self._silence_s, self._grace_s = limit_bytes, silence_s, grace_s
        self._size_bytes = 0
        self._deadline: float | None = None
        headers = dict(scope["headers"])
        self._declared = headers.get(b"content-length", b"0")
        self.is_whole = self._declared == b"0" and b"transfer-encoding" not in headers

    async def receive(self) -> AsgiMessage:
        if self.is_whole:
            return await self._receive()
        limit_bytes = self._scope.get(_BOUND, self._limit_bytes)
        if self._deadline is None:
            self._deadline = asyncio.get_running_loop().time() + self._grace_s + limit_bytes / _SLOWEST_BYTES_PER_S
            # uvicorn lets no other Content-Length through than digits.
            if len(self._declared) > 18 or int(self._declared) > limit_bytes:
                raise _refused(413, f"a body of at most {limit_bytes} bytes", f"{self._declared[:18].decode()}")
        left_s = self._deadline - asyncio.get_running_loop().time()
        if left_s <= 0:
            # A client that drips never lets the wait below end.
            raise _refused(408, f"{limit_bytes} bytes or fewer at {_SLOWEST_BYTES_PER_S} a second or more", "fewer")
        try:
            async with asyncio.timeout(min(self._silence_s, left_s)):
                message = await self._receive()
        except TimeoutError:
            raise _refused(408, f"the next piece of the body within {self._silence_s:g} s", "none") from None
        if message["type"] == "http.request":
            self._size_bytes += len(message.get("body", b""))
            if self._size_bytes > limit_bytes:
                raise _refused(413, f"a body of at most {limit_bytes} bytes", "more")
            self.is_whole = not message.get("more_body", False)
        return message


def _refused(status: int, expected: str, found: str) -> HTTPException:
    return HTTPException(status, f"expected {expected}, found {found}; send a shorter one, or all of it at once")
