"""The routes of a training round: weights out, updates in, each with the device's own token of that round."""

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response, StreamingResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from hedgerow.fleet.errors import TrainingRoundError
from hedgerow.fleet.retrain.wire_round import TrainingExchange
from hedgerow.fleet.web.request_bodies import bound_body

__all__ = ["training_router"]

_PIECE_BYTES = 64 * 1024
_bearer = HTTPBearer(auto_error=False, scheme_name="round token")
_Credentials = Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]


def training_router(exchange: TrainingExchange) -> APIRouter:
    """Return the routes below ``/v1/training``."""
    router = APIRouter(prefix="/v1/training", tags=["training"])

    @router.get("/{run}/{number}/weights", response_class=Response)
    def weights(run: str, number: int, credentials: _Credentials) -> Response:
        """Return the round's weights as safetensors."""
        payload = exchange.weights(run, number, _token(credentials))
        headers = {"Cache-Control": "no-store", "Content-Length": str(len(payload))}
        # In pieces: a client that does not read would else hold a copy of the whole.
        return StreamingResponse(_pieces(payload), media_type="application/octet-stream", headers=headers)

    @router.put("/{run}/{number}/updates/{device}", status_code=204, response_class=Response)
    async def update(run: str, number: int, device: str, request: Request, credentials: _Credentials) -> Response:
        """Take a device's update, as safetensors."""
        token = _token(credentials)
        upload = exchange.begin(run, number, device, token)
        bound_body(request.scope, upload.limit_bytes)
        try:
            async for chunk in request.stream():
                upload.add(chunk)
            exchange.finish(run, number, device, upload)
        finally:
            upload.drop()
        return Response(status_code=204)

    return router


async def _pieces(payload: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(payload), _PIECE_BYTES):
        yield payload[start : start + _PIECE_BYTES]


def _token(credentials: HTTPAuthorizationCredentials | None) -> str:
    if credentials is None:
        detail = (
            "expected the header 'Authorization: Bearer <token>', found none; take the token from the training task"
        )
        raise TrainingRoundError(401, detail)
    return credentials.credentials
