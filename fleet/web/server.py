"""Serves an ASGI application from a thread with its own event loop; binds before it returns, stops in order.

How many connections it keeps, and for how long, is in http_connections.py.
"""

import asyncio
import errno
import logging
import socket
import threading
import time
from typing import TYPE_CHECKING, Any, Self

from hedgerow.closing import Running
from hedgerow.errors import PortInUseError
from hedgerow.fleet.errors import ServeError

if TYPE_CHECKING:
    import uvicorn

    from hedgerow.fleet.web.connections import ConnectionLimits

__all__ = ["HttpServer", "bind"]

_log = logging.getLogger(__name__)
_START_TIMEOUT_S = 20.0
_GRACE_S = 3


def bind(host: str, port: int) -> socket.socket:
    """Return a socket that listens; port 0 takes a free one.

    Raises:
        PortInUseError: Another program listens there.
        ServeError: The address is not ours, or the port is not allowed.
    """
    try:
        family, kind, protocol, _name, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as exc:
        raise ServeError(host, port, str(exc)) from exc
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        # Listening here and not in the thread: two programs may bind one address, but only one may listen.
        bound.listen(128)
    except OSError as exc:
        bound.close()
        if exc.errno == errno.EADDRINUSE:
            raise PortInUseError("the fleet service", host, port) from exc
        raise ServeError(host, port, exc.strerror or str(exc)) from exc
    return bound


class HttpServer(Running):
    """An HTTP server that lives as long as its ``with`` block.

    Args:
        app: An ASGI application.
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one.
        bound: A socket of :func:`bind`, for whoever wants the port before the application is ready.
        limits: What connections may cost; None: the usual limits.

    Attributes:
        host, port: Where it listens, once it was started.
    """

    def __init__(
        self,
        app: Any,
        host: str,
        port: int,
        *,
        bound: socket.socket | None = None,
        limits: "ConnectionLimits | None" = None,
    ) -> None:
        self._app, self._bound, self._limits = app, bound, limits
        self.host, self.port = host, port
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """The address that clients use, without a slash at the end."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    def start(self) -> Self:
        """Bind, then serve.

        Raises:
            PortInUseError: Another program listens there.
            ServeError: The address is not ours, or the port is not allowed.
        """
        import uvicorn

        from hedgerow.fleet.web.connections import BoundedProtocol, watch

        limits = self._limits or BoundedProtocol.limits
        bound = self._bound if self._bound is not None else bind(self.host, self.port)
        self.port = bound.getsockname()[1]
        config = uvicorn.Config(
            self._app,
            log_config=None,
            access_log=False,
            lifespan="off",
            ws="none",
            http=BoundedProtocol.limited(limits),
            h11_max_incomplete_event_size=limits.header_bytes,
            timeout_keep_alive=limits.idle_s,
            timeout_graceful_shutdown=_GRACE_S,
            server_header=False,
        )
        server = uvicorn.Server(config)
        self._server = server

        async def serve_watched() -> None:
            watcher = asyncio.create_task(watch(server.server_state.connections))
            try:
                await server.serve(sockets=[bound])
            finally:
                watcher.cancel()

        def serve() -> None:
            try:
                asyncio.run(serve_watched())
            except Exception:  # noqa: BLE001 - see above; it is logged
                _log.exception("the HTTP server ended")
            finally:
                bound.close()

        self._thread = threading.Thread(target=serve, name="http-server", daemon=True)
        self._thread.start()
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not server.started:
            if not self._thread.is_alive() or time.monotonic() > deadline:
                self.stop()
                raise ServeError(self.host, self.port, "the server did not start")
            time.sleep(0.005)
        return self

    def stop(self) -> None:
        """Take no more requests, finish those in progress (for at most three seconds), end the thread."""
        if self._server is not None:
            self._server.should_exit = True
        if self._thread is not None:
            self._thread.join()
            self._thread = None
