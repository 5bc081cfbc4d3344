"""The routes of a training round: weights out, updates in, each with the device's own token of that round."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from hedgerow.fleet.errors import TrainingRoundError
from hedgerow.fleet.training_exchange import TrainingExchange

__all__ = ["training_router"]

_bearer = HTTPBearer(auto_error=False, scheme_name="round token")
_Credentials = Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]


def training_router(exchange: TrainingExchange) -> APIRouter:
    """Return the routes below ``/v1/training``."""
    router = APIRouter(prefix="/v1/training", tags=["training"])

    @router.get("/{run}/{number}/weights", response_class=Response)
    def weights(run: str, number: int, credentials: _Credentials) -> Response:
        """Return the round's weights as safetensors."""
        payload = exchange.weights(run, number, _token(credentials))
        return Response(payload, media_type="application/octet-stream", headers={"Cache-Control": "no-store"})

    @router.put("/{run}/{number}/updates/{device}", status_code=204, response_class=Response)
    async def update(run: str, number: int, device: str, request: Request, credentials: _Credentials) -> Response:
        """Take a device's update, as safetensors."""
        token = _token(credentials)
        limit_bytes = exchange.limit_bytes(run, number, device, token)
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            # Before the rest is read: a device must not fill our memory.
            if len(body) > limit_bytes:
                detail = f"expected at most {limit_bytes} bytes, found more; send weights like the round's"
                raise TrainingRoundError(413, detail)
        exchange.accept(run, number, device, token, bytes(body))
        return Response(status_code=204)

    return router


def _token(credentials: HTTPAuthorizationCredentials | None) -> str:
    if credentials is None:
        detail = (
            "expected the header 'Authorization: Bearer <token>', found none; take the token from the training task"
        )
        raise TrainingRoundError(401, detail)
    return credentials.credentials
