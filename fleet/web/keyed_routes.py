"""Routes of the admin API: the key is checked before anything of the body is read.

A dependency would be asked too late: FastAPI reads and parses the body before it asks any.
"""

from collections.abc import Callable, Coroutine, Iterable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response
from fastapi.routing import APIRoute
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.concurrency import run_in_threadpool

from hedgerow.fleet.errors import AdminKeyError
from hedgerow.fleet.web.admin_keys import hash_key, is_accepted

__all__ = ["Actor", "keyed_router"]

_bearer = HTTPBearer(auto_error=False, scheme_name="admin key")


def _actor(request: Request) -> str:
    name: str = request.state.actor
    return name


Actor = Annotated[str, Depends(_actor)]
"""Who asks, for the audit log."""


def keyed_router(prefix: str, key_hashes: Callable[[], Iterable[str]]) -> APIRouter:
    """Return a router whose every route needs an admin key.

    Args:
        prefix: What its paths begin with.
        key_hashes: Returns the hashes of the keys that are accepted now.
    """

    def check(credentials: HTTPAuthorizationCredentials | None) -> str:
        if credentials is None:
            raise AdminKeyError("none")
        if not is_accepted(credentials.credentials, key_hashes()):
            raise AdminKeyError("another")
        return f"key {hash_key(credentials.credentials)[:8]}"

    class KeyedRoute(APIRoute):
        """Checks, then lets FastAPI begin."""

        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            handle = super().get_route_handler()

            async def handle_with_key(request: Request) -> Response:
                request.state.actor = await run_in_threadpool(check, await _bearer(request))
                return await handle(request)

            return handle_with_key

    # The dependency is for the description alone; the route has checked.
    return APIRouter(prefix=prefix, dependencies=[Depends(_bearer)], tags=["admin"], route_class=KeyedRoute)
